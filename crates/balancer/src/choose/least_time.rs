//! The server that answers soonest: a moving average of the time to its first byte, times the requests under way
//! there.
//!
//! The average jumps up to a time that is longer and falls slowly, so that a server in trouble is avoided at once
//! ("peak EWMA", as Finagle and Linkerd have it). It falls while nothing is sent there, so that the server is tried
//! again and nobody starves.

use std::sync::atomic::{AtomicU64, Ordering};

/// In this time what was seen falls to 1/e of its influence.
const MEMORY_MS: f32 = 10_000.0;

/// Shorter averages count as this, in microseconds: a server of which nothing is known is not free of cost.
const SHORTEST_US: f32 = 100.0;

/// The average of one server, written by all threads without a lock: now and then one overwrites another, which
/// costs a sample and nothing else.
#[derive(Debug, Default)]
pub struct PeakTime(AtomicU64);

impl PeakTime {
    /// An answer began after this time. `now_ms` may wrap around.
    pub fn observe(&self, sample_us: f32, now_ms: u32) {
        let (average, then) = self.get();
        let kept = kept(then, now_ms);
        let new =
            if sample_us > average * kept { sample_us } else { average * kept + sample_us * (1.0 - kept) };
        self.0.store(u64::from(now_ms) << 32 | u64::from(new.to_bits()), Ordering::Relaxed);
    }

    /// What one more request would cost there.
    pub fn cost(&self, outstanding: u32, weight: u32, now_ms: u32) -> f64 {
        let (average, then) = self.get();
        let expected = (average * kept(then, now_ms)).max(SHORTEST_US);
        f64::from(expected) * (f64::from(outstanding) + 1.0) / f64::from(weight)
    }

    fn get(&self) -> (f32, u32) {
        let both = self.0.load(Ordering::Relaxed);
        (f32::from_bits(both as u32), (both >> 32) as u32)
    }
}

/// The part of an average that is left. A time before the last one (threads differ a little) counts as the same.
fn kept(then: u32, now: u32) -> f32 {
    let passed = now.wrapping_sub(then) as i32;
    (-(passed.max(0) as f32) / MEMORY_MS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::least_connections::least;
    use crate::choose::round_robin::RoundRobin;

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let time = PeakTime::default();
        time.observe(1_000.0, 10);
        time.observe(50_000.0, 20);
        assert!(time.cost(0, 1, 20) >= 50_000.0);
        time.observe(1_000.0, 30);
        assert!(time.cost(0, 1, 30) > 45_000.0);
        assert!(time.cost(0, 1, 60_000) < 1_000.0);
        assert_eq!(time.cost(1, 1, 60_000), 2.0 * time.cost(0, 1, 60_000));
    }

    #[test]
    fn the_clock_may_wrap_around() {
        let time = PeakTime::default();
        time.observe(1_000.0, u32::MAX - 10);
        assert!(time.cost(0, 1, 10) > 900.0);
    }

    proptest::proptest! {
        /// One request at a time, a twentieth of a second apart, to servers of fixed speed.
        #[test]
        fn the_fastest_gets_the_most_and_none_starves(
            slower in proptest::collection::vec(2u32..50, 1..5),
        ) {
            let speeds: Vec<f32> = std::iter::once(1).chain(slower).map(|ms| ms as f32 * 1_000.0).collect();
            let times: Vec<PeakTime> = speeds.iter().map(|_| PeakTime::default()).collect();
            let (mut turns, mut counts) = (RoundRobin::new(speeds.len()), vec![0; speeds.len()]);
            for now in (0..120_000).step_by(50) {
                let servers = (0..speeds.len()).map(|index| (index, 1));
                let cost = |index: usize, weight| times[index].cost(0, weight, now);
                let chosen = least(&mut turns, servers, cost).unwrap();
                counts[chosen] += 1;
                times[chosen].observe(speeds[chosen], now);
            }
            proptest::prop_assert!(counts.iter().skip(1).all(|count| *count < counts[0]), "{:?}", counts);
            proptest::prop_assert!(counts.iter().all(|count| *count > 1), "{:?}", counts);
        }
    }
}
