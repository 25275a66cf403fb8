//! What can be changed while a site runs, and which of its servers can be taken out of rotation.

use crate::difference;
use crate::meant::{Machine, Place, Plan, Role, Server, Target};

/// One sentence for each change that needs the site to be stopped and started; empty when `new` can follow `old`
/// while all goes on. Machines may come with their servers, and go with them; where the servers of the others are,
/// and what the database is, stays as it is while they run.
pub fn obstacles(old: &Plan, new: &Plan) -> Vec<String> {
    let mut sentences = of_the_site(old, new);
    if old.place == Place::Machines {
        sentences.extend(new.machines.iter().filter_map(|machine| moved(old, machine)));
        sentences.extend(new.machines.iter().filter_map(|machine| inherited(old, new, machine)));
    } else if !old.machines.iter().map(|machine| &machine.name).eq(new.machines.iter().map(|m| &m.name)) {
        // Here every machine is an address of one computer, and `up` starts the agents.
        sentences.extend(difference::machines(old, new));
    }
    let stays = |machine: &str| old.machine(machine).is_some() && new.machine(machine).is_some();
    let moves = |name: &str| old.server(name).is_some() && new.server(name).is_some();
    let may_change = |server: &Server| {
        old.place == Place::Machines
            && server.role != Role::Database
            && !stays(&server.machine)
            && !moves(&server.name)
    };
    let servers = difference::servers(old, new).into_iter();
    sentences.extend(servers.filter(|(server, _)| !may_change(server)).map(|(_, sentence)| sentence));
    sentences
}

/// The same for one machine that may have missed plans between the two: what became of the others is past.
pub fn obstacles_on(machine: &str, old: &Plan, new: &Plan) -> Vec<String> {
    let mut sentences = of_the_site(old, new);
    sentences.extend(new.machine(machine).and_then(|machine| moved(old, machine)));
    let changed = difference::servers(old, new).into_iter().filter(|(server, _)| {
        let is_here = server.machine == machine;
        let comes_or_goes = old.server(&server.name).is_none() || new.server(&server.name).is_none();
        server.role == Role::Database || is_here && !comes_or_goes
    });
    sentences.extend(changed.map(|(_, sentence)| sentence));
    sentences
}

/// What no machine can follow.
fn of_the_site(old: &Plan, new: &Plan) -> Vec<String> {
    let mut sentences = Vec::new();
    if old.site != new.site || old.place != new.place {
        sentences.push(format!("the site is {} instead of {}", new.site, old.site));
    }
    if old.encrypted && !new.encrypted {
        sentences.push("requests between machines are no longer encrypted".to_owned());
    }
    match (&old.database, &new.database) {
        (Some(old), Some(new)) => sentences.extend(difference::database(old, new)),
        (None, Some(_)) => sentences.push("a database comes".to_owned()),
        (Some(_), None) => sentences.push("the database goes".to_owned()),
        (None, None) => {}
    }
    sentences
}

/// Its servers and all others know it by the address that it has.
fn moved(old: &Plan, machine: &Machine) -> Option<String> {
    let before = old.machine(&machine.name)?;
    let is_elsewhere = (before.address, before.agent) != (machine.address, machine.agent);
    is_elsewhere.then(|| difference::changed_machine(Some(before), machine)).flatten()
}

/// What still runs at the address of a machine that goes would be taken for one that comes there.
fn inherited(old: &Plan, new: &Plan, machine: &Machine) -> Option<String> {
    let before = old.machines.iter().find(|before| before.address == machine.address)?;
    (old.machine(&machine.name).is_none() && new.machine(&before.name).is_none()).then(|| {
        format!(
            "the machine {} comes at {}, the address of {} that goes: take {} out first, and switch it off",
            machine.name, machine.address, before.name, before.name
        )
    })
}

/// Whether a tier before it chooses this server: ours by its name, others as the site file names them.
pub fn is_drainable(plan: &Plan, name: &str) -> bool {
    let ours = plan.server(name).is_some_and(|server| server.role == Role::Balancer);
    ours || groups(plan).any(|group| group.iter().any(|target| target.name == name))
}

/// Why this server must stay in rotation; None: it may be taken out.
pub fn why_not_drain(plan: &Plan, name: &str) -> Option<String> {
    if !is_drainable(plan, name) {
        return Some(match plan.server(name) {
            Some(server) => format!("no tier of {} chooses between {} servers", plan.site, server.role),
            None => format!("{} has no server {name}", plan.site),
        });
    }
    let stays = |other: &str| other != name && !plan.drained.iter().any(|drained| drained == other);
    let is_last = |group: &[Target]| {
        group.iter().any(|target| target.name == name)
            && !group.iter().any(|target| target.weight > 0 && stays(&target.name))
    };
    let last_balancer = plan.server(name).is_some_and(|server| server.role == Role::Balancer)
        && !plan.role(Role::Balancer).any(|server| stays(&server.name));
    (last_balancer || groups(plan).any(is_last))
        .then(|| format!("{name} is the last one in rotation: nothing would answer"))
}

/// The servers that the tiers choose from.
fn groups(plan: &Plan) -> impl Iterator<Item = &[Target]> {
    let balancer = plan.balancer.iter();
    let pools = balancer.flat_map(|balancer| std::iter::once(&balancer.pool).chain(&balancer.pools));
    let pools = pools.map(|pool| &pool.servers[..]);
    pools.chain(plan.web.iter().map(|web| &web.app[..]))
}
