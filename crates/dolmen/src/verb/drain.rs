//! `dolmen drain SERVER`: takes a server out of rotation; what it has begun, it finishes.

use std::process::ExitCode;

use plan::Plan;

use super::change::Change;
use crate::failure::Failure;
use crate::out;
use crate::site::{Home, InForce};

#[derive(Debug, clap::Args)]
pub struct Drain {
    /// A web server, app server or balancer, for example web-1, or a server that [balancer] names
    #[arg(value_name = "SERVER")]
    server: String,
}

impl Drain {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let change = Change::begin(home)?;
        let old = &change.old;
        if old.plan.drained.contains(&self.server) {
            out::line(&format!("{} is out of rotation already", self.server));
        } else if let Some(because) = plan::why_not_drain(&old.plan, &self.server) {
            return Err(Failure::mistake(because));
        }
        let mut drained = old.plan.drained.clone();
        drained.push(self.server);
        let new = with(old, drained);
        change.carry_out(&new)
    }
}

/// What was in force, with these servers out of rotation.
pub fn with(old: &InForce, mut drained: Vec<String>) -> InForce {
    drained.sort();
    drained.dedup();
    let generation = old.plan.generation + u64::from(drained != old.plan.drained);
    InForce { plan: Plan { drained, generation, ..old.plan.clone() }, ..old.clone() }
}
