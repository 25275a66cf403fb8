//! `dolmen up [--detach]`: the whole site on this computer.

use std::process::ExitCode;
use std::time::Duration;

use crate::failure::Failure;
use crate::site::Home;
use crate::up;

#[derive(Debug, clap::Args)]
pub struct Up {
    /// Return when all is healthy, and leave the site running in the background
    #[arg(long)]
    detach: bool,
    /// Loopback addresses to use, so that several sites run side by side
    #[arg(long, value_name = "127.0.N", value_parser = block)]
    block: Option<u8>,
    /// With --detach: how many seconds until everything must be healthy
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    within: u64,
}

fn block(text: &str) -> Result<u8, String> {
    let number = text.strip_prefix("127.0.").and_then(|number| number.parse().ok());
    number.filter(|block| *block > 0).ok_or_else(|| "a block is written 127.0.N, with N from 1 to 255".into())
}

impl Up {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        super::usual_umask();
        link::program::path()?;
        link::log::begin(None);
        if self.detach {
            up::detach()?;
        } else {
            let within = Duration::from_secs(self.within);
            up::run(&up::Options { home: home.clone(), block: self.block, within })?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
