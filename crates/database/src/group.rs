//! The record of a database group: who is the primary, until when nobody else may be, and who may be next.
//!
//! Control keeps it as one JSON value under [`KEY`], changed by compare-and-swap alone. Whoever wants a change
//! applies a [`Command`] to the version it has read and proposes the result for exactly that version, so every
//! check in [`Group::apply`] holds at the moment of the change, however late the message arrives.
//!
//! Why it is so: there is no clock in here and no input but the record itself, so the rules can be checked
//! without a network, and a server that slept through everything can break none of them. The times (how long a
//! lease lasts, how long others wait) are counted by each server on its own clock: [`crate::failover`].
//!
//! Words: the *holder* is the server that may be primary in this *epoch*; the epoch grows with every
//! promotion and is the identity of a history, because PostgreSQL's timeline numbers are not unique.

mod anew;
mod apply;
mod command;
mod history;
mod lsn;
mod refusal;
mod take_over;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use anew::floor;
pub use command::Command;
pub use history::{HISTORY_MAX, Promotion};
pub use lsn::{Lsn, NotLsn};
pub use refusal::Refusal;

/// Under which control keeps the record.
pub const KEY: &str = "database";

/// The holder of a record that control began anew with; no server is called so.
pub const NOBODY: &str = "nobody";

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The identity of the cluster; absent until the first primary has made it.
    pub system_identifier: Option<u64>,
    /// Grows by one with every [`Command::TakeOver`]. 0: nobody has been primary yet.
    pub epoch: u64,
    /// The name of the server that holds the lease.
    pub holder: String,
    /// Which life of the holder's manager: another one never renews, it takes over anew.
    pub boot: String,
    /// Grows with everything the holder says. Unchanged for a lease: the holder is gone.
    pub seq: u64,
    /// The lease that the holder took: others wait for it whatever their own plan says, so that a site whose
    /// machines change from one lease to another at different moments is never in doubt.
    #[serde(default = "lease_default_ms")]
    pub lease_ms: u64,
    pub state: Phase,
    /// Where the holder's log ended when it last renewed: the measure for the lag limit of asynchronous sites.
    #[serde(default)]
    pub written: Option<Lsn>,
    /// The operator wants no automatic action.
    #[serde(default)]
    pub paused: bool,
    /// The operator wants another primary.
    #[serde(default)]
    pub handover: Option<Handover>,
    /// Why the last order of the operator was refused by the server that should have carried it out.
    #[serde(default)]
    pub refused: Option<String>,
    /// Replicas that the operator wants copied anew.
    #[serde(default)]
    pub reinit: BTreeSet<String>,
    /// The operator wants this server promoted whatever is lost by it.
    #[serde(default)]
    pub force: Option<String>,
    pub synchronous: SynchronousSet,
    #[serde(default)]
    pub ballot: Option<Ballot>,
    /// The promotions, oldest first, at most [`HISTORY_MAX`].
    pub history: Vec<Promotion>,
    /// What a newer version of this program wrote and this one does not know: kept as it is.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// What the holder does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Phase {
    /// On its way to be primary. Replicas follow it as soon as it is promoted; clients wait.
    Promoting,
    /// It takes writes. Only now may a gate lead to it.
    Open,
    /// It stops in order to hand over. Gates cut and hold.
    HandingOver,
    /// Nothing of it runs any more: nobody needs to wait for its lease.
    Released {
        /// Who should be next, if it can.
        prefer: Option<String>,
        /// After an orderly stop: where its log ends. Who has that has everything.
        clean: Option<Position>,
    },
}

/// An operator's wish for another primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Absent: whichever replica suits best.
    pub to: Option<String>,
}

/// What a server's data contains. Ordered by epoch, then by place in the log: of two that are both whole up
/// to their place, the greater contains all that was acknowledged in the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The newest epoch of which the log holds anything at all: not the one that is followed, as long as the
    /// log ends before that epoch began. See [`Group::epoch_of`].
    pub epoch: u64,
    pub timeline: u32,
    /// The end of what is safely on disk and replayed.
    pub lsn: Lsn,
}

impl Position {
    pub fn contains(&self, other: &Position) -> bool {
        (self.epoch, self.lsn) >= (other.epoch, other.lsn)
    }
}

