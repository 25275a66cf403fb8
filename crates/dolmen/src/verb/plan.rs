//! `dolmen plan [--json]`: which server will run where, at which address, and what would change.

use std::process::ExitCode;

use plan::Place;

use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use crate::up::prepare;

#[derive(Debug, clap::Args)]
pub struct PlanVerb {
    /// The plan as JSON, for scripts
    #[arg(long)]
    json: bool,
    /// The plan of the real machines, not of `up`
    #[arg(long)]
    machines: bool,
}

impl PlanVerb {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = prepare::read(home)?;
        let state = home.state().ok();
        let old = state.as_ref().and_then(|state| state.plan().ok());
        let block = state.map_or(1, |state| state.about().block);
        let machines = self.machines || old.as_ref().is_some_and(|old| old.place == Place::Machines);
        let place = if machines { Place::Machines } else { Place::Up { block } };
        let old = old.filter(|old| old.place == place);
        let new = match &old {
            Some(old) => prepare::mean_after(home, &site, place, old)?,
            None => prepare::mean(home, &site, place, 1)?,
        };
        if self.json {
            out::line(&serde_json::to_string_pretty(&new).map_err(Failure::failed)?);
            return Ok(ExitCode::SUCCESS);
        }
        out::line(plan::describe(&new).trim_end());
        if old.is_some() || !machines {
            out::line("");
            for sentence in plan::difference(old.as_ref(), &new) {
                out::line(&sentence);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
