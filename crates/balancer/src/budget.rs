//! How many requests may be sent a second time: a part of all, so that servers in trouble do not get more of it.
//!
//! Without a limit, two tiers that each try three times send nine requests for one, just when the servers are at
//! their end. Counted by seconds, shared by all threads, and without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Over so many seconds.
const WINDOW_S: usize = 10;

/// Retries for each hundred requests of the window.
const PERCENT: u64 = 20;

/// Retries in the window that are always granted: with few requests a part of them is none.
const FLOOR: u64 = 20;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Budget {
    requests: Seconds,
    retries: Seconds,
}

impl Budget {
    /// A request came, in this second of the balancer's life.
    pub fn request(&self, second: u32) {
        self.requests.add(second);
    }

    /// Whether one may be sent again, which is then counted.
    pub fn retry(&self, second: u32) -> bool {
        let granted = self.retries.sum(second) < FLOOR + self.requests.sum(second) * PERCENT / 100;
        if granted {
            self.retries.add(second);
        }
        granted
    }
}

/// Counts of the last seconds: each number holds its second in the upper half and the count in the lower, so that
/// both change together.
#[derive(Debug, Default)]
struct Seconds([AtomicU64; WINDOW_S]);

impl Seconds {
    fn add(&self, second: u32) {
        let place = &self.0[second as usize % WINDOW_S];
        let now = place.load(Ordering::Relaxed);
        if now >> 32 == u64::from(second) {
            place.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Whoever comes first in a second begins it anew; another thread that comes first as well adds to it.
        let fresh = u64::from(second) << 32 | 1;
        if place.compare_exchange(now, fresh, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            place.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sum(&self, second: u32) -> u64 {
        let is_recent = |then: u64| u64::from(second).saturating_sub(then) < WINDOW_S as u64;
        let places = self.0.iter().map(|place| place.load(Ordering::Relaxed));
        places.filter(|place| is_recent(place >> 32)).map(|place| place & 0xffff_ffff).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(budget: &Budget, second: u32) -> u64 {
        (0..1_000_000).take_while(|_| budget.retry(second)).count() as u64
    }

    #[test]
    fn a_part_of_the_requests_of_the_window_and_a_floor() {
        let budget = Budget::default();
        assert_eq!(granted(&budget, 0), FLOOR);
        for second in 1..5 {
            (0..100).for_each(|_| budget.request(second));
        }
        assert_eq!(granted(&budget, 5), 80);
        // What was spent at first is out of the window by now, and so are requests.
        assert_eq!(granted(&budget, 10), FLOOR);
        (0..50).for_each(|_| budget.request(30));
        assert_eq!(granted(&budget, 31), FLOOR + 10);
    }

    proptest::proptest! {
        #[test]
        fn never_more_than_that(steps in proptest::collection::vec((0u32..3, 0u32..30, 0u32..30), 1..60)) {
            let budget = Budget::default();
            let (mut second, mut requests, mut retries) = (0, Vec::new(), Vec::new());
            for (later, came, wanted) in steps {
                second += later;
                (0..came).for_each(|_| budget.request(second));
                requests.extend((0..came).map(|_| second));
                retries.extend((0..wanted).filter(|_| budget.retry(second)).map(|_| second));
                let recent = |times: &[u32]| times.iter().filter(|time| second - **time < 10).count() as u64;
                // What was granted by requests that have left the window stays granted.
                proptest::prop_assert!(recent(&retries) <= FLOOR + requests.len() as u64 * PERCENT / 100);
            }
        }
    }
}
