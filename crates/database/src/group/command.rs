//! All that may be done to the record.

use std::collections::BTreeSet;

use super::{Lsn, Position, SynchronousSet};

/// A wanted change; see [`super::Group::apply`] for when it is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The holder lives. Its lease lasts from before this was sent. Cancels an election that is not decided.
    Renew {
        epoch: u64,
        boot: String,
        written: Option<Lsn>,
    },
    /// Nothing of the holder runs any more. Any life of its manager may say so, once it has made sure.
    Release {
        epoch: u64,
        server: String,
        prefer: Option<String>,
        clean: Option<Position>,
    },
    /// Begins an election: only by a replica that has seen (`epoch`, `seq`) unchanged for a whole lease on its own
    /// clock, or that saw the lease released.
    OpenBallot {
        server: String,
        epoch: u64,
        seq: u64,
    },
    /// A sealed member says where its log ends.
    Vote {
        server: String,
        boot: String,
        position: Position,
    },
    /// The server becomes the holder of the next epoch: the best of enough votes; or who has the end of a log
    /// that was closed in order; or the holder itself; or whom the operator forces. Before it proposes this, it
    /// is sealed and its log is replayed up to `position`.
    TakeOver {
        server: String,
        boot: String,
        position: Position,
        lease_ms: u64,
        when_ms: u64,
        because: String,
    },
    /// The holder is promoted: replicas may follow.
    Promoted {
        epoch: u64,
        boot: String,
        timeline: u32,
        switch: Lsn,
        system_identifier: u64,
    },
    /// The holder's epoch is committed as synchronously as everything after it: clients may come.
    Open {
        epoch: u64,
        boot: String,
    },
    /// The holder's postgres has ended and is started again, as a standby: no clients before it is promoted anew, for
    /// another epoch. Any life of its manager may say so.
    Close {
        epoch: u64,
        server: String,
    },
    /// Who must have a commit. The order of this and of PostgreSQL's own setting is in `crate::failover::synchrony`.
    SetSynchronous {
        epoch: u64,
        boot: String,
        set: SynchronousSet,
    },
    /// The holder begins to stop, because it was asked to hand over.
    BeginHandover {
        epoch: u64,
        boot: String,
        to: String,
    },
    /// The operator wants another primary.
    AskHandover {
        to: Option<String>,
    },
    /// The holder cannot do that, and says why.
    RefuseHandover {
        epoch: u64,
        boot: String,
        because: String,
    },
    /// Control began anew from the state of one voter, with epochs from `floor` on: nobody is the holder, and who
    /// has most of all these servers is to be the next one.
    BeginAnew {
        floor: u64,
        servers: BTreeSet<String>,
    },
    /// The operator wants no automatic action.
    Pause,
    Resume,
    /// The operator wants a replica copied anew.
    Reinit {
        server: String,
    },
    /// It has been.
    ReinitDone {
        server: String,
    },
    /// The operator wants this server to be the primary whatever is lost by it, once the lease is over.
    ForceTakeOver {
        server: String,
    },
}
