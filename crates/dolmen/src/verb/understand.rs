//! `dolmen understand`: what this build says of itself to one that may give way to it. Changes nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::out;
use crate::program::Understands;
use crate::site::State;

#[derive(Debug, clap::Args)]
pub struct Understand {
    /// The state folder that it has to understand
    #[arg(long)]
    state: PathBuf,
}

impl Understand {
    pub fn run(self) -> Result<ExitCode, Failure> {
        let state = State::open(&self.state)?;
        let understands = Understands::of(&state)?;
        out::line(&serde_json::to_string(&understands).map_err(Failure::failed)?);
        Ok(ExitCode::SUCCESS)
    }
}
