//! Control as the decisions know it: one record that changes by compare-and-swap, reached through a majority
//! of machines or not at all, with answers that may be late, lost or unknown.

use std::collections::VecDeque;
use std::sync::Arc;

use database::group::Group;
use link::control::LIFT;

#[derive(Clone, Debug, Default)]
pub struct Control {
    pub version: u64,
    pub group: Option<Arc<Group>>,
    /// No leader until then.
    pub outage_until: u64,
    /// A majority is lost for good, and nobody began anew yet.
    pub lost: bool,
    /// The last records: what a voter that begins anew may know.
    past: VecDeque<(u64, Arc<Group>)>,
}

/// Some seconds, in which everything may have happened.
const PAST: usize = 24;

/// A proposal on its way.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub from: usize,
    pub life: u64,
    pub number: u64,
    pub expected: u64,
    pub next: Arc<Group>,
    /// On the proposer's clock, before it was sent.
    pub sent: u64,
    pub gives: Gives,
}

/// What an accepted proposal means for the lease of whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    Renewal(u64),
    Lease(u64),
    Release,
    Nothing,
}

impl Control {
    pub fn swap(&mut self, expected: u64, next: &Arc<Group>) -> bool {
        if self.version != expected {
            return false;
        }
        self.version += 1;
        self.group = Some(Arc::clone(next));
        self.past.push_back((self.version, Arc::clone(next)));
        if self.past.len() > PAST {
            self.past.pop_front();
        }
        true
    }

    /// The only voter that is left knows the record of `back` changes ago. `lifted`: as it should be.
    pub fn begin_anew(&mut self, back: usize, lifted: bool) {
        self.lost = false;
        let known = self.past.len().saturating_sub(1 + back);
        let Some((version, group)) = self.past.get(known).cloned() else { return };
        self.version = if lifted { version + LIFT } else { self.version + 1 };
        self.group = Some(Arc::clone(&group));
        self.past = [(self.version, group)].into();
    }
}
