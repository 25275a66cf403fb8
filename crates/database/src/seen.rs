//! What a manager knows at one moment: the whole input of [`crate::decide`].

use std::time::Duration;

use link::report::ReplicaReport;
use serde::{Deserialize, Serialize};

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) duty: Duty,
    pub(crate) memory: Memory,
    /// The major versions of the installed programs.
    pub(crate) installed: Vec<u32>,
    pub(crate) process: Process,
    pub(crate) data: Data,
    /// What failed last, until the thing that failed has gone well.
    pub(crate) trouble: Option<Trouble>,
    /// What is left on the disk of the data.
    pub(crate) free_bytes: u64,
}

/// What the plan wants of this server. The roles are fixed: the first database server is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    Primary {
        /// The names of all replicas in the plan.
        replicas: Vec<String>,
        /// Whether the plan wants commits to wait for a replica.
        synchronous: bool,
    },
    Replica {
        primary: String,
        address: String,
        upstream: Upstream,
    },
}

/// What must outlive this process and is not in the data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// The identity of the data that was here. When the data is gone and this is not, nobody starts empty.
    pub(crate) system_identifier: Option<u64>,
    /// Whether commits wait for a replica already: from when the first one had its copy.
    pub(crate) synchronous: bool,
}

/// The data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Absent,
    /// Made by a major version whose programs are not here, so that nothing more can be said of it.
    OtherVersion(u32),
    /// There is something that is not a data directory, or that cannot be read; and why.
    Unreadable(String),
    Present {
        major: u32,
        system_identifier: u64,
        timeline: u32,
        /// Whether it follows another server (standby.signal).
        standby: bool,
    },
}

/// Our postgres.
#[derive(Clone, Debug)]
pub(crate) enum Process {
    /// No child of ours runs. `leftovers` are processes that an earlier manager left on the data directory.
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
pub(crate) enum Answer {
    Primary {
        timeline: u32,
        /// The replicas of the plan, each once, also those that are not connected.
        replicas: Vec<ReplicaReport>,
        /// `synchronous_standby_names` as in force.
        synchronous_names: String,
        /// Whether this process has made the roles, the database and the slots since it started.
        set_up: bool,
    },
    Replica {
        timeline: u32,
        streaming: bool,
        lag_bytes: u64,
    },
}

/// The primary as a replica sees it over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// Not asked, because there is no need: the replica streams.
    Unasked,
    Unreachable(String),
    Reached {
        major: u32,
        system_identifier: u64,
        /// Whether our replication slot is there.
        slot: bool,
    },
}

/// Something that failed, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What happened, to what: `postgres was killed by signal 9`.
    pub(crate) what: String,
    /// Zero: now.
    pub(crate) retry_in: Duration,
}
