//! What was counted of one server, or of one pool of servers: requests, answers, failures by cause, bytes, times.
//!
//! Each thread writes only its own row, so counting costs ordinary stores and no lock; readers add the rows up.
//! A meter outlives the fleet it was made for: who replaces a fleet hands the meters of the servers that stay on.

use std::sync::Arc;
use std::time::Duration;

use crate::counters::Count;
use crate::histogram::{Histogram, Times};
use crate::outcome::{Cause, Outcome};

/// See the head of this file.
#[derive(Debug)]
pub struct Meter {
    name: String,
    /// For a server: its pool.
    pool: Option<Arc<Meter>>,
    rows: Vec<Row>,
}

/// The counts of one thread. Aligned, so that two threads never write to the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    requests: Count,
    retries: Count,
    answers: [Count; 6],
    causes: [Count; Cause::ALL.len()],
    bytes_in: Count,
    bytes_out: Count,
    times: Histogram,
}

/// What all threads counted since the meter was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// Of a server: how often it was asked. Of a pool: how many clients' requests it had.
    pub requests: u64,
    /// Of these, how often another server had been asked before. Of a pool: how many second tries there were.
    pub retries: u64,
    /// By the first digit of the status, 1 to 5; of a pool as the clients saw them.
    pub answers: [u64; 6],
    /// Those that are not zero.
    pub causes: Vec<(Cause, u64)>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Of a server: until the first byte of its answer. Of a pool: until the answer was complete, waits included.
    pub times: Times,
}

impl Meter {
    /// A pool's, for an engine of so many threads.
    pub fn of_pool(name: &str, threads: usize) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), pool: None, rows: rows(threads) })
    }

    /// A server's, of the same engine as the pool's.
    pub fn of_server(name: &str, pool: &Arc<Meter>) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), pool: Some(Arc::clone(pool)), rows: rows(pool.rows.len()) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pool(&self) -> Option<&Arc<Meter>> {
        self.pool.as_ref()
    }

    pub fn read(&self) -> Metered {
        let sum = |pick: &dyn Fn(&Row) -> &Count| self.rows.iter().map(|row| pick(row).get()).sum();
        let causes =
            Cause::ALL.into_iter().map(|(cause, _)| (cause, sum(&|row| &row.causes[cause as usize])));
        Metered {
            requests: sum(&|row| &row.requests),
            retries: sum(&|row| &row.retries),
            answers: std::array::from_fn(|class| sum(&|row| &row.answers[class])),
            causes: causes.filter(|(_, count)| *count > 0).collect(),
            bytes_in: sum(&|row| &row.bytes_in),
            bytes_out: sum(&|row| &row.bytes_out),
            times: Times::of(self.rows.iter().map(|row| &row.times)),
        }
    }

    /// This server is asked.
    pub(crate) fn asked(&self, thread: usize, again: bool) {
        let Some(row) = self.rows.get(thread) else { return };
        row.requests.add(1);
        row.retries.add(u64::from(again));
    }

    /// This server began to answer.
    pub(crate) fn answered(&self, thread: usize, status: u16, took: Option<Duration>) {
        let Some(row) = self.rows.get(thread) else { return };
        row.answers[class(status)].add(1);
        if let Some(took) = took {
            row.times.record(took);
        }
    }

    pub(crate) fn moved(&self, thread: usize, bytes_in: u64, bytes_out: u64) {
        let Some(row) = self.rows.get(thread) else { return };
        row.bytes_in.add(bytes_in);
        row.bytes_out.add(bytes_out);
    }

    pub(crate) fn failed(&self, thread: usize, cause: Cause) {
        let Some(row) = self.rows.get(thread) else { return };
        row.causes[cause as usize].add(1);
    }

    /// A request of this pool is over.
    pub(crate) fn ended(&self, thread: usize, outcome: &Outcome) {
        let Some(row) = self.rows.get(thread) else { return };
        row.requests.add(1);
        row.retries.add(u64::from(outcome.tries.saturating_sub(1)));
        row.answers[class(outcome.status)].add(1);
        if let Some(cause) = outcome.cause {
            row.causes[cause as usize].add(1);
        }
        row.bytes_in.add(outcome.bytes_in);
        row.bytes_out.add(outcome.bytes_out);
        row.times.record(outcome.total);
    }
}

fn rows(threads: usize) -> Vec<Row> {
    (0..threads).map(|_| Row::default()).collect()
}

/// 0 for an exchange without an answer.
fn class(status: u16) -> usize {
    usize::from(status / 100).min(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_all_threads_are_read_as_one() {
        let pool = Meter::of_pool("shop", 2);
        let server = Meter::of_server("web-1", &pool);
        server.asked(0, false);
        server.asked(1, true);
        server.answered(1, 204, Some(Duration::from_micros(5)));
        server.failed(0, Cause::ConnectFailed);
        server.moved(1, 10, 20);
        // A thread that the meter was not made for is not counted, and harms nobody.
        server.asked(2, false);
        let read = server.read();
        assert_eq!((read.requests, read.retries, read.answers), (2, 1, [0, 0, 1, 0, 0, 0]));
        assert_eq!(read.causes, [(Cause::ConnectFailed, 1)]);
        assert_eq!((read.bytes_in, read.bytes_out, read.times.buckets), (10, 20, vec![(5, 1)]));
        assert_eq!(pool.read(), Metered::default());
    }
}
