//! The records as Raft applies them, in memory, with a snapshot on disk.
//!
//! A snapshot is replaced as a whole, and the log is purged only up to one that is on disk. After a restart the
//! records are those of the snapshot until the log after it was applied again; so they are shown to nobody
//! before this server is in contact with a leader.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Stream, StreamExt};
use link::control::{Outcome, Record, Records};
use link::disk::{self, Access};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::types::{Entry, LogId, Membership, Snapshot, SnapshotMeta, Types};

/// Clones share their state.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    file: PathBuf,
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

/// What was applied, in memory and in the snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    last: Option<LogId>,
    membership: Membership,
    records: Records,
}

impl State {
    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

impl Machine {
    pub(crate) fn open(file: &Path) -> io::Result<Self> {
        let state: State = disk::read_json(file)?.unwrap_or_default();
        let (changes, _) = watch::channel(0);
        Ok(Self { file: file.to_owned(), state: Arc::new(Mutex::new(state)), changes })
    }

    pub(crate) fn get(&self, key: &str) -> Option<Record> {
        self.state().records.get(key).cloned()
    }

    /// All that was applied.
    pub(crate) fn whole(&self) -> State {
        self.state().clone()
    }

    /// Changes when anything was applied.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn write(&self, state: State) -> io::Result<()> {
        let file = self.file.clone();
        let write = move || disk::replace_json(&file, &state, Access::Owner);
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

impl State {
    /// Takes an entry in that was not applied yet, whether or not it was ever agreed on.
    pub(crate) fn take(&mut self, entry: Entry) {
        if self.last.is_none_or(|last| entry.log_id.index > last.index) {
            self.apply(entry.log_id, entry.payload);
        }
    }

    /// The same records under other members.
    pub(crate) fn begin_anew(&mut self, members: Membership, lift: u64) {
        self.membership = members;
        self.records.lift(lift);
    }

    fn apply(
        &mut self,
        log_id: LogId,
        payload: openraft::type_config::alias::PayloadOf<Types>,
    ) -> Option<Outcome> {
        self.last = Some(log_id);
        match payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(change) => Some(self.records.apply(change)),
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(log_id), membership);
                None
            }
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Records;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        let state = self.state();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let outcome = self.state().apply(entry.log_id, entry.payload);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, records: Records) -> Result<(), io::Error> {
        let state = State { last: meta.last_log_id, membership: meta.last_membership.clone(), records };
        self.write(state.clone()).await?;
        *self.state() = state;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let state: Option<State> = disk::read_json(&self.file)?;
        Ok(state.map(|state| Snapshot { meta: state.meta(), snapshot: state.records }))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Records;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self.state().clone();
        self.write(state.clone()).await?;
        Ok(Snapshot { meta: state.meta(), snapshot: state.records })
    }
}
