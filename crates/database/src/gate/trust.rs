//! Until when a gate may go by the record that it has.
//!
//! A sign of life of the holder may be old when it arrives: it waited in a socket while this process or a whole
//! machine stood still, or it took the network long. So the time of its arrival says nothing. What does: control was
//! asked, and did not know that sign yet. Then it was given after that question was sent, and nobody else is made
//! the primary for a lease from there on ([`crate::failover::lease`]); so until then no other one can answer a
//! client. Times are of our own clock since boot, and no clocks are compared.
//!
//! The answers of a server are judged when they have been read, before they are passed on. So whoever is stopped
//! between the two passes on what was true when it was asked for.

use std::time::Duration;

use link::control::ABSENT;

use crate::group::Group;

/// How often control is asked: as often as the holder gives itself time before the end of its lease, so that it is
/// not given up by a gate before it gives up itself; but no gate that begins waits long for its second answer.
pub fn ask_every(lease: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(1);
    plan::Lease::of(lease).fence_before.min(LONGEST)
}

/// The holder's newest sign of life, and what the questions told of when it was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trust {
    /// Of the record in which it was seen first or again.
    version: u64,
    /// Its epoch and its number; `None` while there is no record.
    sign: Option<(u64, u64)>,
    /// When the last question was sent that was answered with this sign.
    known_at: Option<Duration>,
    /// When the last question was sent that was answered without it.
    unknown_at: Option<Duration>,
}

impl Trust {
    /// This version of the record came by the watch. False: it is none that is newer.
    pub fn heard(&mut self, version: u64, group: &Group) -> bool {
        self.take_in(version, Some((group.epoch, group.seq)))
    }

    /// Control was asked at this moment, and answered with what a majority had then. False: it is none that is newer.
    pub fn answered(&mut self, sent: Duration, record: Option<(u64, &Group)>) -> bool {
        let version = record.map_or(ABSENT, |(version, _)| version);
        let sign = record.map(|(_, group)| (group.epoch, group.seq));
        let is_newer = self.take_in(version, sign);
        let at = if sign == self.sign { &mut self.known_at } else { &mut self.unknown_at };
        *at = (*at).max(Some(sent));
        is_newer
    }

    fn take_in(&mut self, version: u64, sign: Option<(u64, u64)>) -> bool {
        if version <= self.version {
            return false;
        }
        if sign != self.sign {
            self.unknown_at = self.unknown_at.max(self.known_at.take());
            self.sign = sign;
        }
        self.version = version;
        true
    }

    /// A version that cannot be read says nothing of anybody.
    pub fn skip(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    /// Which version is known.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Until when a holder with this lease is certainly the only one; `None`: it was not seen to live yet.
    pub fn until(&self, lease: Duration) -> Option<Duration> {
        self.unknown_at.map(|at| at + lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Mode;

    const LEASE: Duration = Duration::from_secs(3);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn group(seq: u64) -> Group {
        Group { epoch: 3, seq, ..Group::create("database-1", "a", Some(1), Mode::Synchronous) }
    }

    #[test]
    fn a_sign_is_as_old_as_the_last_question_that_did_not_know_it() {
        let mut trust = Trust::default();
        assert!(trust.answered(ms(1000), Some((7, &group(5)))));
        assert_eq!(trust.until(LEASE), None, "who knows how old it was then");
        assert!(trust.heard(8, &group(6)));
        assert_eq!(trust.until(LEASE), Some(ms(4000)));
        assert!(!trust.answered(ms(1500), Some((8, &group(6)))));
        assert_eq!(trust.until(LEASE), Some(ms(4000)), "an answer alone is no sign of life");
        assert!(trust.heard(9, &group(7)));
        assert_eq!(trust.until(LEASE), Some(ms(4500)));
        assert!(!trust.answered(ms(1800), Some((8, &group(6)))), "it crossed with the watch");
        assert_eq!(trust.until(LEASE), Some(ms(4800)));
    }

    /// Seed 100035 of the simulation: records that waited in the socket of a machine that stood still.
    #[test]
    fn what_waited_in_a_socket_is_not_fresh() {
        let mut trust = Trust::default();
        trust.answered(ms(1000), Some((7, &group(5))));
        // Nothing runs here for 5.7 s; then all that came meanwhile is read at once.
        for (version, seq) in [(8, 6), (9, 7), (10, 8)] {
            trust.heard(version, &group(seq));
        }
        assert_eq!(trust.until(LEASE), Some(ms(4000)), "over by 2.7 s");
    }

    #[test]
    fn changes_by_others_are_no_signs_of_the_holder() {
        let mut trust = Trust::default();
        trust.answered(ms(1000), Some((7, &group(5))));
        assert!(trust.heard(8, &group(5)), "a vote, for example");
        assert_eq!(trust.until(LEASE), None);
        assert!(!trust.heard(7, &group(4)), "it never goes back");
        assert_eq!(trust.version(), 8);
    }

    #[test]
    fn a_first_record_is_younger_than_its_absence() {
        let mut trust = Trust::default();
        assert!(!trust.answered(ms(1000), None));
        trust.heard(1, &group(1));
        assert_eq!(trust.until(LEASE), Some(ms(4000)));
    }
}
