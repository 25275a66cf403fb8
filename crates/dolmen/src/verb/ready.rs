//! `dolmen ready SERVER`: puts back into rotation what `dolmen drain` took out.

use std::process::ExitCode;

use super::change::Change;
use super::drain;
use crate::failure::Failure;
use crate::site::Home;

#[derive(Debug, clap::Args)]
pub struct Ready {
    /// A server that was drained
    #[arg(value_name = "SERVER")]
    server: String,
}

impl Ready {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let change = Change::begin(home)?;
        let drained = &change.old.plan.drained;
        if !drained.contains(&self.server) {
            let names = if drained.is_empty() { "no server is".to_owned() } else { drained.join(", ") };
            return Err(Failure::mistake(format!(
                "{} is not out of rotation\nhint: drained: {names}",
                self.server
            )));
        }
        let others = drained.iter().filter(|name| **name != self.server).cloned().collect();
        let new = drain::with(&change.old, others);
        change.carry_out(&new)
    }
}
