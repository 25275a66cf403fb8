//! What a changed site file would change, in sentences. Values of the environment are never repeated.

use std::collections::BTreeMap;

use crate::describe::listen;
use crate::meant::{App, Database, Machine, Plan, Pool, Server};
use crate::typed::duration_text;

/// Whether two plans mean the same; the generation says only when.
pub fn same_meaning(one: &Plan, other: &Plan) -> bool {
    let mut other = other.clone();
    other.generation = one.generation;
    *one == other
}

/// One sentence for each thing that would change; empty when nothing would. `old` is None for a site that
/// was never started.
pub fn difference(old: Option<&Plan>, new: &Plan) -> Vec<String> {
    let Some(old) = old else {
        return new.servers.iter().map(|server| started(server, new)).collect();
    };
    let mut sentences = Vec::new();
    if old.site != new.site {
        sentences.push(format!("the site is {} instead of {}", new.site, old.site));
    }
    sentences.extend(machines(old, new));
    sentences.extend(servers(old, new).into_iter().map(|(_, sentence)| sentence));
    sentences.extend(parts(old, new));
    say(&mut sentences, "the site has another domain", old.domain != new.domain && old.site == new.site);
    let voters = |plan: &Plan| plan.control.as_ref().map(|control| control.voters.clone());
    if let (Some(old), Some(new)) = (voters(old), voters(new))
        && old != new
    {
        sentences.push(format!("{} vote instead of {}", new.join(", "), old.join(", ")));
    }
    let (on, off) = (new.encrypted && !old.encrypted, old.encrypted && !new.encrypted);
    say(&mut sentences, "requests between machines go in TLS", on);
    say(&mut sentences, "requests between machines are no longer encrypted", off);
    say(&mut sentences, "the site runs on another ground", old.place != new.place);
    let drained = new.drained.iter().filter(|name| !old.drained.contains(name));
    sentences.extend(drained.map(|name| format!("{name} leaves the rotation")));
    let ready = old.drained.iter().filter(|name| !new.drained.contains(name));
    sentences.extend(ready.map(|name| format!("{name} is in rotation again")));
    let unserved = new.not_served.iter().filter(|sentence| !old.not_served.contains(sentence));
    sentences.extend(unserved.cloned());
    let gone = old.not_served.iter().filter(|sentence| !new.not_served.contains(sentence));
    sentences.extend(gone.map(|sentence| format!("no longer written: {sentence}")));
    sentences
}

fn started(server: &Server, plan: &Plan) -> String {
    let listens: Vec<String> = server.listen.iter().map(listen).collect();
    let machine = plan.machine(&server.machine).map_or(server.machine.as_str(), |machine| &machine.name);
    format!("{} starts on {machine}, at {}", server.name, listens.join(" and "))
}

pub(crate) fn machines(old: &Plan, new: &Plan) -> Vec<String> {
    let gone = old.machines.iter().filter(|machine| new.machine(&machine.name).is_none());
    let mut sentences: Vec<String> =
        gone.map(|machine| format!("the machine {} leaves", machine.name)).collect();
    sentences.extend(
        new.machines.iter().filter_map(|machine| changed_machine(old.machine(&machine.name), machine)),
    );
    sentences
}

pub(crate) fn changed_machine(old: Option<&Machine>, new: &Machine) -> Option<String> {
    match old {
        None => Some(format!("the machine {} joins, at {}", new.name, new.address)),
        Some(old) if old.address != new.address => {
            Some(format!("the machine {} is at {} instead of {}", new.name, new.address, old.address))
        }
        Some(old) if old.public != new.public => {
            Some(format!("DNS answers other addresses for {}", new.name))
        }
        Some(_) => None,
    }
}

/// Each server that ends, starts or changes, with its sentence.
pub(crate) fn servers<'a>(old: &'a Plan, new: &'a Plan) -> Vec<(&'a Server, String)> {
    let gone = old.servers.iter().filter(|server| new.server(&server.name).is_none());
    let mut sentences: Vec<_> =
        gone.map(|server| (server, format!("{} on {} ends", server.name, server.machine))).collect();
    for server in &new.servers {
        let sentence = match old.server(&server.name) {
            None => Some(started(server, new)),
            Some(old) => changed_server(old, server),
        };
        sentences.extend(sentence.map(|sentence| (server, sentence)));
    }
    sentences
}

fn changed_server(old: &Server, new: &Server) -> Option<String> {
    if old.machine != new.machine {
        return Some(format!("{} moves from {} to {}", new.name, old.machine, new.machine));
    }
    if old.listen != new.listen {
        let text = |server: &Server| server.listen.iter().map(listen).collect::<Vec<_>>().join(" and ");
        return Some(format!("{} listens at {} instead of {}", new.name, text(new), text(old)));
    }
    (old.address != new.address)
        .then(|| format!("{} is at {} instead of {}", new.name, new.address, old.address))
}

