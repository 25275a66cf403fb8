//! Whether a successor takes over, decided.
//!
//! A pure function: what the one that serves and the one that would take its place last said go in, the verdict and
//! its sentence come out. `servant/successor.rs` carries it out.

use link::report::{Report, State};
use plan::Role;

/// How long a successor may take until it can serve.
const WITHIN_MS: u64 = 30_000;

/// The same for an app server, beyond the time that one of its workers has.
const BEYOND_WORKER_MS: u64 = 5_000;

/// What is known of the process that would take over.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// It has not said how it is.
    Silent,
    Said(&'a Report),
    /// It is gone; the words say how: `exited with status 1`.
    Ended(&'a str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wait,
    TakeOver,
    /// The one that serves goes on; the sentence says why.
    GiveUp(String),
}

/// How long a successor of this role may take.
pub fn within_ms(role: Role, plan: &plan::Plan) -> u64 {
    let worker_ms =
        plan.app.as_ref().filter(|_| role == Role::App).map(|app| app.start_ms + BEYOND_WORKER_MS);
    worker_ms.unwrap_or_default().max(WITHIN_MS)
}

/// `serving`: the last word of the one that serves. A successor is to be as well as that one, no better: an upgrade
/// may be what a site that is not well needs.
pub fn judge(role: Role, serving: State, seen: Seen<'_>, waited_ms: u64, within_ms: u64) -> Verdict {
    let report = match seen {
        Seen::Ended(how) => return Verdict::GiveUp(format!("the process that was to take over {how}")),
        Seen::Said(report) => Some(report),
        Seen::Silent => None,
    };
    // An app server's first worker is ready; the others take the places of the old ones, one after another.
    let has_begun = |report: &Report| role == Role::App && report.takes_connections;
    if report.is_some_and(|report| {
        report.state == State::Healthy
            || report.state == serving && serving == State::Unhealthy
            || has_begun(report)
    }) {
        return Verdict::TakeOver;
    }
    if waited_ms < within_ms {
        return Verdict::Wait;
    }
    let what =
        report.map_or("said nothing".to_owned(), |report| format!("is {}: {}", report.state, report.because));
    Verdict::GiveUp(format!(
        "the process that was to take over cannot after {} s; it {what}",
        within_ms / 1000
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Healthy, Starting, Unhealthy};

    fn said(state: State, takes_connections: bool) -> Report {
        Report { state, because: "so".into(), database: None, takes_connections }
    }

    #[test]
    fn the_table() {
        let (wait, over) = (Verdict::Wait, Verdict::TakeOver);
        for (role, serving, said, waited_ms, expect) in [
            (Role::Web, Healthy, said(Starting, false), 0, wait.clone()),
            (Role::Web, Healthy, said(Healthy, false), 0, over.clone()),
            // It may become healthy yet.
            (Role::Balancer, Healthy, said(Unhealthy, false), 0, wait.clone()),
            (Role::Balancer, Unhealthy, said(Unhealthy, false), 0, over.clone()),
            (Role::Balancer, Unhealthy, said(Healthy, false), 0, over.clone()),
            (Role::Balancer, Starting, said(Starting, false), 0, wait.clone()),
            // A gate takes connections before it leads them anywhere.
            (Role::Gate, Healthy, said(Starting, true), 0, wait.clone()),
            (Role::App, Healthy, said(Starting, false), 0, wait),
            (Role::App, Healthy, said(Starting, true), 0, over.clone()),
            // Also at the last moment.
            (Role::Web, Healthy, said(Healthy, false), 30_000, over),
        ] {
            let verdict = judge(role, serving, Seen::Said(&said), waited_ms, 30_000);
            assert_eq!(verdict, expect, "{role} {serving} {said:?}");
        }
        let ended = judge(Role::Web, Healthy, Seen::Ended("exited with status 1"), 0, 30_000);
        assert_eq!(ended, Verdict::GiveUp("the process that was to take over exited with status 1".into()));
        let slow = judge(Role::Web, Healthy, Seen::Said(&said(Starting, false)), 30_000, 30_000);
        let Verdict::GiveUp(because) = slow else { panic!("{slow:?}") };
        assert_eq!(because, "the process that was to take over cannot after 30 s; it is starting: so");
        assert!(matches!(judge(Role::Web, Healthy, Seen::Silent, 30_000, 30_000), Verdict::GiveUp(_)));
    }
}
