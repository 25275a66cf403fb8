//! The server that answers soonest: a moving average of the time to its first byte, times the requests under way
//! there.
//!
//! The average jumps up to a time that is longer and falls slowly, so that a server in trouble is avoided at once
//! ("peak EWMA", as Finagle and Linkerd have it). It falls while nothing is sent there, so that the server is tried
//! again and nobody starves. A server that is asked and does not answer shows no times: for how long it has been
//! silent counts then. One that fails is not taken for a fast one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// In this time what was seen falls to 1/e of its influence.
const MEMORY_MS: f32 = 10_000.0;

/// Shorter averages count as this, in microseconds: a server of which nothing is known is not free of cost.
const SHORTEST_US: f32 = 100.0;

/// A request that failed counts at least as this, in microseconds.
const FAILED_US: f32 = 250_000.0;

/// What is known of one server, written by all threads without a lock: now and then one overwrites another's average,
/// which costs a sample and nothing else.
#[derive(Debug, Default)]
pub struct PeakTime {
    /// The average, and when it was that.
    average: AtomicU64,
    /// How many requests wait for an answer, and since when none of them has got one.
    silence: AtomicU64,
}

/// One request under way; its end, however it comes, is noted when this is dropped.
#[derive(Debug)]
pub struct Timed<'a> {
    of: &'a PeakTime,
    /// What times are counted from.
    began: Instant,
    sent: Instant,
    answered: bool,
    /// Without an answer it counts at least as this, in microseconds.
    least_us: f32,
}

impl<'a> Timed<'a> {
    pub(super) fn new(of: &'a PeakTime, began: Instant) -> Self {
        let sent = Instant::now();
        of.ask(ms(began, sent));
        Self { of, began, sent, answered: false, least_us: 0.0 }
    }

    /// The answer begins.
    pub fn answered(mut self) {
        self.answered = true;
    }

    /// The server did not answer, and that is its fault.
    pub fn failed(mut self) {
        self.least_us = FAILED_US;
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let took_us = now.saturating_duration_since(self.sent).as_micros() as f32;
        if self.answered {
            self.of.answer(took_us, ms(self.began, now));
        } else {
            self.of.give_up(took_us.max(self.least_us), ms(self.began, now));
        }
    }
}

impl PeakTime {
    /// A request is sent. `now_ms` may wrap around.
    fn ask(&self, now_ms: u32) {
        self.silent(|waiting, since| if waiting == 0 { (1, now_ms) } else { (waiting + 1, since) });
    }

    /// The answer to one began after this time.
    fn answer(&self, sample_us: f32, now_ms: u32) {
        self.silent(|waiting, _| (waiting.saturating_sub(1), now_ms));
        let (average, then) = self.get();
        let kept = kept(then, now_ms);
        let new =
            if sample_us > average * kept { sample_us } else { average * kept + sample_us * (1.0 - kept) };
        self.average.store(pack(new.to_bits(), now_ms), Ordering::Relaxed);
    }

    /// One ended without an answer after this time, and an answer would have taken longer.
    fn give_up(&self, waited_us: f32, now_ms: u32) {
        self.silent(|waiting, since| (waiting.saturating_sub(1), since));
        let (average, then) = self.get();
        if waited_us > average * kept(then, now_ms) {
            self.average.store(pack(waited_us.to_bits(), now_ms), Ordering::Relaxed);
        }
    }

    /// What one more request would cost there.
    pub fn cost(&self, outstanding: u32, weight: u32, now_ms: u32) -> f64 {
        let (average, then) = self.get();
        let silence_us = match unpack(self.silence.load(Ordering::Relaxed)) {
            (0, _) => 0.0,
            (_, since) => passed(since, now_ms) * 1_000.0,
        };
        let expected = (average * kept(then, now_ms)).max(silence_us).max(SHORTEST_US);
        f64::from(expected) * (f64::from(outstanding) + 1.0) / f64::from(weight)
    }

    fn get(&self) -> (f32, u32) {
        let (average, then) = unpack(self.average.load(Ordering::Relaxed));
        (f32::from_bits(average), then)
    }

    fn silent(&self, change: impl Fn(u32, u32) -> (u32, u32)) {
        let next = |both| {
            let (waiting, since) = unpack(both);
            let (waiting, since) = change(waiting, since);
            Some(pack(waiting, since))
        };
        // It never refuses.
        let _ = self.silence.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// Milliseconds from one to the other; they may wrap around.
pub(super) fn ms(began: Instant, at: Instant) -> u32 {
    at.saturating_duration_since(began).as_millis() as u32
}

fn pack(value: u32, at_ms: u32) -> u64 {
    u64::from(at_ms) << 32 | u64::from(value)
}

fn unpack(both: u64) -> (u32, u32) {
    (both as u32, (both >> 32) as u32)
}

/// Milliseconds; a time before the last one (threads differ a little) counts as the same.
fn passed(then: u32, now: u32) -> f32 {
    (now.wrapping_sub(then) as i32).max(0) as f32
}

/// The part of an average that is left.
fn kept(then: u32, now: u32) -> f32 {
    (-passed(then, now) / MEMORY_MS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::least_connections::least;
    use crate::choose::round_robin::RoundRobin;

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let time = PeakTime::default();
        time.answer(1_000.0, 10);
        time.answer(50_000.0, 20);
        assert!(time.cost(0, 1, 20) >= 50_000.0);
        time.answer(1_000.0, 30);
        assert!(time.cost(0, 1, 30) > 45_000.0);
        assert!(time.cost(0, 1, 60_000) < 1_000.0);
        assert_eq!(time.cost(1, 1, 60_000), 2.0 * time.cost(0, 1, 60_000));
    }

    #[test]
    fn the_clock_may_wrap_around() {
        let time = PeakTime::default();
        time.answer(1_000.0, u32::MAX - 10);
        assert!(time.cost(0, 1, 10) > 900.0);
    }

    #[test]
    fn who_is_silent_costs_more_with_every_moment_and_who_fails_is_not_fast() {
        let (hung, well) = (PeakTime::default(), PeakTime::default());
        well.answer(50_000.0, 10);
        hung.ask(10);
        hung.ask(20);
        assert!(hung.cost(2, 1, 30) < well.cost(2, 1, 30), "nobody knows yet");
        assert!(hung.cost(2, 1, 100) > well.cost(2, 1, 100));
        hung.give_up(5_000_000.0, 5_010);
        hung.give_up(5_000_000.0, 5_020);
        assert!(hung.cost(0, 1, 15_000) > well.cost(20, 1, 15_000), "and not soon forgotten");
        // A long answer that has begun is no silence.
        hung.ask(60_000);
        hung.answer(1_000.0, 60_001);
        assert!(hung.cost(1, 1, 90_000) < 10_000.0);
        let failing = PeakTime::default();
        let began = Instant::now();
        Timed::new(&failing, began).failed();
        assert!(failing.cost(0, 1, ms(began, Instant::now())) > 200_000.0);
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
                times[chosen].answer(speeds[chosen], now);
            }
            proptest::prop_assert!(counts.iter().skip(1).all(|count| *count < counts[0]), "{:?}", counts);
            proptest::prop_assert!(counts.iter().all(|count| *count > 1), "{:?}", counts);
        }
    }
}
