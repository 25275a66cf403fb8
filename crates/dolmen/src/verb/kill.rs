//! `dolmen kill SERVER|MACHINE`: a fault drill. What is killed stays down until `dolmen start`.

use std::process::ExitCode;

use link::api::Ask;
use link::disk::{self, Access};

use super::{Site, wait};
use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use crate::up::stop;

#[derive(Debug, clap::Args)]
pub struct Kill {
    /// A server, for example web-1, or a machine, for example beta
    #[arg(value_name = "SERVER|MACHINE")]
    target: String,
}

impl Kill {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        if site.here().is_some() {
            return Err(Failure::mistake(
                "a drill is for `dolmen up`: on real machines nothing is ended for practice",
            ));
        }
        if site.plan.machine(&self.target).is_some() {
            // Not by its agent: a machine whose agent is stuck can be lost as well.
            disk::replace(&site.state.machine(&self.target).down_mark(), b"", Access::Everyone)?;
            stop::kill_machine(&site.state, &self.target)?;
        } else {
            let machine = site.machine_of(&self.target)?;
            let ask = Ask::Kill { server: self.target.clone() };
            wait(site.order(machine, &ask))?;
        }
        out::line(&format!("killed {}; `dolmen start {}` brings it back", self.target, self.target));
        Ok(ExitCode::SUCCESS)
    }
}
