//! What openraft is made for here. Nothing of it is seen outside this crate.

use link::control::{Change, Outcome};
use openraft::type_config::alias::{
    EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

openraft::declare_raft_types!(
    /// Entries are changes of records; an answer is what became of one, None for entries of Raft's own.
    pub(crate) Types:
        D = Change,
        R = Option<Outcome>,
        NodeId = Node,
        Node = Member,
);

/// A number that a control server draws when its folder is empty, and keeps. A server whose disk was wiped
/// comes back as another node: the votes that it forgot are never cast again in the same name.
pub(crate) type Node = u64;

/// What the members know of each other; the address is in the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The name of the server, for example `control-2`.
    pub(crate) server: String,
}

pub(crate) type Raft = openraft::Raft<Types, Machine>;
pub(crate) type Entry = EntryOf<Types>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type Membership = StoredMembershipOf<Types>;
pub(crate) type Snapshot = SnapshotOf<Types, link::control::Records>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<Types>;
