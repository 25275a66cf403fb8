//! The records themselves: the state machine that Raft replicates. No clock, no I/O, no randomness, so that
//! every control server comes to the same result.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ABSENT, Record};

/// The longest key in bytes.
pub const KEY_LIMIT: usize = 64;
/// The largest value in bytes of JSON.
pub const VALUE_LIMIT: usize = 64 * 1024;
pub const RECORDS_LIMIT: usize = 256;
/// All values together: a snapshot must fit in one frame.
pub const TOTAL_LIMIT: usize = 1024 * 1024;

/// One proposed change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub key: String,
    pub expected_version: u64,
    pub value: Value,
    /// A random number by which a proposer knows its own change again: a proposal whose answer was lost can be
    /// sent again, to any control server, and is made once.
    pub proposal: u64,
}

impl Change {
    /// Why it can never be made, if so. Asked before it is written to any log.
    pub fn is_too_large(&self) -> Option<String> {
        let (key, value) = (self.key.len(), self.value.to_string().len());
        if key > KEY_LIMIT || key == 0 {
            Some(format!("a key of {key} bytes; 1 to {KEY_LIMIT} are allowed"))
        } else if value > VALUE_LIMIT {
            Some(format!("a value of {value} bytes is over the limit of {VALUE_LIMIT}"))
        } else {
            None
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a change of {} from version {}", self.key, self.expected_version)
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Made { version: u64 },
    Changed { current: Option<Record> },
    Refused { because: String },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Records(BTreeMap<String, Held>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Held {
    record: Record,
    /// The proposal that made this version.
    proposal: u64,
    /// The size of the value as JSON.
    bytes: usize,
}

impl Records {
    pub fn get(&self, key: &str) -> Option<&Record> {
        self.0.get(key).map(|held| &held.record)
    }

    /// Every key with its record.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.0.iter().map(|(key, held)| (key.as_str(), &held.record))
    }

    /// Lifts every version, so that each is later than any that was seen before.
    pub fn lift(&mut self, by: u64) {
        self.0.values_mut().for_each(|held| held.record.version += by);
    }

    pub fn apply(&mut self, change: Change) -> Outcome {
        let held = self.0.get(&change.key);
        let version = held.map_or(ABSENT, |held| held.record.version);
        let again = held.is_some_and(|held| held.proposal == change.proposal);
        if again && version == change.expected_version + 1 {
            return Outcome::Made { version };
        }
        if version != change.expected_version {
            return Outcome::Changed { current: held.map(|held| held.record.clone()) };
        }
        let bytes = change.value.to_string().len();
        if let Some(because) = change.is_too_large().or_else(|| self.no_room(&change.key, bytes)) {
            return Outcome::Refused { because };
        }
        let record = Record { version: version + 1, value: change.value };
        self.0.insert(change.key, Held { record, proposal: change.proposal, bytes });
        Outcome::Made { version: version + 1 }
    }

    fn no_room(&self, key: &str, bytes: usize) -> Option<String> {
        let others = self.0.iter().filter(|(other, _)| *other != key);
        let (count, total) = others.fold((0, 0), |(count, total), (_, held)| (count + 1, total + held.bytes));
        if count >= RECORDS_LIMIT {
            Some(format!("there are {count} records already, and no more are allowed"))
        } else if total + bytes > TOTAL_LIMIT {
            Some(format!("all records together would be over the limit of {TOTAL_LIMIT} bytes"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(key: &str, expected_version: u64, value: Value, proposal: u64) -> Change {
        Change { key: key.into(), expected_version, value, proposal }
    }

    #[test]
    fn a_change_for_an_older_version_comes_back_with_the_newer_record() {
        let mut records = Records::default();
        assert_eq!(records.apply(change("a", ABSENT, json!(1), 7)), Outcome::Made { version: 1 });
        let current = Some(Record { version: 1, value: json!(1) });
        assert_eq!(records.apply(change("a", ABSENT, json!(2), 8)), Outcome::Changed { current });
        assert_eq!(records.apply(change("b", 3, json!(2), 8)), Outcome::Changed { current: None });
    }

    #[test]
    fn a_proposal_that_is_sent_again_is_made_once() {
        let mut records = Records::default();
        let first = change("a", ABSENT, json!(1), 7);
        assert_eq!(records.apply(first.clone()), Outcome::Made { version: 1 });
        assert_eq!(records.apply(first.clone()), Outcome::Made { version: 1 });
        records.apply(change("a", 1, json!(2), 8));
        assert!(matches!(records.apply(first), Outcome::Changed { .. }));
        assert_eq!(records.get("a").unwrap().version, 2);
    }

    #[test]
    fn what_is_too_large_is_refused_and_changes_nothing() {
        let mut records = Records::default();
        let refused = |outcome| matches!(outcome, Outcome::Refused { .. });
        let large = json!("x".repeat(VALUE_LIMIT));
        assert!(refused(records.apply(change("a", ABSENT, large, 1))));
        assert!(refused(records.apply(change(&"k".repeat(KEY_LIMIT + 1), ABSENT, json!(1), 1))));
        assert!(refused(records.apply(change("", ABSENT, json!(1), 1))));
        let most = json!("x".repeat(VALUE_LIMIT - 2));
        for index in 0..TOTAL_LIMIT / VALUE_LIMIT {
            let outcome = records.apply(change(&format!("k{index}"), ABSENT, most.clone(), 1));
            assert_eq!(outcome, Outcome::Made { version: 1 });
        }
        assert!(refused(records.apply(change("one-more", ABSENT, json!(1), 1))));
        assert_eq!(records.apply(change("k0", 1, json!(1), 2)), Outcome::Made { version: 2 });
    }
}
