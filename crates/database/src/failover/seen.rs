//! What a manager knows at one moment: the whole input of [`super::decide`].
//!
//! All durations are ages on CLOCK_BOOTTIME, which goes on while the machine is suspended and which nobody sets.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Names;
use super::lease::Timings;
use crate::group::{Group, Lsn, Mode};

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The name of this server.
    pub me: String,
    /// Drawn anew by every manager process; kept over an exec in place, which keeps postgres and the lease.
    pub boot: String,
    /// The database servers of the plan, in the file's order. The first makes the first cluster.
    pub servers: Vec<String>,
    /// What the plan wants of commits.
    pub mode: Mode,
    pub timings: Timings,
    pub record: Record,
    /// Whether the last exchange with control went well.
    pub in_touch: bool,
    pub lease: Option<HeldLease>,
    pub postgres: Postgres,
    pub data: Data,
    /// Read from its file beside the data directory; absent: never written, so data of an earlier version.
    pub stamp: Option<Stamp>,
    /// What this server knew of its cluster before: when the data is gone and this is not, nobody starts empty.
    pub remembered: Option<u64>,
    /// The holder, asked over the network when this server has no data or does not stream.
    pub upstream: Upstream,
    /// The major versions of the installed programs.
    pub installed: Vec<u32>,
    /// What failed last, until the thing that failed has gone well.
    pub trouble: Option<Trouble>,
    /// What is left on the disk of the data.
    pub free_bytes: u64,
    pub orders: Orders,
    /// How long ago this process saw the holder change from one server to another, newest first; a few are enough.
    pub failovers: Vec<Duration>,
    /// Wall clock, milliseconds since 1970: written into the history for people, never compared.
    pub wall_ms: u64,
}

/// What the agent wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// This server is to end in order. [`super::Action::End`] answers it.
    pub stop: bool,
}

/// The record of the group as this process knows it.
#[derive(Clone, Debug)]
pub enum Record {
    /// Not read since this process started, and why. The first look must be a linearizable read; after that the
    /// newest of what reads, watches and own proposals have shown. It never goes back.
    Unread(String),
    /// The linearizable read said that there is none.
    Absent,
    Known {
        version: u64,
        group: Arc<Group>,
        /// How long this process has seen this version.
        version_age: Duration,
        /// How long this process has seen this (epoch, seq): the holder's silence.
        silence: Duration,
        /// How long this process has seen this epoch.
        epoch_age: Duration,
    },
}

/// The lease, when this very process has it: its own [`crate::group::Command::TakeOver`] was accepted, and since
/// then it was neither released nor over. Once given up it is never had again for that epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLease {
    pub epoch: u64,
    /// Until fencing must begin ([`Timings::fence_at`]); zero: now.
    pub left: Duration,
}

/// Our postgres.
#[derive(Clone, Debug)]
pub enum Postgres {
    /// No child of ours runs. `leftovers` are processes that still live on the data directory.
    Stopped { leftovers: usize },
    Running {
        since: Duration,
        /// Whether it answered at any time since it was started.
        answered: bool,
        /// What it answered on the local socket, or why it did not.
        answer: Result<Answer, String>,
        /// The last error in its log, for sentences that say why something does not work.
        last_error: Option<String>,
    },
}

/// What a postgres says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Primary(AsPrimary),
    Replica(AsReplica),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsPrimary {
    pub system_identifier: u64,
    pub timeline: u32,
    /// Where this timeline began (its .history file).
    pub switch: Lsn,
    /// The end of what is flushed.
    pub written: Lsn,
    /// `synchronous_standby_names` as in force in a session begun after the last reload.
    pub names: Names,
    /// Where the log ended after `names` came into force *and* every walsender that may still have held the
    /// older value was ended: those whose name left the setting. None: not yet.
    pub names_since: Option<Lsn>,
    /// Every other server of the plan, once each, also those that are not connected.
    pub replicas: Vec<Replica>,
    /// The newest epoch whose row this process has committed, the commit having returned without a warning.
    pub committed_epoch: Option<u64>,
    /// The epoch whose row is being committed at this moment.
    pub committing: Option<u64>,
    /// Whether roles, database and slots were made since it was promoted.
    pub set_up: bool,
    /// The checkpoint since it was promoted: only after that can others be rewound to it.
    pub checkpoint: Progress,
}

/// Of something that takes its time in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    NotBegun,
    UnderWay,
    Done,
}

/// Another server as the primary sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub name: String,
    /// Connected in that state, and heard within [`super::synchrony::REPLY_LIMIT`].
    pub streaming: bool,
    /// Being copied at this moment.
    pub copying: bool,
    /// What it has safely on disk; zero when it is not connected.
    pub flushed: Lsn,
    pub lag_bytes: u64,
    /// How long it has not been streaming, as far as this process saw since the promotion; zero: it streams.
    pub away: Duration,
    /// How much of the log its slot keeps for it.
    pub kept_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsReplica {
    /// Whom `primary_conninfo` *on disk* names; None: sealed, so that a restart stays sealed.
    pub follows: Option<String>,
    /// Whether a WAL receiver process exists: after a seal was ordered it takes some milliseconds to go.
    pub receiving: bool,
    /// Whether that receiver streams.
    pub streaming: bool,
    /// How long it has not been streaming since it was told to follow; zero: it streams.
    pub not_streaming: Duration,
    /// Whether everything in the local log is replayed: the startup process waits for more (wait event
    /// RecoveryRetrieveRetryInterval or RecoveryWalStream). Until then every position is too low.
    pub replayed_all: bool,
    /// The timeline and the end of replay. Not of receipt: a receiver that restarted says less than is there, and
    /// an incomplete record at the end is worth nothing.
    pub timeline: u32,
    pub replayed: Lsn,
    pub lag_bytes: u64,
}

/// The data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Absent,
    /// Made by a major version whose programs are not here, so that nothing more can be said of it.
    OtherVersion(u32),
    /// There is something that is not a data directory, or that cannot be read; and why.
    Unreadable(String),
    Present {
        major: u32,
        system_identifier: u64,
        timeline: u32,
        /// The last run was a primary's and ended in order: one byte past the beginning of the shutdown
        /// checkpoint. Who has replayed past that has everything.
        closed: Option<Lsn>,
        /// Whether it follows another server (standby.signal). Asked of data of an earlier version alone.
        standby: bool,
    },
}

/// What the manager writes beside the data directory before it changes what that follows; fsynced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub system_identifier: u64,
    /// The newest epoch that the log was known to contain when `following` was written.
    pub confirmed: u64,
    /// The epoch that is followed since, or that this server was promoted for. See [`Group::epoch_of`].
    pub following: u64,
    /// A rewind has begun and not ended: the directory is worth nothing.
    pub spoiled: bool,
    /// The epoch in which the last rewind was tried: one is enough.
    pub rewound_in: u64,
}

/// The holder as this server sees it over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Not asked, because there is no need: the replica streams, or there is nobody to ask.
    Unasked,
    Unreachable(String),
    Reached {
        major: u32,
        system_identifier: u64,
        /// Whether our replication slot is there.
        slot: bool,
        /// Whether [`AsPrimary::checkpoint`] is done there: its control file is of the timeline that it writes.
        checkpointed: bool,
    },
}

/// Something that failed, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened, to what: `postgres was killed by signal 9`.
    pub what: String,
    /// Zero: now.
    pub retry_in: Duration,
}
