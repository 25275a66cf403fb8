//! How fast a new leader is there, and whether that is fast enough for a lease that is renewed through it.

use std::time::Duration;

/// A sync of the log that takes a larger part of the lease than this is too slow a disk.
const SLOW_DISK: u32 = 10;

/// The time for messages and disks in an election and in one renewal after it.
const MARGIN: Duration = Duration::from_millis(150);

/// The lease whose renewals go through control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) length: Duration,
    pub(crate) renew: Duration,
    pub(crate) fence_before: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) heartbeat: Duration,
    pub(crate) election_min: Duration,
    pub(crate) election_max: Duration,
}

/// 3 s, fenced a quarter of it before its end, renewed six times in it.
pub(crate) const LEASE: Lease = Lease {
    length: Duration::from_secs(3),
    renew: Duration::from_millis(500),
    fence_before: Duration::from_millis(750),
};

impl Lease {
    /// How long no renewal may get through before its holder begins to fence itself: the last one may have been
    /// just before, and the next one is only tried at the next turn.
    pub(crate) fn patience(self) -> Duration {
        self.length.saturating_sub(self.fence_before + self.renew)
    }
}

impl Timing {
    /// The longest time without a leader: openraft's followers wait for the greatest election time-out because
    /// the old leader may live, then for their own.
    pub(crate) fn worst_election(self) -> Duration {
        self.election_max * 2
    }

    /// Elections as calm as this lease allows, but not calmer than 350 to 700 ms.
    pub(crate) fn for_lease(lease: Lease) -> Self {
        let election_max = (lease.patience().saturating_sub(MARGIN) / 2).min(Duration::from_millis(700));
        Self { heartbeat: election_max / 7, election_min: election_max / 2, election_max }
    }

    /// Whether losing the leader can never fence a healthy holder; else why it can.
    pub(crate) fn check(self, lease: Lease, sync: Duration) -> Result<(), String> {
        let needs = self.worst_election() + sync * 4 + MARGIN;
        if sync > lease.length / SLOW_DISK {
            return Err(format!(
                "a write to the log took {} ms, more than a tenth of the lease of {} ms: this disk is too slow",
                sync.as_millis(),
                lease.length.as_millis()
            ));
        }
        if needs > lease.patience() {
            return Err(format!(
                "a new leader and a renewal may take {} ms, but the holder of a lease has only {} ms: the death \
                 of control's leader could fence a healthy primary",
                needs.as_millis(),
                lease.patience().as_millis()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_leader_never_costs_a_lease() {
        let short = Lease {
            length: Duration::from_secs(2),
            renew: Duration::from_millis(333),
            fence_before: Duration::from_millis(500),
        };
        for lease in [LEASE, short] {
            let timing = Timing::for_lease(lease);
            assert_eq!(timing.check(lease, Duration::ZERO), Ok(()), "{timing:?}");
            assert!(timing.heartbeat * 3 < timing.election_min, "{timing:?}");
            assert!(timing.check(lease, lease.length / 9).unwrap_err().contains("too slow"));
        }
    }
}
