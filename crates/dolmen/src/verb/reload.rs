//! `dolmen reload`: applies the changed site file to the site that runs, without the loss of a request.

use std::process::ExitCode;

use plan::{Machine, Place, Plan, Role};

use super::Site;
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
        let plan = prepare::mean_after(home, &written, place, &old.plan)?;
        may_follow(&old.plan, &plan)?;
        super::wait(may_go(&change.site, &plan))?;
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

fn may_follow(old: &Plan, new: &Plan) -> Result<(), Failure> {
    let obstacles = plan::obstacles(old, new);
    if obstacles.is_empty() {
        return Ok(());
    }
    let hint = match old.place {
        Place::Up { .. } => "`dolmen stop`, then `dolmen up`",
        Place::Machines => {
            "servers come with a new machine and go with one that is taken out: write `on` where a part runs, so that \
             it stays where it is on the others; database servers stay where they are"
        }
    };
    Err(Failure::failed(format!(
        "this cannot be changed while the site runs, and nothing was changed:\n  {}\nhint: {hint}",
        obstacles.join("\n  ")
    )))
}

/// Whether the machines that the new plan has no more may be taken out: not the one that this is, and none that is
/// needed for a majority.
async fn may_go(site: &Site, new: &Plan) -> Result<(), Failure> {
    let gone: Vec<&Machine> =
        site.plan.machines.iter().filter(|machine| new.machine(&machine.name).is_none()).collect();
    if gone.is_empty() {
        return Ok(());
    }
    if let Some(here) = site.here().filter(|here| gone.contains(here)) {
        return Err(Failure::mistake(format!(
            "{} cannot take itself out of the site; nothing was changed\nhint: `dolmen reload` on another machine does it",
            here.name
        )));
    }
    let voters = super::control::voters(site).await?;
    let still = site.plan.role(Role::Control).filter(|server| {
        voters.contains(&server.name) && gone.iter().any(|machine| machine.name == server.machine)
    });
    let Some(server) = still.into_iter().next() else { return Ok(()) };
    let (name, machine) = (&server.name, &server.machine);
    let other = new.role(Role::Control).find(|other| !voters.contains(&other.name));
    let hint = match other {
        Some(other) if site.plan.server(&other.name).is_some() => {
            format!("`dolmen control replace {name} {}` gives its vote to {}", other.name, other.machine)
        }
        _ => "let another machine join first, or name fewer machines in `[control] on` and `dolmen reload`"
            .into(),
    };
    Err(Failure::failed(format!(
        "{name} on {machine} votes, so that {machine} cannot be taken out; nothing was changed\nhint: {hint}"
    )))
}
