//! `dolmen check [FILE]`: every mistake in the site file at once; exit 0 or 2.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plan::Place;

use crate::failure::Failure;
use crate::out;
use crate::up::prepare;

#[derive(Debug, clap::Args)]
pub struct Check {
    /// The site file, if not the one of --file
    #[arg(value_name = "FILE")]
    named: Option<PathBuf>,
}

impl Check {
    pub fn run(self, file: &Path) -> Result<ExitCode, Failure> {
        let home = super::home(self.named.as_deref().unwrap_or(file))?;
        let site = prepare::read(&home)?;
        // What is right on one computer and wrong on many, or the other way round, is a mistake too.
        let plan = prepare::mean(&home, &site, Place::Machines, 1)?;
        prepare::mean(&home, &site, Place::Up { block: 1 }, 1)?;
        let (servers, machines) = (plan.servers.len(), plan.machines.len());
        let count =
            |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let (servers, machines) = (count(servers, "server"), count(machines, "machine"));
        out::line(&format!("{} is right: {servers} on {machines}", home.file.display()));
        for sentence in plan.notes() {
            out::line(&format!("note: {sentence}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
