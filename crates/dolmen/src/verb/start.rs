//! `dolmen start SERVER|MACHINE`: brings back what `dolmen kill` ended.

use std::process::ExitCode;

use link::api::Ask;

use super::{Site, wait};
use crate::failure::Failure;
use crate::out;
use crate::site::Home;

#[derive(Debug, clap::Args)]
pub struct Start {
    /// A server, for example web-1, or a machine, for example beta
    #[arg(value_name = "SERVER|MACHINE")]
    target: String,
}

impl Start {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        if site.plan.machine(&self.target).is_some() {
            // `up` sees that the mark is gone, and starts the machine's agent.
            match std::fs::remove_file(site.state.machine(&self.target).down_mark()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    out::line(&format!("{} was not killed", self.target));
                    return Ok(ExitCode::SUCCESS);
                }
                other => other?,
            }
        } else {
            let machine = site.machine_of(&self.target)?;
            let ask = Ask::Start { server: self.target.clone() };
            wait(site.order(machine, &ask))?;
        }
        out::line(&format!("starting {}; `dolmen status` shows when it is ready", self.target));
        Ok(ExitCode::SUCCESS)
    }
}
