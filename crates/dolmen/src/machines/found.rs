//! How an agent finds out which machine of which site it is; and the beginning of a site on its first machine.
//!
//! A site begins once, on the first machine that its file names. There the authority, the secrets and the first
//! plan are made, and there control begins alone; every other machine joins. If any other machine of the file
//! answers already, the site has begun somewhere, and nothing is made.

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use link::disk::{self, Access};
use plan::{Place, Plan, Role};

use crate::failure::Failure;
use crate::site::{Home, Lock, State};
use crate::up::prepare;

/// How long another machine may take to say that it is there.
const PROBE: Duration = Duration::from_secs(1);

/// What an agent needs to begin.
#[derive(Debug)]
pub struct Begun {
    pub state: State,
    pub machine: String,
    _lock: Lock,
}

/// The part of this machine: of the site named, of the site file here, or of the only site of this computer. The
/// first time, on the first machine of the file, it is made.
pub fn open(file: &Path, machine: Option<&str>, site: Option<&str>) -> Result<Begun, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::failed(
            "on real machines dolmen needs root, for low ports and for the accounts of its servers\n\
             hint: `sudo dolmen agent …`, or the systemd unit; `dolmen up` runs the site without root",
        ));
    }
    let home = Home::of(file)?;
    let found = match site {
        Some(site) => State::of_system(site)?,
        None => home.state().ok().filter(|state| state.about().machine.is_some()),
    };
    let Some(state) = found else {
        let Some(machine) = machine.filter(|_| site.is_none()) else {
            return Err(Failure::mistake(
                "this machine belongs to no site yet\n\
                 hint: `dolmen join TOKEN` joins one; beside the site file of a new site, `dolmen agent MACHINE` begins it",
            ));
        };
        return begin(&home, machine);
    };
    let known = state.about().machine.clone().unwrap_or_default();
    if let Some(other) = machine.filter(|machine| *machine != known) {
        let site = &state.about().site;
        return Err(Failure::mistake(format!("this machine is {known} of {site}, and not {other}")));
    }
    state.make_accounts()?;
    let lock = state.lock()?;
    Ok(Begun { state, machine: known, _lock: lock })
}

fn begin(home: &Home, machine: &str) -> Result<Begun, Failure> {
    let written = prepare::read(home)?;
    let plan = prepare::mean(home, &written, Place::Machines, 1)?;
    may_begin(&plan, machine)?;
    prepare::needs(&plan)?;
    let (mut state, lock) = home.claim(&plan.site, None)?;
    if state.in_force().is_ok_and(|old| old.plan.place != Place::Machines) {
        return Err(Failure::failed(format!(
            "{} is what `dolmen up` keeps of this site on one computer; nothing was changed\n\
             hint: `dolmen stop` ends that; then move the folder away, to begin anew",
            state.root().display()
        )));
    }
    state.become_machine(machine, true);
    let (new, secrets) = prepare::make(&state, plan, None, false)?;
    begin_control(&state, &new.plan, machine)?;
    state.put_in_force(&new, &secrets)?;
    state.note_applied(new.plan.generation)?;
    // Last: only now this machine belongs to a site.
    state.write_about()?;
    Ok(Begun { state, machine: machine.to_owned(), _lock: lock })
}

/// Lets control begin here, without waiting for machines that are yet to join.
fn begin_control(state: &State, plan: &Plan, machine: &str) -> Result<(), Failure> {
    let Some(server) = plan.role(Role::Control).find(|server| server.machine == machine) else {
        return Ok(());
    };
    let folder = state.machine(machine);
    folder.prepare(&server.name, state.account(Role::Control))?;
    disk::replace(&folder.server(&server.name).join(control::BEGINS_ALONE), b"", Access::Everyone)?;
    Ok(())
}

/// Whether a site may begin on this machine.
fn may_begin(plan: &Plan, machine: &str) -> Result<(), Failure> {
    let names: Vec<&str> = plan.machines.iter().map(|machine| machine.name.as_str()).collect();
    if plan.machine(machine).is_none() {
        return Err(Failure::mistake(format!(
            "the site file has no machine {machine}; it has {}",
            names.join(", ")
        )));
    }
    let first = names.first().copied().unwrap_or_default();
    if first != machine {
        return Err(Failure::mistake(format!(
            "{} begins on {first}, the first machine of its file, and {machine} joins it\n\
             hint: on {first} `dolmen token {machine}` prints a token; here `dolmen join TOKEN` takes it",
            plan.site
        )));
    }
    for other in plan.machines.iter().filter(|other| other.name != machine) {
        if TcpStream::connect_timeout(&other.agent, PROBE).is_ok() {
            return Err(Failure::failed(format!(
                "{} has begun already: an agent answers at {}; nothing was changed\n\
                 hint: on {} `dolmen token {machine}` prints a token; here `dolmen join TOKEN` takes it",
                plan.site, other.agent, other.name
            )));
        }
    }
    Ok(())
}
