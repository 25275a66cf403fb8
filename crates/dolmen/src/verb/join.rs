//! `dolmen join TOKEN`: makes this computer a machine of a site.

use std::io::Read;
use std::process::ExitCode;

use link::api::Token;

use super::wait;
use crate::failure::Failure;
use crate::machines::join;
use crate::out;

/// A token on standard input is not longer.
const LIMIT: u64 = 4096;

#[derive(Debug, clap::Args)]
pub struct Join {
    /// What `dolmen token` printed; `-` reads it from standard input, where no other process sees it
    token: String,
}

impl Join {
    pub fn run(self) -> Result<ExitCode, Failure> {
        super::usual_umask();
        let text = match self.token.as_str() {
            "-" => {
                let mut text = String::new();
                std::io::stdin().take(LIMIT).read_to_string(&mut text)?;
                text
            }
            _ => self.token,
        };
        let token = Token::parse(&text).map_err(Failure::mistake)?;
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::failed(
                "a machine joins as root: its servers need low ports and accounts of their own\n\
                 hint: `sudo dolmen join TOKEN`",
            ));
        }
        let state = wait(join::join(&token))?;
        out::line(&format!("this machine is {} of {} now", token.machine, token.site));
        out::line(&format!("its state is in {}", state.root().display()));
        out::line(&format!(
            "`systemctl enable --now dolmen@{}` runs its part, or `dolmen agent` by hand",
            token.site
        ));
        Ok(ExitCode::SUCCESS)
    }
}
