//! Control without Raft: the same records in the memory of one process, with the faults that a caller must
//! live with. For tests of managers, gates and decisions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::{Change, Control, ControlError, Outcome, Record, Records, Seen, Soon, take_in};

/// Clones share their records.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    records: Records,
    watched: BTreeMap<String, watch::Sender<Option<Seen>>>,
    fault: Fault,
    proposals: u64,
}

/// What goes wrong until it is set anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Nothing can be asked: [`ControlError::Unavailable`].
    Unavailable,
    /// Proposals are made, but their answers are lost: [`ControlError::Unknown`].
    AnswerLost,
    /// Proposals are lost, and nobody can tell: [`ControlError::Unknown`].
    ProposalLost,
}

impl Memory {
    pub fn set_fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Shared {
    fn propose(&mut self, key: &str, expected_version: u64, value: Value) -> Result<u64, ControlError> {
        let lost = |what: &str| Err(ControlError::Unknown(format!("the {what} was lost")));
        match self.fault {
            Fault::Unavailable => return Err(ControlError::Unavailable("as the test wants it".into())),
            Fault::ProposalLost => return lost("proposal"),
            Fault::None | Fault::AnswerLost => {}
        }
        self.proposals += 1;
        let change = Change { key: key.to_owned(), expected_version, value, proposal: self.proposals };
        let outcome = self.records.apply(change);
        if let (Some(seen), Some(record)) = (self.watched.get(key), self.records.get(key)) {
            take_in(seen, record.clone());
        }
        if self.fault == Fault::AnswerLost {
            return lost("answer");
        }
        match outcome {
            Outcome::Made { version } => Ok(version),
            Outcome::Changed { current } => Err(ControlError::Changed(current)),
            Outcome::Refused { because } => Err(ControlError::Refused(because)),
        }
    }

    fn read(&self, key: &str) -> Result<Option<Record>, ControlError> {
        match self.fault {
            Fault::Unavailable => Err(ControlError::Unavailable("as the test wants it".into())),
            Fault::None | Fault::AnswerLost | Fault::ProposalLost => Ok(self.records.get(key).cloned()),
        }
    }
}

impl Control for Memory {
    fn propose<'a>(
        &'a self,
        key: &'a str,
        expected_version: u64,
        value: Value,
        _within: Duration,
    ) -> Soon<'a, u64> {
        Box::pin(async move { self.lock().propose(key, expected_version, value) })
    }

    fn read<'a>(&'a self, key: &'a str, _within: Duration) -> Soon<'a, Option<Record>> {
        Box::pin(async move { self.lock().read(key) })
    }

    fn watch(&self, key: &str) -> watch::Receiver<Option<Seen>> {
        let mut shared = self.lock();
        let record = shared.records.get(key).cloned();
        let seen = shared.watched.entry(key.to_owned()).or_default();
        if let Some(record) = record {
            take_in(seen, record);
        }
        seen.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ABSENT;
    use serde_json::json;

    const WITHIN: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_watcher_sees_what_is_there_and_what_comes() {
        let control = Memory::default();
        assert_eq!(control.propose("a", ABSENT, json!(1), WITHIN).await, Ok(1));
        let mut seen = control.watch("a");
        assert_eq!(seen.borrow_and_update().as_ref().unwrap().record.version, 1);
        assert_eq!(control.clone().propose("a", 1, json!(2), WITHIN).await, Ok(2));
        seen.changed().await.unwrap();
        assert_eq!(seen.borrow().as_ref().unwrap().record.value, json!(2));
    }

    #[tokio::test]
    async fn a_lost_answer_is_not_a_lost_change() {
        let control = Memory::default();
        control.set_fault(Fault::AnswerLost);
        let unknown = control.propose("a", ABSENT, json!(1), WITHIN).await;
        assert!(matches!(unknown, Err(ControlError::Unknown(_))));
        assert_eq!(control.read("a", WITHIN).await.unwrap().unwrap().version, 1);
    }
}
