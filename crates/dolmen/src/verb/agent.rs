//! `dolmen agent MACHINE`: one machine's part. Started by `up` with the state folder that `up` has laid out.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::agent;
use crate::failure::Failure;
use crate::site::State;

#[derive(Debug, clap::Args)]
pub struct Agent {
    machine: String,
    #[arg(long)]
    state: PathBuf,
}

impl Agent {
    pub fn run(self) -> Result<ExitCode, Failure> {
        super::usual_umask();
        let state = State::open(&self.state)?;
        link::log::begin(Some(&state.machine(&self.machine).log(&format!("agent-{}", self.machine))));
        if let Err(error) = agent::run(&state, &self.machine) {
            tracing::error!("the agent of {} ends: {error}", self.machine);
            return Err(Failure::Said(1));
        }
        Ok(ExitCode::SUCCESS)
    }
}
