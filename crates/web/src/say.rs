//! How the web server is, in one sentence.

use link::report::State;
use relay::Fleet;

/// Healthy when it can do all that it is there for: without any app server only the files are left.
pub(crate) fn state(address: &str, fleet: &Fleet, workers: usize) -> (State, String) {
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
    if up == 0 {
        return (
            State::Unhealthy,
            format!("none of {all} app servers is up, serving only files on {address}"),
        );
    }
    let mut text = format!("serving on {address}, {up} of {all} app servers up");
    let named = |is_drained: bool| {
        let out = (0..all).filter(|index| !fleet.is_up(*index) && fleet.is_drained(*index) == is_drained);
        out.map(|index| fleet.target(index).name.as_str()).collect::<Vec<_>>().join(", ")
    };
    for (state, names) in [("drained", named(true)), ("down", named(false))] {
        if !names.is_empty() {
            text += &format!(", {state}: {names}");
        }
    }
    (State::Healthy, text + &workers)
}
