//! The balancer's part of a plan for people: its pools, how their servers are checked, and what it takes.

use crate::meant::{Balancer, Check, CheckKind, Limits, Mode, Network, Pool, RateLimit, Route, Target, To};
use crate::typed::{bytes_text, duration_text};

/// Parts with what each does, in the order of a request.
pub(super) fn rows(balancer: &Balancer) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if !balancer.trusted.is_empty() {
        rows.push(("trusted", trusted(&balancer.trusted, balancer.proxy_protocol)));
    }
    rows.extend(limits(&balancer.limits, balancer.rate_limit).map(|limits| ("limits", limits)));
    if !balancer.pool.servers.is_empty() {
        rows.push(("balancer", pool(&balancer.pool)));
        rows.push(("checks", check(&balancer.pool.check)));
        rows.extend(waits(&balancer.pool).map(|waits| ("queue", waits)));
    }
    rows.extend(balancer.routes.iter().map(|of| ("route", route(of))));
    for named in &balancer.pools {
        let of_pool = |text: String| format!("{}: {text}", named.name);
        rows.push(("pool", of_pool(pool(named))));
        rows.push(("checks", of_pool(check(&named.check))));
        rows.extend(waits(named).map(|waits| ("queue", of_pool(waits))));
    }
    rows
}

fn route(route: &Route) -> String {
    let any = |list: &[String], any: &str| if list.is_empty() { any.to_owned() } else { list.join(", ") };
    let path = route.path.as_deref().unwrap_or("/");
    let what = format!("{} {} {path}", any(&route.methods, "any method,"), any(&route.hosts, "any host,"));
    match &route.to {
        To::Pool(name) if name.is_empty() => format!("{what} to the balancer's own servers"),
        To::Pool(name) => format!("{what} to the pool {name}"),
        To::Redirect { location, status } => format!("{what} is redirected to {location} ({status})"),
    }
}

fn pool(pool: &Pool) -> String {
    let by = pool.hash_by.as_ref().map_or(String::new(), |name| format!(" of {name}"));
    let sticky =
        pool.sticky.as_ref().map_or(String::new(), |sticky| format!(", sticky by {}", sticky.cookie));
    let (algorithm, mode) = (pool.algorithm.name(), mode(pool.mode));
    format!("{algorithm}{by}, {mode}{sticky}, to {}", targets(&pool.servers))
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::ActiveActive => "active-active",
        Mode::ActivePassive => "active-passive",
    }
}

pub(super) fn targets(targets: &[Target]) -> String {
    let target = |target: &Target| {
        let weight = if target.weight == 1 { String::new() } else { format!(" (weight {})", target.weight) };
        let backup = if target.backup { " (backup)" } else { "" };
        format!("{}{weight}{backup}", target.name)
    };
    targets.iter().map(target).collect::<Vec<_>>().join(", ")
}

fn check(check: &Check) -> String {
    let what = match check.kind {
        CheckKind::Http => format!("{} {}", check.method, check.path),
        CheckKind::Tcp => "a connection".to_owned(),
    };
    format!(
        "{what} every {}, each within {}; {} in a row that fail take a server out, {} that are good bring it back",
        duration_text(check.interval_ms),
        duration_text(check.timeout_ms),
        check.fall,
        check.rise
    )
}

/// What waits while servers have as many requests as they may, if they have a limit.
fn waits(pool: &Pool) -> Option<String> {
    let limits = pool.servers.iter().map(|server| server.max_connections);
    let (least, most) = (limits.clone().flatten().min()?, limits.flatten().max()?);
    let each = if least == most { format!("{least}") } else { format!("{least} to {most}") };
    let (length, time) = (pool.queue.length, duration_text(pool.queue.timeout_ms));
    Some(format!("{each} requests at each server, {length} more wait for up to {time}"))
}

fn limits(limits: &Limits, rate: Option<RateLimit>) -> Option<String> {
    let parts = [
        limits.connections.map(|most| format!("{most} connections")),
        limits.header_bytes.map(|most| format!("heads of {}", bytes_text(most))),
        limits.body_bytes.map(|most| format!("bodies of {}", bytes_text(most))),
        rate.map(|rate| {
            let RateLimit { requests, per_ms, burst } = rate;
            format!("{requests} requests in {} of one client, {burst} at once", duration_text(per_ms))
        }),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn trusted(networks: &[Network], proxy_protocol: bool) -> String {
    let network = |network: &Network| format!("{}/{}", network.address, network.bits);
    let networks: Vec<String> = networks.iter().map(network).collect();
    let by = if proxy_protocol { "by the PROXY protocol and by header fields" } else { "by header fields" };
    format!("{} may say who the client is, {by}", networks.join(", "))
}
