//! What is said to a control server: asks and answers on a conversation of the agent API, one after another.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Change, Outcome, Record};

/// The name in the plan of the address that a control server answers on.
pub const LISTEN: &str = "control";

/// A control server that is watched says something at least this often.
pub const HEARTBEAT: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlAsk {
    Propose {
        change: Change,
        within_ms: u64,
    },
    Read {
        key: String,
        within_ms: u64,
    },
    /// The record now, at every change, and a sign of life at least every [`HEARTBEAT`]; for
    /// as long as the connection lasts.
    Watch {
        key: String,
    },
    /// A message of Raft itself, from another control server.
    Raft {
        kind: RaftKind,
        body: Value,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RaftKind {
    Append,
    Vote,
    PreVote,
    Snapshot,
    TransferLeader,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlAnswer {
    Outcome(Outcome),
    Record(Option<Record>),
    /// Nothing new; this server is in contact with the leader.
    Alive,
    /// It cannot be said now. `maybe_made`: the change may have been made all the same.
    Unavailable {
        because: String,
        maybe_made: bool,
    },
    Raft(Value),
}
