//! From what was typed to what it means. The order is that of the questions: which parts are there, where
//! do they run, at which addresses, and whom does each one ask next.

use crate::ground::Ground;
use crate::meant::{Balancer, Database, FORMAT, Machine, Place, Plan, Role, Server, Web};
use crate::mistake::{Mistake, Notes};
use crate::placement::{Force, place};
use crate::section::{control, dns::DnsSection, firewall, machines, monitor, network, route, tls};
use crate::servers::{self, servers, targets};
use crate::typed::Typed;

/// The plan of a site file. When anything is noted the plan must not be used: it stands on guesses then.
/// `before`: the servers of the plan that it comes after.
pub(crate) fn mean(typed: &Typed, ground: &Ground<'_>, before: &[Server], notes: &Notes) -> Plan {
    let force = Force::of(typed);
    note_contradictions(typed, force, notes);
    let machines = machines::mean(typed.machines.as_deref(), ground);
    let placement = place(typed, force, (&machines, ground.place), notes);
    let given = servers::Given { typed, place: ground.place, machines: &machines, before };
    let servers = servers(&placement, &given, notes);
    let domain = typed.domain.as_ref().map(|domain| domain.value.clone());
    let app = typed.app.as_ref().map(|section| section.mean(force.database, notes));
    Plan {
        format: FORMAT,
        generation: ground.generation,
        site: domain.clone().unwrap_or_else(|| ground.folder.to_owned()),
        domain,
        place: ground.place,
        dns: force.dns.then(|| mean_dns(typed, notes)).flatten(),
        balancer: force.balancer.then(|| mean_balancer(typed, &servers, ground, notes)),
        web: force.web.then(|| mean_web(typed, &servers, !force.balancer, ground, notes)),
        app,
        database: force.database.then(|| mean_database(typed, placement.of(Role::Database).len(), notes)),
        drained: Vec::new(),
        encrypted: network::is_encrypted(typed.network.as_ref(), machines.len(), ground.place),
        control: control::mean(&placement.may_vote, &servers),
        not_served: not_served(typed, &servers, &machines, ground.place),
        machines,
        servers,
    }
}

fn mean_dns(typed: &Typed, notes: &Notes) -> Option<crate::meant::Dns> {
    let absent = DnsSection::default();
    typed.dns.as_ref().unwrap_or(&absent).mean(typed.domain.as_ref(), notes)
}

fn mean_balancer(typed: &Typed, servers: &[Server], ground: &Ground<'_>, notes: &Notes) -> Balancer {
    let web = targets(servers, Role::Web);
    let own = if web.is_empty() { targets(servers, Role::App) } else { web };
    let section = typed.balancer.clone().unwrap_or_default();
    let balancer = section.mean(own, ground, notes);
    let has_own = section.pool.means_servers || !balancer.pool.servers.is_empty();
    Balancer {
        pools: route::mean_pools(&typed.pools),
        routes: route::mean_routes(&typed.routes, &typed.pools, has_own, notes),
        ..balancer
    }
}

fn mean_web(typed: &Typed, servers: &[Server], is_first: bool, ground: &Ground<'_>, notes: &Notes) -> Web {
    let section = typed.web.clone().unwrap_or_default();
    let web = section.mean(targets(servers, Role::App), is_first, ground.files, notes);
    if typed.web.is_some() && !section.serves_something(&web) && !typed.names.app {
        let hint = "name a folder with `root = \"public\"`, or app servers with `app = [\"10.0.0.5:8000\"]`";
        notes.note(Mistake::at(section.span, "[web] has nothing to serve").hint(hint));
    }
    web
}

fn mean_database(typed: &Typed, servers: usize, notes: &Notes) -> Database {
    typed.database.clone().unwrap_or_default().mean(servers, notes)
}

fn not_served(typed: &Typed, servers: &[Server], machines: &[Machine], place: Place) -> Vec<String> {
    let has = |role| servers.iter().any(|server| server.role == role);
    let (has_control, has_database) = (has(Role::Control), has(Role::Database));
    let written = [
        (typed.tls.is_some(), tls::NOT_SERVED),
        (typed.firewall.is_some(), firewall::NOT_SERVED),
        (typed.monitor.is_some(), monitor::NOT_SERVED),
        (typed.control.is_some() && !has_control, control::NOT_SERVED),
        (has_database && place == Place::Machines && machines.len() > 1, network::NOT_ENCRYPTED),
    ];
    written.iter().filter(|(is_written, _)| *is_written).map(|(_, sentence)| (*sentence).to_owned()).collect()
}

/// What no section can see alone.
fn note_contradictions(typed: &Typed, force: Force, notes: &Notes) {
    if force.is_nothing() {
        let hint = "name what shall run, for example\n\n[app]\ncommand = \"python3 app.py\"";
        notes.note(Mistake::of_file("the site file names nothing that serves").hint(hint));
    }
    note_dns_without_a_name(typed, notes);
    note_balancer(typed, force, notes);
    note_two_apps(typed, notes);
}

fn note_dns_without_a_name(typed: &Typed, notes: &Notes) {
    let Some(dns) = typed.dns.as_ref().filter(|dns| !typed.names.domain && !dns.means_zone) else { return };
    let hint = "write `domain = \"www.foobar.com\"` at the top of the file";
    notes.note(Mistake::at(dns.span.clone(), "[dns] has no name to answer for").hint(hint));
}

fn note_balancer(typed: &Typed, force: Force, notes: &Notes) {
    if !force.balancer
        && let Some(span) = typed
            .routes
            .iter()
            .map(|route| &route.span)
            .chain(typed.pools.iter().map(|pool| &pool.name.span))
            .next()
    {
        let mistake = Mistake::at(span.clone(), "routes and pools are of a balancer, and this site has none");
        notes.note(mistake.hint("add a section [balancer]"));
    }
    let Some(balancer) = &typed.balancer else { return };
    match &balancer.pool.servers {
        None if !balancer.pool.means_servers && !force.web && !force.app && typed.pools.is_empty() => {
            let hint = "name them: `servers = [\"10.0.0.1:80\", \"10.0.0.2:80\"]`";
            notes.note(Mistake::at(balancer.span.clone(), "[balancer] has no servers to send to").hint(hint));
        }
        Some(servers) if force.web || force.app => {
            let message = "`servers` of [balancer] stands beside servers of the site's own";
            let hint =
                "remove `servers` to send to the site's own, or the other sections to send only to these";
            notes.note(Mistake::at(servers.span.clone(), message).hint(hint));
        }
        Some(_) | None => {}
    }
}

fn note_two_apps(typed: &Typed, notes: &Notes) {
    let written = typed.web.as_ref().and_then(|web| web.app.as_ref());
    if let Some(app) = written.filter(|_| typed.names.app) {
        let message = "`app` of [web] stands beside an [app] section";
        let hint = "remove `app` to send to the site's own app servers, or the section to send only to these";
        notes.note(Mistake::at(app.span.clone(), message).hint(hint));
    }
}
