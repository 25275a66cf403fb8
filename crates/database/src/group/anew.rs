//! After control began anew from the state of one voter: this record may be older than what has happened since.
//!
//! What may be forgotten: that a member came or went, that the holder went alone, a whole failover. So nothing
//! that the record says of who has everything counts any more, and nobody is the holder. What counts is the data
//! itself: every server says where its own ends, and who has most goes on. That is enough, because a server whose
//! data is of a promotion that the record has not, says so instead and waits for a person. Of what was
//! acknowledged in the newest epoch that anybody knows, its primary had everything on its own disk.
//!
//! Nor are the epochs given out again that may be forgotten: after every new beginning they go on far beyond.

use std::collections::BTreeSet;

use link::control::beginnings;

use super::{Group, NOBODY, Phase, Refusal};

/// How many epochs one beginning of control has: more than there can be failovers.
const EPOCHS: u64 = 1 << 20;

/// The least epoch of a record of this version.
pub fn floor(version: u64) -> u64 {
    beginnings(version) * EPOCHS
}

impl Group {
    /// Whether this record, at this version, is one that control began anew with and nothing was settled since.
    pub fn is_in_doubt(&self, version: u64) -> bool {
        self.epoch < floor(version)
    }

    /// Whether nobody was primary since control began anew: then all servers must have voted.
    pub fn began_anew(&self) -> bool {
        self.holder == NOBODY
    }

    pub(super) fn begin_anew(&mut self, floor: u64, servers: &BTreeSet<String>) -> Result<(), Refusal> {
        if self.epoch >= floor {
            return Err(Refusal::OtherEpoch { expected: floor, is: self.epoch });
        }
        // Whether the last promotion was carried out may be forgotten as well.
        if self.history.last().is_some_and(|promotion| promotion.timeline.is_none()) {
            self.history.pop();
        }
        self.synchronous.members.extend(servers.iter().cloned());
        if !self.began_anew() {
            self.synchronous.members.insert(self.holder.clone());
        }
        // So that the quorum is all of them.
        self.synchronous.wait_for = 1;
        self.synchronous.generation += 1;
        self.epoch = floor;
        self.holder = NOBODY.to_owned();
        self.boot = String::new();
        self.seq += 1;
        self.state = Phase::Released { prefer: None, clean: None };
        (self.written, self.handover, self.refused, self.ballot) = (None, None, None, None);
        Ok(())
    }
}
