//! Which replicas still speak. One that is frozen or cut off stays connected for as long as TCP believes in it, so
//! a primary notes when each last said something new.
//!
//! What a replica says bears the time of its own clock, which may be any: only that it changed counts, and when that was
//! seen here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::failover::synchrony::REPLY_LIMIT;
use crate::session::Session;

/// How often a primary at rest looks for a replica that has come, gone or fallen silent.
const LOOK: Duration = Duration::from_millis(200);

const REPLIES: &str = "SELECT application_name, concat(pid, ' ', reply_time) FROM pg_stat_replication \
    WHERE state = 'streaming'";

/// The last word of each replica, and when it was new. One entry for each server of the plan.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<BTreeMap<String, (String, Instant)>>);

impl Heard {
    /// Takes the last word of a replica in, and says whether it still speaks.
    pub(crate) fn note(&self, name: String, word: String) -> bool {
        self.note_at(name, word, Instant::now())
    }

    fn note_at(&self, name: String, word: String, now: Instant) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, at) = heard.entry(name).or_insert_with(|| (word.clone(), now));
        if *last != word {
            (*last, *at) = (word, now);
        }
        now.saturating_duration_since(*at) < REPLY_LIMIT
    }

    /// Returns when it is not the same replicas any more that stream and speak. A failure is left to the next look.
    pub(crate) async fn changes(&self, session: &Session) {
        let mut before = None;
        while let Ok(rows) = session.ask(session.client.query(REPLIES, &[])).await {
            let speaks = |row: &tokio_postgres::Row| self.note(row.get(0), row.get(1)).then(|| row.get(0));
            let now: BTreeSet<String> = rows.iter().filter_map(speaks).collect();
            if before.get_or_insert_with(|| now.clone()) != &now {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_new_is_silent_and_who_comes_again_speaks() {
        let (heard, begin) = (Heard::default(), Instant::now());
        let note = |word: &str, after_ms| {
            heard.note_at("database-2".into(), word.into(), begin + Duration::from_millis(after_ms))
        };
        assert!(note("7 12:00:00", 0));
        assert!(note("7 12:00:00", 1499));
        assert!(!note("7 12:00:00", 1500));
        // A clock that was set back says something new as well.
        assert!(note("7 11:00:00", 1600));
        assert!(!note("7 11:00:00", 3100));
        assert!(note("8 11:00:00", 3200), "another connection");
    }
}
