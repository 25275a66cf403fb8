//! What to do: each can be carried out twice, and cut off at any instruction; the next look decides again.

use link::report::State;

use super::{Names, Standing};
use crate::group::{Command, Group};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: look again soon.
    Wait,
    /// Nothing is left to do before this process may end, as the agent ordered.
    End,
    /// SIGKILL to every process that lives on the data directory, until there is none.
    EndLeftovers,
    /// Write the first record: propose it for version 0.
    Create(Box<Group>),
    /// Apply the command to the version seen and propose the result for exactly that version. With
    /// [`Command::TakeOver`] a lease begins, counted from before it was sent; [`Command::Release`] ends it. What
    /// came back unknown counts as not made: no lease.
    Propose(Command),
    /// Make a new, empty cluster, under another name until it is whole. Stamp: confirmed 0, following 0.
    Initialise,
    /// Copy this server, with programs of this major version, under another name until it is whole; then stop
    /// postgres, set the old data directory aside (one such is kept) and put the new one in its place. Stamp:
    /// confirmed and following `epoch`. With `reinit`, propose [`Command::ReinitDone`] afterwards.
    Clone { from: String, epoch: u64, major: u32, reinit: bool },
    /// Start postgres as a sealed standby, always: standby.signal, no primary_conninfo.
    Start { major: u32 },
    /// Write the stamp (`confirmed`, following `epoch`), then primary_conninfo, then reload.
    Follow { server: String, epoch: u64, confirmed: u64 },
    /// Empty primary_conninfo on disk, then reload. Done when no WAL receiver is left.
    Seal,
    /// Mark the stamp as spoiled and tried in `epoch`, stop postgres, pg_rewind from this server, write our own
    /// settings and standby.signal again, take the mark off (stamp: confirmed `common`, following `epoch`). Any failure, and "no rewind
    /// required", leaves the mark: a copy follows.
    Rewind { from: String, epoch: u64, common: u64 },
    /// Write the stamp (`confirmed`, following `epoch`), put these names into force, then pg_promote(false). The
    /// names come first: not one commit may go unprotected.
    Promote { names: Names, epoch: u64, confirmed: u64 },
    /// Commit the epoch's row in a table of ours, in the background, with synchronous_commit on and without
    /// a time limit; a second order for the same epoch does nothing. A warning means that it failed.
    CommitEpoch(u64),
    /// Make the roles, the database and the slots. Under a time limit, as its commits may wait for a replica.
    SetUp,
    /// Write synchronous_standby_names and reload; then end every walsender whose name left the setting, as it
    /// may still hold the older value; then read the end of the log: [`super::AsPrimary::names_since`].
    SetNames(Names),
    /// CHECKPOINT, in the background.
    Checkpoint,
    /// An orderly end: fast, after 2 s by force. Everything written reaches the replicas that stream.
    Stop,
    /// Cut the gates of this machine, SIGKILL every process of postgres, wait until none is left. The lease, if
    /// any is left, is given up for good, without a word to control.
    Fence,
}

impl Action {
    /// Whether it waits for answers of a running postgres, so that it is over when that ends.
    pub(crate) fn needs_postgres(&self) -> bool {
        use Action::{Follow, Promote, Seal, SetNames, SetUp};
        matches!(self, Follow { .. } | Seal | Promote { .. } | SetUp | SetNames(_))
    }
}

/// What to do, what the server is, and why, in one plain sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub action: Action,
    pub standing: Standing,
    pub state: State,
    pub because: String,
}
