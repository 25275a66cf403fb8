//! Which epoch grew out of which, and where: the ground of every decision about a server that comes back.

use serde::{Deserialize, Serialize};

use super::{Group, Lsn};

/// How many promotions are remembered. Data from before the oldest one is copied anew.
pub const HISTORY_MAX: usize = 64;

/// One epoch's beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    pub epoch: u64,
    pub server: String,
    /// The epoch whose history it goes on with: the one before it, or an earlier one when that had written
    /// nothing that anybody else has. 0: none.
    pub parent: u64,
    /// PostgreSQL's number of the new timeline; absent until it is promoted.
    pub timeline: Option<u32>,
    /// Where the parent's history ends and this one's begins; until it is promoted, where it was to begin.
    pub switch: Lsn,
    /// Wall clock of the server that took over, in milliseconds since 1970: for people, never for decisions.
    pub when_ms: u64,
    pub because: String,
}

impl Group {
    pub fn promotion(&self, epoch: u64) -> Option<&Promotion> {
        self.history.iter().find(|promotion| promotion.epoch == epoch)
    }

    /// The promotions that led to this epoch, newest first, as far as they are remembered.
    pub fn ancestry(&self, epoch: u64) -> impl Iterator<Item = &Promotion> {
        let mut next = self.promotion(epoch);
        std::iter::from_fn(move || {
            let promotion = next?;
            // A parent is always older, so this ends.
            next = self.promotion(promotion.parent).filter(|parent| parent.epoch < promotion.epoch);
            Some(promotion)
        })
    }

    /// Which epoch a log ends in that ends at `lsn` of `timeline`, on a server that was in `confirmed` when it
    /// began to follow `following`.
    ///
    /// Following an epoch does not make a log contain it: until the log has passed the place where that epoch
    /// began, it is only a prefix of the older one, and must not count as newer in an election.
    ///
    /// A postgres that follows a server goes on with it into that server's later epochs, also while its manager stands
    /// still and can note nothing; and what it confirmed there was acknowledged. Timeline numbers prove nothing
    /// where that server has given the same one twice.
    pub fn epoch_of(&self, confirmed: u64, following: u64, timeline: u32, lsn: Lsn) -> u64 {
        let passed = |promotion: &&Promotion| promotion.timeline == Some(timeline) && lsn > promotion.switch;
        let Some(told) = self.promotion(following) else { return confirmed };
        let later = |other: &&Promotion| other.epoch > told.epoch && other.server == told.server;
        let mut by_itself = self.history.iter().filter(later).filter(passed);
        match (Some(told).filter(passed), by_itself.next(), by_itself.next()) {
            (Some(promotion), ..) | (None, Some(promotion), None) => promotion.epoch.max(confirmed),
            (None, ..) => confirmed,
        }
    }

    pub(super) fn remember(&mut self, promotion: Promotion) {
        self.history.push(promotion);
        let surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..surplus);
    }
}
