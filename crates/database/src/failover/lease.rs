//! The times of a lease, and whether it may be renewed. Every server counts on its own CLOCK_BOOTTIME; no clock is
//! ever compared with another one's.
//!
//! The holder's lease lasts from *before* a renewal was sent; the others wait from *after* they heard of it, for
//! longer. So the holder is fenced first, however late a message arrives and although clocks run at rates
//! that differ by up to one part in a hundred.

use std::time::Duration;

use crate::group::{Command, Group, Lsn, Phase};

pub const LEASE_DEFAULT: Duration = Duration::from_millis(plan::LEASE_DEFAULT_MS);

/// A lease is renewed only while PostgreSQL proves that it can commit: its last heartbeat is younger than this.
/// A disk that hangs under a healthy process must end in a failover, not in a primary that serves nobody.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(5);

/// How long a promotion may take before the server gives up for another.
pub const PROMOTION_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    pub lease: Duration,
    /// A renewal is due this long after the last one.
    pub renew: Duration,
    /// Fencing begins this long before the lease ends: killing 110 processes took up to 131 ms.
    pub fence_before: Duration,
    /// Others wait this much longer than the lease, besides one part in a hundred for clocks that run unevenly.
    pub margin: Duration,
}

impl Timings {
    pub fn new(lease: Duration) -> Self {
        let plan::Lease { length, renew, fence_before } = plan::Lease::of(lease);
        Self { lease: length, renew, fence_before, margin: Duration::from_millis(150) }
    }

    /// When the holder must begin to fence itself, `sent` being the moment before the last accepted renewal or
    /// take-over was sent.
    pub fn fence_at(&self, sent: Duration) -> Duration {
        (sent + self.lease).saturating_sub(self.fence_before)
    }

    /// After this much silence a holder with our lease is certainly fenced.
    pub fn patience(&self) -> Duration {
        self.lease + self.lease / 100 + self.margin
    }

    /// The same for the holder that the record names, whose plan may say something else than ours.
    pub fn patience_for(&self, group: &Group) -> Duration {
        Self { lease: self.lease.max(group.lease()), ..*self }.patience()
    }

    /// After this much silence that holder is ending itself, as far as it goes by its own clock, and gets no renewal
    /// through that would be in time: an election begins, so that it is over when, after [`Timings::patience_for`],
    /// somebody may take over.
    pub fn election_for(&self, group: &Group) -> Duration {
        let fence_before = plan::Lease::of(self.lease.max(group.lease())).fence_before;
        self.patience_for(group).saturating_sub(self.margin + fence_before / 2)
    }

    /// How long an answer to a renewal is waited for; after that it counts as not made, and the next one is due.
    pub fn answer_limit(&self) -> Duration {
        self.renew.mul_f32(0.8)
    }
}

/// What the renewing thread knows.
#[derive(Clone, Copy, Debug)]
pub struct Holding<'a> {
    pub me: &'a str,
    pub boot: &'a str,
    pub group: &'a Group,
    /// The epoch of the lease that this process has.
    pub epoch: u64,
    /// Until fencing must begin.
    pub left: Duration,
    /// Since the last heartbeat was committed, or since the take-over if that is younger.
    pub heartbeat_age: Duration,
    /// The end of the log.
    pub written: Option<Lsn>,
}

/// What the renewing thread does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    Propose(Command),
    /// The lease must not be renewed, and why: it may run out, the server not being able to do its work.
    Withhold(String),
    /// The lease is over, and why: fence at once.
    Over(String),
}

/// Whether to renew. The heartbeat counts once the server is open: a promotion has its own limit.
pub fn renewal(holding: &Holding) -> Renewal {
    let group = holding.group;
    if holding.left.is_zero() {
        return Renewal::Over("the lease could not be renewed in time".into());
    }
    if group.epoch > holding.epoch {
        return Renewal::Over(format!("{} has taken over in epoch {}", group.holder, group.epoch));
    }
    if group.is_released() {
        return Renewal::Over("it was released".into());
    }
    if group.is_decided() {
        return Renewal::Over("enough replicas have voted for another primary".into());
    }
    let limit = if group.state == Phase::Promoting { PROMOTION_LIMIT } else { HEARTBEAT_LIMIT };
    if holding.heartbeat_age >= limit {
        let age = holding.heartbeat_age.as_secs_f32();
        return Renewal::Withhold(format!("nothing could be committed for {age:.0} s"));
    }
    Renewal::Propose(Command::Renew {
        epoch: holding.epoch,
        boot: holding.boot.to_owned(),
        written: holding.written,
    })
}
