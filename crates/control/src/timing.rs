//! How fast a new leader is there, and whether that is fast enough for a lease that is renewed through it.

use std::time::Duration;

use plan::Lease;

/// A sync of the log that takes a larger part of the lease than this is too slow a disk.
const SLOW_DISK: u32 = 10;

/// The time for messages and disks in an election and in one renewal after it.
const MARGIN: Duration = Duration::from_millis(150);

/// As the database servers wait before one takes over.
const FENCED: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) heartbeat: Duration,
    pub(crate) election_min: Duration,
    pub(crate) election_max: Duration,
    /// After this much time without a majority every holder of the lease is fenced, whatever its clock says.
    pub(crate) fenced_after: Duration,
}

impl Timing {
    /// The longest time without a leader: openraft's followers wait for the greatest election time-out because
    /// the old leader may live, then for their own.
    pub(crate) fn worst_election(self) -> Duration {
        self.election_max * 2
    }

    /// Elections as calm as this lease allows, but not calmer than 250 to 500 ms: with 700 ms five of fifty leaders
    /// that were killed under load were missed for longer than a lease of 3 s allows.
    pub(crate) fn for_lease(lease: Lease) -> Self {
        let election_max = (lease.patience().saturating_sub(MARGIN) / 2).min(Duration::from_millis(500));
        let fenced_after = lease.length + lease.length / 100 + FENCED;
        Self { heartbeat: election_max / 7, election_min: election_max / 2, election_max, fenced_after }
    }

    /// Whether losing the leader can never fence a healthy holder; else why it can.
    pub(crate) fn check(self, lease: Lease, sync: Duration) -> Result<(), String> {
        let needs = self.worst_election() + sync * 4 + MARGIN;
        if sync > lease.length / SLOW_DISK {
            return Err(format!(
                "a write to the log took {} ms, more than a tenth of the lease of {} ms: this disk is too slow for it; \
                 a faster disk helps, or a longer `lease` in [database]",
                sync.as_millis(),
                lease.length.as_millis()
            ));
        }
        if needs > lease.patience() {
            return Err(format!(
                "a new leader and a renewal may take {} ms with this disk ({} ms for a write), but the holder of a lease of \
                 {} ms has only {} ms: the death of control's leader could fence a healthy primary; a faster disk \
                 helps, or a longer `lease` in [database]",
                needs.as_millis(),
                sync.as_millis(),
                lease.length.as_millis(),
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
        for seconds in [2, 3, 10, 60] {
            let lease = Lease::of(Duration::from_secs(seconds));
            let timing = Timing::for_lease(lease);
            assert_eq!(timing.check(lease, Duration::ZERO), Ok(()), "{timing:?}");
            assert!(timing.heartbeat * 3 < timing.election_min, "{timing:?}");
            assert!(timing.check(lease, lease.length / 9).unwrap_err().contains("too slow"));
        }
    }

    #[test]
    fn a_disk_that_is_fast_enough_for_one_lease_is_too_slow_for_a_shorter_one() {
        let check = |seconds| {
            let lease = Lease::of(Duration::from_secs(seconds));
            Timing::for_lease(lease).check(lease, Duration::from_millis(40))
        };
        assert_eq!(check(3), Ok(()));
        assert_eq!(
            check(2).unwrap_err(),
            "a new leader and a renewal may take 1310 ms with this disk (40 ms for a write), but the holder of a lease of \
             2000 ms has only 1166 ms: the death of control's leader could fence a healthy primary; a faster disk \
             helps, or a longer `lease` in [database]"
        );
    }
}
