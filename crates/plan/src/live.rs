//! What can be changed while a site runs, and which of its servers can be taken out of rotation.

use crate::difference;
use crate::meant::{Plan, Role, Target};

/// One sentence for each change that needs the site to be stopped and started; empty when `new` can follow `old`
/// while all goes on. Where servers are, and what the database is, stays as it is while they run.
pub fn obstacles(old: &Plan, new: &Plan) -> Vec<String> {
    let mut sentences = Vec::new();
    if old.site != new.site || old.place != new.place {
        sentences.push(format!("the site is {} instead of {}", new.site, old.site));
    }
    let is_elsewhere = |machine: &&crate::Machine| {
        old.machine(&machine.name)
            .is_none_or(|old| (old.address, old.agent) != (machine.address, machine.agent))
    };
    if old.machines.len() != new.machines.len() || new.machines.iter().any(|machine| is_elsewhere(&machine)) {
        sentences.extend(difference::machines(old, new));
    }
    sentences.extend(difference::servers(old, new));
    match (&old.database, &new.database) {
        (Some(old), Some(new)) => sentences.extend(difference::database(old, new)),
        (None, Some(_)) => sentences.push("a database comes".to_owned()),
        (Some(_), None) => sentences.push("the database goes".to_owned()),
        (None, None) => {}
    }
    sentences
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
