//! From the site file to a state folder that agents can start from.
//!
//! Everything that can be known to go wrong goes wrong here, before any process is started.

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::Arc;

use link::Secrets;
use plan::{Disk, Ground, Place, Plan, Role, Site};

use super::probe;
use crate::agent::record;
use crate::failure::Failure;
use crate::out;
use crate::site::{Home, InForce, State};

/// A site that is ready to be started.
pub struct Prepared {
    pub state: State,
    pub plan: Arc<Plan>,
    /// Both end with the process and not before: `stop` takes them for the sign that nothing is left.
    locks: [OwnedFd; 2],
}

impl Prepared {
    /// The site goes on, in the hands of a process that another program has become.
    pub fn inherited(home: &Home, locks: [OwnedFd; 2]) -> Result<Self, Failure> {
        let state = home.state()?;
        let plan = Arc::new(state.plan()?);
        Ok(Self { state, plan, locks })
    }

    pub fn locks(&self) -> &[OwnedFd; 2] {
        &self.locks
    }
}

/// Reads, checks and lays out; on any error nothing was started and no state was damaged.
pub fn prepare(home: &Home, block: Option<u8>) -> Result<Prepared, Failure> {
    let site = read(home)?;
    // The site's name, which the state folder is found by, does not depend on the block.
    let first = mean(home, &site, Place::Up { block: block.unwrap_or(1) }, 1)?;
    let (state, lock) = home.claim(&first.site, block)?;
    let block = state.about().block;
    let block_lock = lock_block(block)?;
    let old = state.in_force().ok();
    let place = Place::Up { block };
    let plan = match &old {
        Some(old) => mean_after(home, &site, place, &old.plan)?,
        None => mean(home, &site, place, 1)?,
    };
    needs(&plan)?;
    let (new, secrets) = make(&state, plan, old.as_ref(), false)?;
    let surviving = surviving(&state, &new.plan);
    if !surviving.is_empty() && old.as_ref() != Some(&new) {
        out::line("an earlier `dolmen up` left servers running; stopping them, since the site has changed");
        super::stop::all(&state)?;
    }
    probe_addresses(&state, &new.plan)?;
    state.put_in_force(&new, &secrets)?;
    let plan = new.plan;
    remove_mark(&state.stop_mark())?;
    for machine in &plan.machines {
        fresh_start(&state, &machine.name)?;
    }
    let locks = [lock.into(), block_lock.into()];
    Ok(Prepared { state, plan: Arc::new(plan), locks })
}

/// All that is to be in force with this plan, made if need be, and of the next generation if it is something new.
/// The secrets are put in force together with it; others are something new as well. `runs`: whether `old` runs now.
pub fn make(
    state: &State,
    plan: Plan,
    old: Option<&InForce>,
    runs: bool,
) -> Result<(InForce, Secrets), Failure> {
    let (release, secrets) = state.prepare(&plan, old, runs)?;
    let mut new = InForce { plan, release };
    if let Some(old) = old {
        let is_same = new.is_same_as(old) && secrets == state.all_secrets()?;
        new.plan.generation = old.plan.generation + u64::from(!is_same);
    }
    Ok((new, secrets))
}

/// The site file, or the mistake that there is none.
pub fn read(home: &Home) -> Result<Site, Failure> {
    Site::read(&home.file).map_err(|mistakes| drawn(home, "", &mistakes))
}

/// What it means here, or all its mistakes.
pub fn mean(home: &Home, site: &Site, place: Place, generation: u64) -> Result<Plan, Failure> {
    let (name, files) = (home.name(), Disk { folder: home.folder.clone() });
    let ground = Ground { place, generation, folder: &name, files: &files };
    site.plan(&ground).map_err(|mistakes| drawn(home, site.text(), &mistakes))
}

/// The same as what comes after `old`, whose servers keep their names and whose orders stay in force.
pub fn mean_after(home: &Home, site: &Site, place: Place, old: &Plan) -> Result<Plan, Failure> {
    let (name, files) = (home.name(), Disk { folder: home.folder.clone() });
    let ground = Ground { place, generation: old.generation, folder: &name, files: &files };
    let new = site.plan_after(&ground, old).map_err(|mistakes| drawn(home, site.text(), &mistakes))?;
    let drained = old.drained.iter().filter(|name| plan::is_drainable(&new, name)).cloned().collect();
    Ok(Plan { drained, ..new })
}

fn drawn(home: &Home, text: &str, mistakes: &plan::Mistakes) -> Failure {
    let drawn = plan::render(mistakes, text, &home.file.display().to_string(), out::has_colour());
    Failure::Mistakes(drawn)
}

/// What the computer must have.
pub fn needs(plan: &Plan) -> Result<(), Failure> {
    if plan.role(Role::Database).next().is_some() {
        database::find_postgres().map_err(Failure::failed)?;
    }
    Ok(())
}

/// Two sites with the same loopback addresses would answer for each other. An abstract socket is a lock that
/// belongs to the network namespace, as the addresses do, and that ends with the process.
fn lock_block(block: u8) -> Result<UnixListener, Failure> {
    let address = SocketAddr::from_abstract_name(format!("dolmen-block-{block}"))?;
    UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::failed(format!(
            "another site runs on the addresses 127.0.{block}.*\n\
             hint: `dolmen up --block 127.0.{}` takes others",
            block % 254 + 1
        )),
        _ => error.into(),
    })
}

/// The machines of the plan of which an agent or a server is alive.
fn surviving(state: &State, plan: &Plan) -> Vec<String> {
    let alive = |machine: &str| {
        let record = record::read(&state.machine(machine).record()).unwrap_or_default();
        let servers = record.servers.values().flat_map(record::Entry::processes);
        record.agent.into_iter().chain(servers).any(record::Process::is_alive)
    };
    plan.machines.iter().map(|machine| machine.name.clone()).filter(|name| alive(name)).collect()
}

fn probe_addresses(state: &State, plan: &Plan) -> Result<(), Failure> {
    let surviving = surviving(state, plan);
    let empty: Vec<&str> = plan
        .machines
        .iter()
        .map(|machine| machine.name.as_str())
        .filter(|name| !surviving.iter().any(|s| s == name))
        .collect();
    let taken = probe::taken(plan, &empty);
    if taken.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = taken.iter().map(|taken| format!("  {taken}")).collect();
    let Place::Up { block } = plan.place else { return Err(Failure::failed(list.join("\n"))) };
    Err(Failure::failed(format!(
        "addresses of this site are not free\n{}\nhint: end what has them, or take other addresses: `dolmen up --block 127.0.{}`",
        list.join("\n"),
        block % 254 + 1
    )))
}

/// Removes a file that says something by being there, if it is.
pub fn remove_mark(mark: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What was killed in an earlier run comes back with a new `up`.
fn fresh_start(state: &State, machine: &str) -> Result<(), Failure> {
    let folder = state.machine(machine);
    remove_mark(&folder.down_mark())?;
    let living = record::read(&folder.record())?.agent.is_some_and(record::Process::is_alive);
    if !living {
        record::Record::open(&folder.record())?.change(|content| content.killed.clear());
    }
    Ok(())
}
