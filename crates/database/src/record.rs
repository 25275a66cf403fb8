//! The record of the group as this process knows it, how long it has known it, and proposals for its next version.
//!
//! It never goes back: the newest of what the first read, the watch and our own proposals have shown counts.
//! Ages are counted here from the moment something was first seen, never from a time that another server wrote.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use link::control::{ABSENT, Control, ControlError, Seen, since_boot};
use tokio::sync::watch;

use crate::failover::Record;
use crate::group::{Command, Group, KEY, Refusal};

/// How long the first read, and a proposal of the manager, may take.
const WITHIN: Duration = Duration::from_secs(1);

/// How many changes of the holder are remembered for the rule about crash loops.
const FAILOVERS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the record cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
    #[error("the record was not read yet")]
    Unread,
}

/// See the head of this file.
pub(crate) struct View {
    control: Arc<dyn Control>,
    watched: watch::Receiver<Option<Seen>>,
    known: Option<Known>,
    /// Why nothing is known, while the first read has not succeeded.
    unread: Option<String>,
    failovers: VecDeque<Duration>,
    in_touch: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) version: u64,
    pub(crate) group: Arc<Group>,
    version_at: Duration,
    seq_at: Duration,
    epoch_at: Duration,
}

impl View {
    /// On the runtime that it is used on.
    pub(crate) fn new(control: Arc<dyn Control>) -> Self {
        let watched = control.watch(KEY);
        let unread = Some("control was not asked yet".into());
        Self { control, watched, known: None, unread, failovers: VecDeque::new(), in_touch: false }
    }

    /// Takes in what the watch has brought; the first time it reads instead, which sees everything that was
    /// acknowledged before this process began.
    pub(crate) async fn refresh(&mut self) {
        if self.unread.is_some() {
            match self.control.read(KEY, WITHIN).await {
                Ok(record) => {
                    (self.unread, self.in_touch) = (None, true);
                    if let Some(record) = record {
                        self.take_in(record, since_boot());
                    }
                }
                Err(error) => (self.unread, self.in_touch) = (Some(error.to_string()), false),
            }
        }
        // What the watch brought before may be older than what control had acknowledged when this process began.
        let seen = self.watched.borrow_and_update().clone();
        if self.unread.is_none()
            && let Some(seen) = seen
        {
            self.take_in(seen.record, seen.at);
        }
    }

    fn take_in(&mut self, record: link::control::Record, at: Duration) {
        if self.known.as_ref().is_some_and(|known| known.version >= record.version) {
            return;
        }
        match serde_json::from_value(record.value) {
            Ok(group) => self.put(record.version, group, at),
            Err(error) => {
                tracing::error!("the record of the database cannot be understood: {error}");
                if self.known.is_none() {
                    self.unread = Some(format!("the record cannot be understood: {error}"));
                }
            }
        }
    }

    fn put(&mut self, version: u64, group: Group, at: Duration) {
        let before = self.known.take();
        let since = |same: bool, then: Option<Duration>| then.filter(|_| same).unwrap_or(at);
        let old = before.as_ref();
        let same_epoch = old.is_some_and(|old| old.group.epoch == group.epoch);
        let same_seq = same_epoch && old.is_some_and(|old| old.group.seq == group.seq);
        if old.is_some_and(|old| old.group.holder != group.holder) {
            self.failovers.push_front(at);
            self.failovers.truncate(FAILOVERS);
        }
        let seq_at = since(same_seq, old.map(|old| old.seq_at));
        let epoch_at = since(same_epoch, old.map(|old| old.epoch_at));
        let group = Arc::new(group);
        self.known = Some(Known { version, group, version_at: at, seq_at, epoch_at });
    }

    /// For a decision.
    pub(crate) fn record(&self) -> Record {
        let now = since_boot();
        match (&self.known, &self.unread) {
            (Some(known), _) => Record::Known {
                version: known.version,
                group: Arc::clone(&known.group),
                version_age: now.saturating_sub(known.version_at),
                silence: now.saturating_sub(known.seq_at),
                epoch_age: now.saturating_sub(known.epoch_at),
            },
            (None, Some(why)) => Record::Unread(why.clone()),
            (None, None) => Record::Absent,
        }
    }