/// What changes in a part besides where it runs.
fn parts(old: &Plan, new: &Plan) -> Vec<String> {
    let mut sentences = Vec::new();
    if let (Some(old), Some(new)) = (&old.dns, &new.dns) {
        say(&mut sentences, "dns answers for another zone", old.zone != new.zone || old.site != new.site);
        say(&mut sentences, "dns answers other records", old.records != new.records);
        let rest = old.ttl_s != new.ttl_s || old.mailbox != new.mailbox;
        say(&mut sentences, "dns gives another ttl or mailbox", rest);
    }
    if let (Some(old), Some(new)) = (&old.balancer, &new.balancer) {
        sentences.extend(pool("the balancer", &old.pool, &new.pool));
        say(&mut sentences, "the balancer has other routes", old.routes != new.routes);
        sentences.extend(pools(&old.pools, &new.pools));
        let limits = old.limits != new.limits || old.rate_limit != new.rate_limit;
        say(&mut sentences, "the balancer has other limits", limits);
        say(&mut sentences, "the balancer has other time-outs", old.timeouts != new.timeouts);
        say(&mut sentences, "the balancer logs requests in another way", old.access_log != new.access_log);
    }
    if let (Some(old), Some(new)) = (&old.web, &new.web) {
        say(&mut sentences, "web serves another folder", old.root != new.root);
        say(&mut sentences, "web sends to other app servers", old.app != new.app);
        say(&mut sentences, "web checks the app servers in another way", old.check != new.check);
        say(&mut sentences, "web has other time-outs", old.timeouts != new.timeouts);
        say(&mut sentences, "web logs requests in another way", old.access_log != new.access_log);
    }
    if let (Some(old), Some(new)) = (&old.app, &new.app) {
        sentences.extend(app(old, new));
    }
    if let (Some(old), Some(new)) = (&old.database, &new.database) {
        sentences.extend(database(old, new));
    }
    sentences
}

fn pools(old: &[Pool], new: &[Pool]) -> Vec<String> {
    let find = |pools: &'_ [Pool], name: &str| pools.iter().position(|pool| pool.name == name);
    let gone = old.iter().filter(|pool| find(new, &pool.name).is_none());
    let mut sentences: Vec<String> = gone.map(|old| format!("the pool {} goes", old.name)).collect();
    for new in new {
        match find(old, &new.name) {
            None => sentences.push(format!("the pool {} comes", new.name)),
            Some(index) => sentences.extend(pool(&format!("the pool {}", new.name), &old[index], new)),
        }
    }
    sentences
}

fn pool(who: &str, old: &Pool, new: &Pool) -> Vec<String> {
    let mut sentences = Vec::new();
    let way = |pool: &Pool| (pool.algorithm, pool.mode, pool.hash_by.clone(), pool.sticky.clone());
    say(&mut sentences, &format!("{who} chooses in another way"), way(old) != way(new));
    say(&mut sentences, &format!("{who} sends to other servers"), old.servers != new.servers);
    say(&mut sentences, &format!("{who} checks its servers in another way"), old.check != new.check);
    let trust = |pool: &Pool| (pool.eject, pool.slow_start_ms);
    say(&mut sentences, &format!("{who} trusts its servers in another way"), trust(old) != trust(new));
    say(&mut sentences, &format!("{who} has another queue"), old.queue != new.queue);
    sentences
}

fn say(sentences: &mut Vec<String>, sentence: &str, changed: bool) {
    if changed {
        sentences.push(sentence.to_owned());
    }
}

fn app(old: &App, new: &App) -> Vec<String> {
    let mut sentences = Vec::new();
    if old.command != new.command {
        sentences
            .push(format!("the application is started by `{}` instead of `{}`", new.command, old.command));
    }
    if old.workers != new.workers {
        sentences.push(format!("each app server has {} workers instead of {}", new.workers, old.workers));
    }
    if old.health != new.health {
        sentences.push(format!("workers are healthy at {} instead of {}", new.health, old.health));
    }
    sentences.extend(changed_keys("the variable", &old.environment, &new.environment));
    let patience = old.start_ms != new.start_ms || old.stop_ms != new.stop_ms || old.timeouts != new.timeouts;
    say(&mut sentences, "app has other time-outs", patience);
    sentences
}

pub(crate) fn database(old: &Database, new: &Database) -> Vec<String> {
    let mut sentences = Vec::new();
    match (&old.url, &new.url) {
        (None, Some(_)) => sentences.push("the database is run by somebody else from then on".to_owned()),
        (Some(_), None) => {
            sentences.push("the database runs on the site's own machines from then on".to_owned())
        }
        (one, other) => say(&mut sentences, "the database is at another address", one != other),
    }
    if old.synchronous != new.synchronous {
        let waits = if new.synchronous { "waits" } else { "no longer waits" };
        sentences.push(format!("a commit {waits} for a replica"));
    }
    if old.strict != new.strict && old.synchronous == new.synchronous {
        let waits = if new.strict { "waits" } else { "does not wait" };
        sentences.push(format!("a commit {waits} for a replica when there is none"));
    }
    let lease = |database: &Database| duration_text(database.lease_ms);
    if old.lease_ms != new.lease_ms {
        sentences.push(format!("the lease of the primary lasts {} instead of {}", lease(new), lease(old)));
    }
    if old.name != new.name {
        sentences.push(format!("the application's database is `{}` instead of `{}`", new.name, old.name));
    }
    sentences.extend(changed_keys("the PostgreSQL setting", &old.settings, &new.settings));
    sentences
}

/// Which keys come, go or change; not their values, which may be secret.
fn changed_keys<V: PartialEq>(
    what: &str,
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
) -> Vec<String> {
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| format!("{what} {key} goes"));
    let rest = new.iter().filter_map(|(key, value)| match old.get(key) {
        None => Some(format!("{what} {key} comes")),
        Some(before) if before != value => Some(format!("{what} {key} changes")),
        Some(_) => None,
    });
    gone.chain(rest).collect()
}