/// Who must have a commit before it is acknowledged, and so who may be promoted.
///
/// A commit waits for `wait_for` of `members`; so any [`SynchronousSet::quorum`] of them include one that has
/// it. No members: only the holder itself has everything, and nobody else may be promoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynchronousSet {
    pub mode: Mode,
    /// Never the holder. On asynchronous sites: the replicas that stream.
    pub members: BTreeSet<String>,
    pub wait_for: u32,
    /// Grows with every change.
    pub generation: u64,
}

/// What `[database] synchronous` promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Mode {
    /// Commits wait for a replica; when none is left the primary records that nobody may be promoted and goes
    /// on alone.
    Synchronous,
    /// Commits wait for a replica, however long.
    Strict,
    /// Commits wait for nobody. A replica within this lag may be promoted, and what it lacks is lost.
    Asynchronous { max_lag_bytes: u64 },
}

impl SynchronousSet {
    pub fn nobody(mode: Mode) -> Self {
        Self { mode, members: BTreeSet::new(), wait_for: 0, generation: 0 }
    }

    /// How many members must have voted: N − W + 1 meet every W that may have acknowledged a commit. On an
    /// asynchronous site nobody has waited for anyone, unless control began anew ([`Group::begin_anew`]).
    pub fn quorum(&self) -> usize {
        match self.mode {
            Mode::Asynchronous { .. } if self.wait_for == 0 => 1,
            _ => (self.members.len() + 1).saturating_sub(self.wait_for as usize),
        }
    }
}

/// An election under way. While there is one nobody follows anybody: all are sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// What the winner's epoch will be.
    pub epoch: u64,
    pub votes: BTreeMap<String, Vote>,
}

/// A sealed replica's word: it has no WAL receiver, all its log is replayed, and it ends here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    pub position: Position,
    /// Which life of the manager gave it.
    pub boot: String,
}

fn lease_default_ms() -> u64 {
    plan::LEASE_DEFAULT_MS
}

impl Group {
    /// The first record of a site, proposed for version 0 by the first database server of the plan. Nobody has
    /// been primary yet: epoch 0, released, and `server` alone may take over, once it has a cluster.
    ///
    /// `system_identifier`: of the cluster that an earlier version of this program left there, if one did.
    pub fn create(server: &str, boot: &str, system_identifier: Option<u64>, mode: Mode) -> Self {
        Self {
            system_identifier,
            epoch: 0,
            holder: server.to_owned(),
            boot: boot.to_owned(),
            seq: 0,
            lease_ms: lease_default_ms(),
            state: Phase::Released { prefer: Some(server.to_owned()), clean: None },
            written: None,
            paused: false,
            handover: None,
            refused: None,
            reinit: BTreeSet::new(),
            force: None,
            synchronous: SynchronousSet::nobody(mode),
            ballot: None,
            history: Vec::new(),
            unknown: Map::new(),
        }
    }

    /// The lease of the holder.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// Whether clients may be led to the holder.
    pub fn is_open(&self) -> bool {
        self.state == Phase::Open
    }

    /// Whether the holder gave up its lease.
    pub fn is_released(&self) -> bool {
        matches!(self.state, Phase::Released { .. })
    }

    /// Whether replicas may follow the holder: it is promoted, and no election is under way.
    pub fn can_be_followed(&self) -> bool {
        let promoted = self.promotion(self.epoch).is_some_and(|promotion| promotion.timeline.is_some());
        promoted && self.ballot.is_none() && !self.is_released()
    }

    /// Whether enough members have voted that the holder's time is over.
    pub fn is_decided(&self) -> bool {
        let Some(ballot) = &self.ballot else { return false };
        let voted = ballot.votes.keys().filter(|name| self.synchronous.members.contains(*name)).count();
        !self.synchronous.members.is_empty() && voted >= self.synchronous.quorum()
    }

    /// The greatest position among the votes.
    pub fn best_vote(&self) -> Option<Position> {
        let votes = self.ballot.iter().flat_map(|ballot| ballot.votes.values());
        votes.map(|vote| vote.position).max_by_key(|position| (position.epoch, position.lsn))
    }
}

#[cfg(test)]
mod tests;
