//! How the balancer is, in one sentence.

use link::report::State;
use relay::Fleet;

use crate::pool::Pools;

/// Healthy while at least one server of each pool is up.
pub(crate) fn state(pools: &Pools, address: &str) -> (State, String) {
    let (up, all) =
        pools.iter().fold((0, 0), |(up, all), pool| (up + pool.fleet.up(), all + pool.fleet.len()));
    if all == 0 {
        return (State::Unhealthy, format!("no servers to send requests to, answering 503 on {address}"));
    }
    let is_whole = pools.iter().all(|pool| pool.fleet.up() > 0);
    if !is_whole && !pools.iter().all(|pool| pool.fleet.is_known()) {
        return (State::Starting, "checking the servers".into());
    }
    let parts: Vec<String> = pools.iter().map(|pool| part(&pool.name, &pool.fleet)).collect();
    let parts = parts.join("; ");
    if up == 0 {
        return (State::Unhealthy, format!("{parts}, answering 503 on {address}"));
    }
    let state = if is_whole { State::Healthy } else { State::Unhealthy };
    (state, format!("serving on {address}, {parts}"))
}

fn part(name: &str, fleet: &Fleet) -> String {
    // A name may have fewer addresses than the plan has room for; without any its servers are down.
    let is_here = |index: &usize| !fleet.is_vacant(*index);
    let room = (0..fleet.len()).filter(is_here).count();
    let (up, all) = (fleet.up(), if room == 0 { fleet.len() } else { room });
    let ours = fleet.targets().all(|target| target.machine.is_some());
    let kind = match name {
        _ if ours => "web servers".to_owned(),
        "" => "servers".to_owned(),
        name => format!("servers of {name}"),
    };
    let mut text = match up {
        0 => format!("none of {all} {kind} is up"),
        _ => format!("{up} of {all} {kind} up"),
    };
    let out = |index: &usize| !fleet.is_up(*index) && (is_here(index) || room == 0);
    let named = |is_drained: bool| {
        let some = (0..fleet.len()).filter(out).filter(|index| fleet.is_drained(*index) == is_drained);
        some.map(|index| fleet.target(index).name.as_str()).collect::<Vec<_>>().join(", ")
    };
    for (state, names) in [("drained", named(true)), ("down", named(false))] {
        if !names.is_empty() && (up > 0 || state == "drained") {
            text += &format!(", {state}: {names}");
        }
    }
    text
}
