//! Which replicas still speak. One that is frozen or cut off stays connected for as long as TCP believes in it, so
//! a primary notes when each last said something new.
//!
//! What a replica says bears the time of its own clock, which may be any: only that it changed counts, and when that was
//! seen here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::failover::synchrony::REPLY_LIMIT;
use crate::session::Session;

/// How often a primary at rest looks for a replica that has come, gone or fallen silent.
const LOOK: Duration = Duration::from_millis(200);

const REPLIES: &str = "SELECT application_name, pid, coalesce(reply_time::text, '') FROM pg_stat_replication \
    WHERE state = 'streaming'";

/// Of one connection of a replica; one that is cut off may have a dead one and a new one for a while.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Of the process that serves it.
    pub(crate) pid: i32,
}

/// The last word on each line, and when it was new.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Whose words count. Whoever may connect can call itself anything.
    names: BTreeSet<String>,
    /// No line but of these names, and each only while it is connected.
    words: Mutex<BTreeMap<Line, (String, Instant)>>,
}

impl Heard {
    /// By a primary with these replicas.
    pub(crate) fn of(names: impl IntoIterator<Item = String>) -> Arc<Self> {
        Arc::new(Self { names: names.into_iter().collect(), words: Mutex::default() })
    }

    /// Takes in what stands on all lines now, and returns those on which a replica still speaks.
    pub(crate) fn note(&self, lines: impl IntoIterator<Item = (Line, String)>) -> BTreeSet<Line> {
        self.note_at(lines, Instant::now())
    }

    fn note_at(&self, lines: impl IntoIterator<Item = (Line, String)>, now: Instant) -> BTreeSet<Line> {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lines.into_iter().filter(|(line, _)| self.names.contains(&line.name));
        let seen = known.map(|(line, word)| {
            let before = words.get(&line).filter(|(last, _)| *last == word);
            let at = before.map_or(now, |(_, at)| *at);
            (line, (word, at))
        });
        *words = seen.collect();
        let speak =
            |(_, (_, at)): &(&Line, &(String, Instant))| now.saturating_duration_since(*at) < REPLY_LIMIT;
        words.iter().filter(speak).map(|(line, _)| line.clone()).collect()
    }

    /// Returns when it is not the same replicas any more that stream and speak. A failure is left to the next look.
    pub(crate) async fn changes(&self, session: &Session) {
        let mut before = None;
        while let Ok(rows) = session.ask(session.client.query(REPLIES, &[])).await {
            let line = |row: &tokio_postgres::Row| (Line { name: row.get(0), pid: row.get(1) }, row.get(2));
            let now = self.note(rows.iter().map(line));
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
        let (heard, begin) = (Heard::of(["database-2".into()]), Instant::now());
        let note = |lines: &[(&str, i32, &str)], after_ms| {
            let lines = lines
                .iter()
                .map(|(name, pid, word)| (Line { name: (*name).into(), pid: *pid }, (*word).to_owned()));
            let speak = heard.note_at(lines, begin + Duration::from_millis(after_ms));
            speak.into_iter().map(|line| line.pid).collect::<Vec<_>>()
        };
        let one = |word| ("database-2", 7, word);
        assert_eq!(note(&[one("12:00:00")], 0), [7]);
        assert_eq!(note(&[one("12:00:00")], 1499), [7]);
        assert!(note(&[one("12:00:00")], 1500).is_empty());
        // A clock that was set back says something new as well.
        assert_eq!(note(&[one("11:00:00")], 1600), [7]);
        assert_eq!(
            note(&[one("11:00:00"), ("database-2", 8, "11:00:00")], 3100),
            [8],
            "a connection beside it"
        );
        assert_eq!(note(&[one("11:00:00"), ("database-2", 8, "11:00:00")], 3200), [8], "each is heard alone");
        assert!(note(&[("stranger", 9, "11:00:00")], 3300).is_empty());
        assert!(heard.words.lock().unwrap().is_empty(), "who is gone or unknown is forgotten");
    }
}
