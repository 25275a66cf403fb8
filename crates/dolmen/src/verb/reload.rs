//! `dolmen reload`: applies the changed site file to the site that runs, without the loss of a request.

use std::process::ExitCode;

use plan::Place;

use super::change::Change;
use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use crate::up::prepare;

#[derive(Debug, clap::Args)]
pub struct Reload {
    /// On several machines: replaces this generation, which came from another machine, by the site file here
    #[arg(long, value_name = "GENERATION")]
    over: Option<u64>,
}

impl Reload {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        super::usual_umask();
        let written = prepare::read(home)?;
        let mut change = Change::begin(home)?;
        let applied = match change.publisher() {
            Some(publisher) => Some(super::wait(publisher.may_apply(self.over))?),
            None => None,
        };
        let state = change.site.state.with_home(&home.folder);
        let (state, old) = (&state, &change.old);
        let place = match old.plan.place {
            Place::Up { .. } => Place::Up { block: state.about().block },
            Place::Machines => Place::Machines,
        };
        let plan = prepare::following(prepare::mean(home, &written, place, 1)?, Some(&old.plan));
        let obstacles = plan::obstacles(&old.plan, &plan);
        if !obstacles.is_empty() {
            return Err(Failure::failed(format!(
                "this cannot be changed while the site runs, and nothing was changed:\n  {}\n\
                 hint: `dolmen stop`, then `dolmen up`",
                obstacles.join("\n  ")
            )));
        }
        let differences = plan::difference(Some(&old.plan), &plan);
        let (new, secrets) = prepare::make(state, plan, Some(old), true)?;
        differences.iter().for_each(|sentence| out::line(sentence));
        if let Some(number) = new.release.number.filter(|_| new.release != old.release) {
            out::line(&format!("the application files have changed: they are release {number} now"));
        }
        if secrets != change.secrets {
            out::line("secrets have changed");
        }
        if new == *old {
            out::line("nothing has changed");
        }
        let (state, generation) = (state.clone(), new.plan.generation);
        let applied = applied.map(|applied| if new == *old { applied } else { generation });
        change.secrets = secrets;
        let carried = change.carry_out(&new);
        if let Some(applied) =
            applied.filter(|_| state.plan().is_ok_and(|plan| plan.generation >= generation))
        {
            state.note_applied(applied)?;
        }
        carried
    }
}
