//! What a gate says of itself, and its totals.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use link::Line;
use link::report::State;

use super::serve::Kind;
use super::targets::Says;
use super::{Gate, sockets};

const INTERVAL: Duration = Duration::from_secs(1);

/// While the primary is not reached.
const SOON: Duration = Duration::from_millis(200);

/// A total that only grows.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Totals since the start of this process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    read_write: Total,
    read_only: Total,
    pub(crate) refused: Total,
    pub(crate) held: Total,
    pub(crate) cut: Total,
    pub(crate) cancels: Total,
}

impl Counters {
    pub(crate) fn accepted(&self, kind: Kind) -> &Total {
        match kind {
            Kind::ReadWrite => &self.read_write,
            Kind::ReadOnly => &self.read_only,
        }
    }

    fn all(&self) -> BTreeMap<String, u64> {
        [
            ("read-write-connections", &self.read_write),
            ("read-only-connections", &self.read_only),
            ("connections-refused", &self.refused),
            ("connections-held", &self.held),
            ("connections-cut", &self.cut),
            ("cancel-requests", &self.cancels),
        ]
        .into_iter()
        .map(|(name, total)| (name.to_owned(), total.0.load(Ordering::Relaxed)))
        .collect()
    }
}

/// Reports for ever: when the targets change, and often enough for the rest.
pub(crate) async fn keep(gate: &Gate, line: &Line) {
    let mut targets = gate.targets.clone();
    loop {
        let state = look(gate).await;
        let (state, because) = sentence(gate, state);
        line.report(state, because);
        line.count(gate.counters.all());
        let pause = tokio::time::sleep(if state == State::Healthy { INTERVAL } else { SOON });
        tokio::select! {
            () = pause => {}
            Ok(()) = targets.changed() => {}
        }
    }
}

/// How the last connection to the primary went. While it went badly, or the primary says that it is not well,
/// or there was none yet, one is tried here, so that a change is noticed without a client; while all is well
/// the server is left in peace.
async fn look(gate: &Gate) -> Option<Result<(), String>> {
    let last = gate.reached().clone();
    let targets = gate.targets();
    if !targets.ready || (matches!(last, Some(Ok(()))) && targets.primary_says.is_none()) {
        return last;
    }
    let result = match (sockets::connect(&targets.primary.address, gate.from).await, &targets.primary_says) {
        (Err(error), _) => Err(error.to_string()),
        // It takes connections but would send a client away.
        (Ok(_), Some(Says { state: State::Starting, because })) => Err(because.clone()),
        (Ok(_), _) => Ok(()),
    };
    if last.is_none() && result.is_err() {
        return None;
    }
    *gate.reached() = Some(result.clone());
    Some(result)
}

fn sentence(gate: &Gate, reached: Option<Result<(), String>>) -> (State, String) {
    let targets = gate.targets();
    let primary = format!("{} on {}", targets.primary.name, targets.primary.address);
    match reached {
        Some(Ok(())) => (State::Healthy, targets.to_string()),
        Some(Err(why)) => {
            let wait = gate.limits.hold.as_secs();
            let text = format!("{primary} cannot be reached: {why}; new connections wait up to {wait} s");
            (State::Unhealthy, text)
        }
        None => (State::Starting, format!("waiting for {primary}")),
    }
}
