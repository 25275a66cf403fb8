//! What a gate says of itself, and its totals.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use link::Line;
use link::report::State;
use tokio::time::Instant;

use super::serve::Kind;
use super::targets::Says;
use super::{Gate, sockets};

const INTERVAL: Duration = Duration::from_secs(1);

/// While the primary is not reached.
const SOON: Duration = Duration::from_millis(200);

/// How long a sentence with numbers stands at least.
const RESTATE: Duration = Duration::from_secs(5);

/// A total that only grows.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
    pub(crate) moved: Total,
    pub(crate) cancels: Total,
    pub(crate) unconfirmed: Total,
}

impl Counters {
    pub(crate) fn accepted(&self, kind: Kind) -> &Total {
        match kind {
            Kind::ReadWrite => &self.read_write,
            Kind::ReadOnly => &self.read_only,
        }
    }

    /// `waiting`: how many connections are held now, which is no total.
    fn all(&self, waiting: usize) -> BTreeMap<String, u64> {
        let totals = [
            ("read-write-connections", &self.read_write),
            ("read-only-connections", &self.read_only),
            ("connections-refused", &self.refused),
            ("connections-held", &self.held),
            ("connections-cut", &self.cut),
            ("connections-moved", &self.moved),
            ("cancel-requests", &self.cancels),
            ("commits-unconfirmed", &self.unconfirmed),
        ];
        let totals = totals.into_iter().map(|(name, total)| (name, total.get()));
        let all = totals.chain([("connections-waiting", waiting as u64)]);
        all.map(|(name, number)| (name.to_owned(), number)).collect()
    }
}

/// Reports for ever: when the targets change, and often enough for the rest.
pub(crate) async fn keep(gate: &Gate, line: &Line) {
    // Whoever comes before there is a primary is held, not refused.
    line.take_connections();
    let mut targets = gate.targets.clone();
    let mut away = Away::default();
    loop {
        targets.borrow_and_update();
        let state = match look(gate).await {
            Ok(()) => {
                away = Away { was_there: true, ..Away::default() };
                line.report(State::Healthy, gate.targets().to_string());
                State::Healthy
            }
            Err(why) => {
                let state = if away.was_there { State::Unhealthy } else { State::Starting };
                line.report(state, away.sentence(&why, gate.waiting(), Instant::now()));
                state
            }
        };
        line.count(gate.counters.all(gate.waiting()));
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
async fn look(gate: &Gate) -> Result<(), String> {
    let targets = gate.targets();
    let primary = targets.primary.as_ref().map_err(String::clone)?;
    if targets.primary_says.is_none() && matches!(*gate.reached(), Some(Ok(()))) {
        return Ok(());
    }
    let result = match (sockets::connect(&primary.target.address, gate.from).await, &targets.primary_says) {
        (Err(error), _) => Err(format!("{primary} cannot be reached: {error}")),
        // It takes connections but would send a client away.
        (Ok(_), Some(Says { state: State::Starting, because })) => {
            Err(format!("{primary} is starting: {because}"))
        }
        (Ok(_), _) => Ok(()),
    };
    *gate.reached() = Some(result.clone());
    result
}

/// What is said while no primary is reached. Numbers grow all the time, and each new sentence is logged, so they
/// are said anew at growing intervals.
#[derive(Default)]
struct Away {
    /// Whether there ever was a primary.
    was_there: bool,
    since: Option<Instant>,
    said: Option<Said>,
}

struct Said {
    why: String,
    sentence: String,
    /// When it is to be said with new numbers.
    until: Instant,
}

impl Away {
    fn sentence(&mut self, why: &str, waiting: usize, now: Instant) -> String {
        let elapsed = now.duration_since(*self.since.get_or_insert(now));
        if let Some(said) = self.said.as_ref().filter(|said| said.why == why && now < said.until) {
            return said.sentence.clone();
        }
        let held = match waiting {
            0 => "new connections".to_owned(),
            1 => "1 connection".to_owned(),
            more => format!("{more} connections"),
        };
        let long = if elapsed < RESTATE {
            String::new()
        } else {
            format!(", no primary for {} s", elapsed.as_secs())
        };
        let sentence = format!("holding {held}{long}: {why}");
        let until = now + elapsed.max(RESTATE);
        self.said = Some(Said { why: why.to_owned(), sentence: sentence.clone(), until });
        sentence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_anew_at_growing_intervals() {
        let begun = Instant::now();
        let mut away = Away::default();
        let mut check = |seconds: u64, why: &str, waiting: usize, expect: &str| {
            assert_eq!(away.sentence(why, waiting, begun + Duration::from_secs(seconds)), expect);
        };
        check(0, "it starts", 0, "holding new connections: it starts");
        check(1, "it starts", 3, "holding new connections: it starts");
        check(2, "it is away", 1, "holding 1 connection: it is away");
        check(7, "it is away", 3, "holding 3 connections, no primary for 7 s: it is away");
        check(13, "it is away", 4, "holding 3 connections, no primary for 7 s: it is away");
        check(14, "it is away", 4, "holding 4 connections, no primary for 14 s: it is away");
    }
}
