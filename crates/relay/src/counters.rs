//! What was counted, for `status` and the monitor. Each thread writes only its own line of memory, so counting
//! costs an ordinary store; readers add the threads up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::Cause;

/// The counts of all threads of one server.
#[derive(Clone, Debug)]
pub(crate) struct Counters(Arc<Vec<Counts>>);

/// The counts of one thread. Aligned, so that two threads never write to the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counts {
    pub(crate) connections: Count,
    pub(crate) open: Count,
    pub(crate) requests: Count,
    /// Requests that were refused before the handler saw them.
    pub(crate) refused: Count,
    /// Answers by the first digit of their status, 1 to 5.
    pub(crate) answers: [Count; 6],
    pub(crate) bytes_in: Count,
    pub(crate) bytes_out: Count,
    /// Connections made to targets, and requests sent on one that was there already.
    pub(crate) connected: Count,
    pub(crate) reused: Count,
    pub(crate) connect_failures: Count,
    /// Requests that were sent to a second target.
    pub(crate) retries: Count,
    /// Exchanges that ended before their time or were answered by us, by why.
    pub(crate) causes: [Count; Cause::ALL.len()],
}

/// A number that one thread writes and any may read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, count: u64) {
        // Not fetch_add: there is one writer, and a locked instruction costs more than the rest.
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, count: u64) {
        self.0.store(self.get().saturating_sub(count), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn new(threads: usize) -> Self {
        Self(Arc::new((0..threads).map(|_| Counts::default()).collect()))
    }

    pub(crate) fn thread(&self, index: usize) -> &Counts {
        &self.0[index]
    }

    /// Connections of clients that are open.
    pub(crate) fn open(&self) -> u64 {
        self.0.iter().map(|counts| counts.open.get()).sum()
    }

    /// Totals by name, as they are published.
    pub(crate) fn totals(&self) -> BTreeMap<String, u64> {
        let sum = |pick: &dyn Fn(&Counts) -> &Count| self.0.iter().map(|counts| pick(counts).get()).sum();
        let mut totals: BTreeMap<String, u64> = BTreeMap::new();
        let mut put = |name: &str, pick: &dyn Fn(&Counts) -> &Count| {
            totals.insert(name.to_owned(), sum(pick));
        };
        put("connections", &|counts| &counts.connections);
        put("connections_open", &|counts| &counts.open);
        put("requests", &|counts| &counts.requests);
        put("requests_refused", &|counts| &counts.refused);
        put("bytes_in", &|counts| &counts.bytes_in);
        put("bytes_out", &|counts| &counts.bytes_out);
        put("target_connections", &|counts| &counts.connected);
        put("target_reuses", &|counts| &counts.reused);
        put("target_connect_failures", &|counts| &counts.connect_failures);
        put("retries", &|counts| &counts.retries);
        for class in 1..=5 {
            put(&format!("answers_{class}xx"), &|counts| &counts.answers[class]);
        }
        for (cause, name) in Cause::ALL {
            put(&format!("ended_{}", name.replace('-', "_")), &|counts| &counts.causes[cause as usize]);
        }
        totals
    }
}
