//! How long things took, counted in buckets whose width grows with the time: 8 for each power of two, so that a
//! quantile is at most an eighth too high. Written by one thread without a lock; readers add the threads up.

use std::time::Duration;

use crate::counters::Count;

const PART_BITS: u32 = 3;
const PARTS: usize = 1 << PART_BITS;

/// Longer than this, more than two hours, is counted as this.
const MOST_US: u64 = (1 << 33) - 1;

const BUCKETS: usize = (33 - PART_BITS as usize + 1) * PARTS;

#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [Count; BUCKETS],
    sum_us: Count,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Count::default()), sum_us: Count::default() }
    }
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        let us = (took.as_micros() as u64).min(MOST_US);
        self.buckets[bucket(us)].add(1);
        self.sum_us.add(us);
    }
}

fn bucket(us: u64) -> usize {
    if us < PARTS as u64 {
        return us as usize;
    }
    let power = us.ilog2() - PART_BITS;
    (power as usize + 1) * PARTS + (us >> power) as usize % PARTS
}

/// The longest time that is counted in a bucket.
fn most_us(bucket: usize) -> u64 {
    let (power, part) = (bucket / PARTS, (bucket % PARTS) as u64);
    match power {
        0 => part,
        _ => ((part + PARTS as u64 + 1) << (power - 1)) - 1,
    }
}

/// What several histograms of the same thing counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub count: u64,
    pub sum_us: u64,
    /// The buckets that are not empty, the shortest first: the longest time in one, and how many.
    pub buckets: Vec<(u64, u64)>,
}

impl Times {
    pub(crate) fn of<'a>(histograms: impl Iterator<Item = &'a Histogram> + Clone) -> Self {
        let count = |bucket: usize| histograms.clone().map(|one| one.buckets[bucket].get()).sum::<u64>();
        let buckets: Vec<_> = (0..BUCKETS)
            .map(|bucket| (most_us(bucket), count(bucket)))
            .filter(|(_, count)| *count > 0)
            .collect();
        Self {
            count: buckets.iter().map(|(_, count)| count).sum(),
            sum_us: histograms.clone().map(|one| one.sum_us.get()).sum(),
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_several_threads_are_one() {
        let threads = [Histogram::default(), Histogram::default()];
        for (thread, us) in [(0, 3), (1, 3), (0, 1_000), (1, u64::MAX / 2_000)] {
            threads[thread].record(Duration::from_micros(us));
        }
        let times = Times::of(threads.iter());
        assert_eq!((times.count, times.sum_us), (4, 3 + 3 + 1_000 + MOST_US));
        assert_eq!(times.buckets, [(3, 2), (1_023, 1), (MOST_US, 1)]);
    }

    proptest::proptest! {
        #[test]
        fn a_bucket_is_an_eighth_wide(us in 0..MOST_US) {
            let (here, most) = (bucket(us), most_us(bucket(us)));
            proptest::prop_assert!(us <= most && (most - us) * 8 <= us.max(1));
            proptest::prop_assert!(here == 0 || us > most_us(here - 1));
        }
    }
}
