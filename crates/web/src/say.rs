//! How the web server is, in one sentence.

use link::report::State;
use relay::Fleet;

/// Healthy when it can do all that it is there for: without any app server only the files are left.
pub(crate) fn state(start: &link::Start, fleet: &Fleet, workers: usize) -> (State, String) {
    let address = start.me.listens("http").map(|address| address.to_string()).unwrap_or_default();
    let (up, all) = (fleet.up(), fleet.len());
    if all == 0 {
        return (State::Healthy, format!("serving files on {address}"));
    }
    if !fleet.is_known() && up == 0 {
        return (State::Starting, "checking the app servers".into());
    }
    let workers = match workers {
        0 => String::new(),
        1 => ", handing requests straight to 1 worker".into(),
        count => format!(", handing requests straight to {count} workers"),
    };
    let down: Vec<_> = (0..all)
        .filter(|index| !fleet.is_up(*index))
        .map(|index| fleet.target(index).name.as_str())
        .collect();
    match (up, down.len()) {
        (0, _) => {
            (State::Unhealthy, format!("none of {all} app servers is up, serving only files on {address}"))
        }
        (_, 0) => (State::Healthy, format!("serving on {address}, {up} of {all} app servers up{workers}")),
        _ => (
            State::Healthy,
            format!("serving on {address}, {up} of {all} app servers up, down: {}{workers}", down.join(", ")),
        ),
    }
}
