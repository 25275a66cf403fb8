//! Whether requests that fail have taken one target out of rotation, and for how long. Pure: the time is an argument.
//!
//! Checks ask on a path of their own, now and then; requests see a target that answers checks and fails at all else,
//! and they see it sooner. One that is ejected comes back by itself, on trial: its first failure ejects it again, for
//! twice as long.

use plan::Eject;

/// The first time, and the longest.
const EJECTED_MS: u64 = 1_000;
const EJECTED_MS_MAX: u64 = 60_000;

/// A target that has not been ejected for so long begins again with the shortest time.
const FORGIVEN_MS: u64 = 60_000;

/// What requests saw so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row.
    failures: u32,
    /// Ejections that are not forgiven.
    times: u32,
    /// When it comes back, while it is out.
    until_ms: Option<u64>,
    /// When it came back.
    back_ms: u64,
}

impl Ejection {
    pub fn is_out(&self) -> bool {
        self.until_ms.is_some()
    }

    /// When there is something to do.
    pub fn until_ms(&self) -> Option<u64> {
        self.until_ms
    }

    /// A request failed. Says why when that takes the target out. `room`: whether so many others are in rotation that
    /// it may be.
    pub fn failed(&mut self, rule: &Eject, now_ms: u64, room: bool, text: &str) -> Option<String> {
        self.failures = self.failures.saturating_add(1);
        if self.is_out() || self.failures < rule.failures || !room {
            return None;
        }
        if now_ms.saturating_sub(self.back_ms) >= FORGIVEN_MS {
            self.times = 0;
        }
        let length_ms = EJECTED_MS.saturating_mul(1 << self.times.min(16)).min(EJECTED_MS_MAX);
        self.times += 1;
        self.until_ms = Some(now_ms + length_ms);
        let seconds = length_ms / 1_000;
        Some(match self.times {
            1 => format!(
                "{} requests in a row failed, the last: {text}; ejected for {seconds} s",
                self.failures
            ),
            times => format!("it failed again: {text}; ejected for {seconds} s, time {times} in a row"),
        })
    }

    /// A request was answered.
    pub fn worked(&mut self) {
        self.failures = 0;
    }

    /// Checks have taken the target out as well: from now on they alone say when it is back, and what requests saw of
    /// the same trouble is not held against it.
    pub fn superseded(&mut self) {
        if self.until_ms.take().is_some() {
            self.times -= 1;
        }
        self.failures = 0;
    }

    /// Says that its time is over when it is.
    pub fn due(&mut self, rule: &Eject, now_ms: u64) -> Option<String> {
        let until_ms = self.until_ms.filter(|until_ms| now_ms >= *until_ms)?;
        self.until_ms = None;
        self.back_ms = until_ms;
        self.failures = rule.failures.saturating_sub(1);
        Some("its time out of rotation is over; the next request that fails ejects it again".to_owned())
    }
}

/// Whether one more of `all` may be ejected when `out` are out of rotation already.
pub fn has_room(rule: &Eject, all: usize, out: usize) -> bool {
    (out + 1) * 100 <= all * rule.share as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Eject {
        Eject::default()
    }

    fn eject(ejection: &mut Ejection, now_ms: u64) -> String {
        let mut said = None;
        for _ in 0..rule().failures {
            said = said.or(ejection.failed(&rule(), now_ms, true, "refused"));
        }
        said.unwrap()
    }

    #[test]
    fn failures_in_a_row_eject_and_time_brings_back() {
        let mut ejection = Ejection::default();
        assert_eq!(ejection.failed(&rule(), 0, true, "refused"), None);
        ejection.worked();
        let because = eject(&mut ejection, 5);
        assert_eq!(because, "3 requests in a row failed, the last: refused; ejected for 1 s");
        assert_eq!(ejection.due(&rule(), 1_004), None);
        assert!(ejection.due(&rule(), 1_005).is_some() && !ejection.is_out());
        assert_eq!(ejection.due(&rule(), 1_006), None);
    }

    #[test]
    fn on_trial_one_failure_is_enough_and_the_time_doubles_up_to_a_limit() {
        let mut ejection = Ejection::default();
        let (mut now, mut lengths) = (0, Vec::new());
        eject(&mut ejection, now);
        for _ in 0..8 {
            let until = ejection.until_ms().unwrap();
            lengths.push((until - now) / 1_000);
            now = until;
            ejection.due(&rule(), now).unwrap();
            assert!(ejection.failed(&rule(), now, true, "refused").is_some());
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn it_is_forgiven_after_a_good_while() {
        let mut ejection = Ejection::default();
        eject(&mut ejection, 0);
        ejection.due(&rule(), 1_000).unwrap();
        ejection.worked();
        assert!(eject(&mut ejection, 1_000 + FORGIVEN_MS).ends_with("ejected for 1 s"));
    }

    #[test]
    fn what_checks_see_as_well_is_not_held_against_it() {
        let mut ejection = Ejection::default();
        for now in [0, 10_000] {
            assert!(eject(&mut ejection, now).ends_with("ejected for 1 s"));
            ejection.superseded();
            assert!(!ejection.is_out());
        }
    }

    #[test]
    fn without_room_nobody_is_ejected_until_there_is() {
        let mut ejection = Ejection::default();
        for _ in 0..9 {
            assert_eq!(ejection.failed(&rule(), 0, false, "refused"), None);
        }
        assert!(ejection.failed(&rule(), 0, true, "refused").is_some());
        let rooms: Vec<_> =
            (1..6).map(|all| (0..all).filter(|out| has_room(&rule(), all, *out)).count()).collect();
        assert_eq!(rooms, [0, 1, 1, 2, 2]);
        assert!(!has_room(&Eject { share: 0, ..rule() }, 9, 0));
    }
}
