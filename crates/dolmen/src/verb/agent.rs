//! `dolmen agent MACHINE`: one machine's part. On `up` it is started with the state folder that `up` has laid out;
//! on a real machine by systemd, or by hand.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::agent;
use crate::failure::Failure;
use crate::machines::found;
use crate::out;
use crate::site::State;

#[derive(Debug, clap::Args)]
pub struct Agent {
    /// The machine that this is; needed only to begin a new site, on its first machine
    machine: Option<String>,
    /// Which site, on a computer that belongs to several
    #[arg(long)]
    site: Option<String>,
    /// Make what the machine needs and end, for the systemd unit to run it
    #[arg(long)]
    prepare: bool,
    /// The state folder that `up` has made
    #[arg(long, hide = true, requires = "machine")]
    state: Option<PathBuf>,
}

impl Agent {
    pub fn run(self, file: &Path) -> Result<ExitCode, Failure> {
        super::usual_umask();
        link::program::path()?;
        if let (Some(root), Some(machine)) = (&self.state, &self.machine) {
            return serve(&State::open(root)?, machine);
        }
        let begun = found::open(file, self.machine.as_deref(), self.site.as_deref())?;
        if self.prepare {
            let site = &begun.state.about().site;
            out::line(&format!("this machine is {} of {site}", begun.machine));
            out::line(&format!(
                "`systemctl enable --now dolmen@{site}` runs its part, or `dolmen agent` by hand"
            ));
            return Ok(ExitCode::SUCCESS);
        }
        // Whoever started it sees why it ends; all else is in its log, as on `up`.
        let terminal = std::io::stderr().as_fd().try_clone_to_owned()?;
        let log = begun.state.machine(&begun.machine).log(&format!("agent-{}", begun.machine));
        rustix::stdio::dup2_stderr(link::log::open(&log)?).map_err(std::io::Error::from)?;
        let ended = serve(&begun.state, &begun.machine);
        if ended.is_err() {
            rustix::stdio::dup2_stderr(terminal).map_err(std::io::Error::from)?;
            return Err(Failure::failed(format!(
                "the agent of {} ended; {} says why",
                begun.machine,
                log.display()
            )));
        }
        ended
    }
}

fn serve(state: &State, machine: &str) -> Result<ExitCode, Failure> {
    link::log::begin(Some(&state.machine(machine).log(&format!("agent-{machine}"))));
    if let Err(error) = agent::run(state, machine) {
        tracing::error!("the agent of {machine} ends: {error}");
        return Err(Failure::Said(1));
    }
    Ok(ExitCode::SUCCESS)
}
