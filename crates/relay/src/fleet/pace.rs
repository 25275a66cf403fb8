//! How fast things go with one target: the pause until its next check, and how much of its traffic it gets after it
//! came up. Pure: time and lots are arguments.

use std::time::Duration;

/// Pauses are up to this much shorter or longer, in percent, so that checks of many balancers do not meet.
const JITTER_PERCENT: u64 = 10;

/// What a target gets at first, in percent of its weight.
const FIRST_PERCENT: u64 = 10;

/// `lot`: any 64 bits, other ones each time.
pub fn pause(interval_ms: u64, lot: u64) -> Duration {
    let span = interval_ms * 2 * JITTER_PERCENT / 100 + 1;
    Duration::from_millis(interval_ms - interval_ms * JITTER_PERCENT / 100 + lot % span)
}

/// Percent of its weight, so long after it came up.
pub fn ramp(since_ms: u64, slow_start_ms: u64) -> u32 {
    if since_ms >= slow_start_ms {
        return 100;
    }
    let grown = (100 - FIRST_PERCENT) * since_ms / slow_start_ms;
    (FIRST_PERCENT + grown) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_grow_evenly() {
        let at = |since| ramp(since, 10_000);
        assert_eq!([at(0), at(5_000), at(9_999), at(10_000), at(u64::MAX)], [10, 55, 99, 100, 100]);
        assert_eq!(ramp(0, 0), 100);
    }

    proptest::proptest! {
        #[test]
        fn pauses_stay_near_their_interval(interval in 10u64..100_000, lot in proptest::num::u64::ANY) {
            let pause = pause(interval, lot).as_millis() as u64;
            proptest::prop_assert!(pause * 100 >= interval * 90 && pause * 100 <= interval * 110 + 100);
        }
    }
}
