//! The record beside what this server sees of itself: the questions that several rows of the table ask.

use std::time::Duration;

use super::seen::{AsReplica, Data, Record, Seen, Stamp};
use crate::group::{Group, Lsn, Position};

/// A failover so soon after the last one would most likely end the same way.
const FAILOVER_REST: Duration = Duration::from_secs(10);
/// The third failover within this time is not made: what ends one primary after another is no failing machine.
const FAILOVER_WINDOW: Duration = Duration::from_secs(60);
const FAILOVERS_MAX: usize = 2;

/// What is seen, once the record is known.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) seen: &'a Seen,
    pub(super) version: u64,
    pub(super) group: &'a Group,
    pub(super) version_age: Duration,
    pub(super) silence: Duration,
    pub(super) epoch_age: Duration,
}

impl<'a> View<'a> {
    pub(super) fn of(seen: &'a Seen) -> Option<Self> {
        let Record::Known { version, group, version_age, silence, epoch_age } = &seen.record else {
            return None;
        };
        let (version, version_age, silence, epoch_age) = (*version, *version_age, *silence, *epoch_age);
        Some(Self { seen, version, group, version_age, silence, epoch_age })
    }

    pub(super) fn i_hold(&self) -> bool {
        self.group.holder == self.seen.me
    }

    /// Whether this very process holds the lease of the record's epoch.
    pub(super) fn leased(&self) -> bool {
        let mine = self.i_hold() && self.group.boot == self.seen.boot && !self.group.is_released();
        mine && self.seen.lease.is_some_and(|lease| lease.epoch == self.group.epoch)
    }

    /// After this much silence the holder is certainly fenced, whichever lease it took.
    pub(super) fn patience(&self) -> Duration {
        self.seen.timings.patience_for(self.group)
    }

    /// After this much silence an election begins.
    pub(super) fn election(&self) -> Duration {
        self.seen.timings.election_for(self.group)
    }

    pub(super) fn is_member(&self) -> bool {
        self.group.synchronous.members.contains(&self.seen.me)
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.seen.stamp.unwrap_or_default()
    }

    /// Where the log of a sealed standby ends.
    pub(super) fn position(&self, replica: &AsReplica) -> Position {
        self.position_at(replica.timeline, replica.replayed)
    }

    fn position_at(&self, timeline: u32, lsn: Lsn) -> Position {
        let stamp = self.stamp();
        let epoch = self.group.epoch_of(stamp.confirmed, stamp.following, timeline, lsn);
        Position { epoch, timeline, lsn }
    }

    /// Where the log ends that a primary has closed in order.
    pub(super) fn closed(&self) -> Option<Position> {
        match &self.seen.data {
            Data::Present { timeline, closed: Some(end), .. } => Some(self.position_at(*timeline, *end)),
            _ => None,
        }
    }

    /// Whether another server may take over from a primary that died, or whether that has happened too often.
    pub(super) fn may_fail_over(&self) -> bool {
        let failovers = &self.seen.failovers;
        let recent = failovers.iter().filter(|age| **age < FAILOVER_WINDOW).count();
        let rested = failovers.iter().all(|age| *age >= FAILOVER_REST);
        !self.group.synchronous.members.is_empty() && rested && recent < FAILOVERS_MAX
    }
}

impl AsReplica {
    /// No WAL receiver, none that a restart would bring back, and all that is there replayed.
    pub(super) fn is_sealed(&self) -> bool {
        self.follows.is_none() && !self.receiving && self.replayed_all
    }
}