    /// Whether the last exchange with control went well.
    pub(crate) fn in_touch(&self) -> bool {
        self.in_touch
    }

    pub(crate) fn group(&self) -> Option<&Group> {
        self.known.as_ref().map(|known| &*known.group)
    }

    /// How long this process has not seen the holder say anything.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.known.as_ref().map(|known| since_boot().saturating_sub(known.seq_at))
    }

    pub(crate) fn failovers(&self) -> Vec<Duration> {
        let now = since_boot();
        self.failovers.iter().map(|at| now.saturating_sub(*at)).collect()
    }

    /// Waits for a version that this view has not got.
    pub(crate) async fn changed(&mut self) {
        if self.watched.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Applies the command to the version that is known and proposes the result for exactly that version.
    pub(crate) async fn propose(&mut self, command: &Command) -> Result<(), ProposeError> {
        self.propose_within(command, WITHIN).await
    }

    pub(crate) async fn propose_within(
        &mut self,
        command: &Command,
        within: Duration,
    ) -> Result<(), ProposeError> {
        let known = self.known.as_ref().ok_or(ProposeError::Unread)?;
        if known.group.is_in_doubt(known.version) && !matches!(command, Command::BeginAnew { .. }) {
            return Err(Refusal::InDoubt.into());
        }
        let next = known.group.apply(command)?;
        self.write(known.version, next, within).await
    }

    /// The first record of the site.
    pub(crate) async fn create(&mut self, group: Group) -> Result<(), ProposeError> {
        self.write(ABSENT, group, WITHIN).await
    }

    async fn write(&mut self, version: u64, group: Group, within: Duration) -> Result<(), ProposeError> {
        let value = serde_json::to_value(&group)?;
        match self.control.propose(KEY, version, value, within).await {
            Ok(version) => {
                self.in_touch = true;
                self.put(version, group, since_boot());
                Ok(())
            }
            Err(error) => {
                self.in_touch = matches!(error, ControlError::Changed(_) | ControlError::Refused(_));
                if let ControlError::Changed(Some(newer)) = &error {
                    self.take_in(newer.clone(), since_boot());
                }
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use link::control::{Fault, Memory};

    use super::*;
    use crate::group::{Mode, Phase};

    #[tokio::test]
    async fn a_view_that_lost_a_race_knows_the_winner() {
        let control: Arc<dyn Control> = Arc::new(Memory::default());
        let (mut one, mut two) = (View::new(Arc::clone(&control)), View::new(control));
        one.refresh().await;
        assert!(matches!(one.record(), Record::Absent));
        let new = Group::create("database-1", "boot", Some(7), Mode::Synchronous);
        one.create(Group { epoch: 1, state: Phase::Open, ..new }).await.unwrap();
        two.refresh().await;
        let renew = Command::Renew { epoch: 1, boot: "boot".into(), written: None };
        one.propose(&renew).await.unwrap();
        assert!(matches!(two.propose(&renew).await, Err(ProposeError::Control(ControlError::Changed(_)))));
        assert_eq!(two.group().unwrap().seq, 1);
        two.propose(&renew).await.unwrap();
        let stranger = Command::Renew { epoch: 1, boot: "other".into(), written: None };
        assert!(matches!(two.propose(&stranger).await, Err(ProposeError::Refused(_))));
    }

    #[tokio::test]
    async fn nothing_is_known_before_the_first_read_whatever_the_watch_has_brought() {
        let memory = Memory::default();
        let mut first = View::new(Arc::new(memory.clone()));
        first.refresh().await;
        first.create(Group::create("database-1", "boot", Some(7), Mode::Synchronous)).await.unwrap();
        let mut second = View::new(Arc::new(memory.clone()));
        memory.set_fault(Fault::Unavailable);
        second.refresh().await;
        assert!(matches!(second.record(), Record::Unread(_)));
        memory.set_fault(Fault::None);
        second.refresh().await;
        assert!(matches!(second.record(), Record::Known { version: 1, .. }));
    }
}
