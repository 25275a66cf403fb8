//! How the balancer is, in one sentence.

use link::report::State;
use relay::Fleet;

/// Healthy while at least one server is up.
pub(crate) fn state(fleet: &Fleet, address: &str) -> (State, String) {
    let (up, all) = (fleet.up(), fleet.len());
    if all == 0 {
        return (State::Unhealthy, format!("no servers to send requests to, answering 503 on {address}"));
    }
    if !fleet.is_known() && up == 0 {
        return (State::Starting, "checking the servers".into());
    }
    let ours = fleet.targets().all(|target| target.machine.is_some());
    let kind = if ours { "web servers" } else { "servers" };
    let down: Vec<_> = (0..all)
        .filter(|index| !fleet.is_up(*index))
        .map(|index| fleet.target(index).name.as_str())
        .collect();
    match (up, down.len()) {
        (0, _) => (State::Unhealthy, format!("none of {all} {kind} is up, answering 503 on {address}")),
        (_, 0) => (State::Healthy, format!("serving on {address}, {up} of {all} {kind} up")),
        _ => (
            State::Healthy,
            format!("serving on {address}, {up} of {all} {kind} up, down: {}", down.join(", ")),
        ),
    }
}
