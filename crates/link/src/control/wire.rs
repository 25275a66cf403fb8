//! What is said to a control server: asks and answers on a conversation of the agent API, one after another.

use std::collections::BTreeSet;
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
    /// Of the operator's records, operator only, and to the leader itself.
    Propose {
        change: Change,
        within_ms: u64,
        /// Whether a control server passes it on to the leader, which it does once.
        forwarded: bool,
    },
    Read {
        key: String,
        within_ms: u64,
        forwarded: bool,
    },
    /// The record now, at every change, and a sign of life at least every [`HEARTBEAT`]; for as long as the
    /// connection lasts.
    Watch {
        key: String,
    },
    /// One control server to another, before they are members of the same cluster: who it is.
    Meet {
        server: String,
        node: u64,
    },
    /// A message of Raft itself, to this node.
    Raft {
        to: u64,
        kind: RaftKind,
        body: Value,
    },
    /// The members as this server knows them.
    Members,
    /// Operator only, and to the leader itself: `new`, which learns, votes in the place of `old`, which died for good.
    /// Both are names of servers; they are the same when one came back with an empty disk.
    Replace {
        old: String,
        new: String,
    },
    /// Operator only: most voters are lost for good, so this server begins anew, as the only voter, with what it
    /// knows. It ends to do so, and is started again by its agent.
    Recover,
    /// Operator only: another one began anew without this server, which sets its state aside and comes back empty.
    Forget,
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
    Met {
        node: u64,
        /// Whether it belongs to a cluster already.
        member: bool,
    },
    Raft(Value),
    Members(MembersReport),
    Done,
}

/// The members of the cluster as one control server knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReport {
    /// The server that says this, and as which node.
    pub server: String,
    #[serde(default)]
    pub node: u64,
    pub term: u64,
    pub leader: Option<String>,
    /// The last entry of its log, in which term that was made, and the last one that it applied.
    pub log: u64,
    #[serde(default)]
    pub log_term: u64,
    pub applied: u64,
    pub members: Vec<MemberReport>,
    /// The nodes that vote; in the middle of a change two sets, of each of which a majority must agree.
    #[serde(default)]
    pub voters: Vec<BTreeSet<u64>>,
}

impl MembersReport {
    /// Whether it leads, as far as it knows itself.
    pub fn leads(&self) -> bool {
        self.leader.as_ref() == Some(&self.server)
    }

    /// Whether it votes itself. One that lost its disk does not: it came back as another node.
    pub fn votes(&self) -> bool {
        self.voters.iter().any(|voters| voters.contains(&self.node))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    pub server: String,
    pub node: u64,
    pub votes: bool,
    /// How far the leader knows its log to be; only the leader says it.
    pub log: Option<u64>,
}
