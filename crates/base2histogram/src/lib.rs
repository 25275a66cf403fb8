//! A histogram in powers of two: what openraft asks of the crate of this name, of which this is no copy.
//!
//! Openraft counts the sizes of its batches in histograms, whether or not anybody asks for them. The crate that it
//! names builds tables for sixteen resolutions when the first one is made, 26 MB of memory that stay in each control
//! server, of which it uses the third, 2 kB. Here a value falls into the bucket of its highest bit, and a percentile
//! is known up to a factor of two, which is enough for what nobody looks at but in a debugger. The workspace puts this
//! in the place of the other (`[patch.crates-io]`); without it everything works as well, in more memory.

use std::fmt;
use std::marker::PhantomData;

/// One for zero, one for each bit.
const BUCKETS: usize = u64::BITS as usize + 1;

/// The parameter is that of the other crate, for data of slots, which nobody uses here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    slots: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], slots: PhantomData }
    }

    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = u64::BITS - value.leading_zeros();
        self.counts[bucket as usize] += count;
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The largest value of the bucket in which this part of all values is reached; zero when there is none.
    pub fn percentile(&self, part: f64) -> u64 {
        let total = self.total();
        let wanted = ((total as f64 * part).ceil() as u64).clamp(1, total.max(1));
        let mut reached = 0;
        let bucket = self.counts.iter().position(|count| {
            reached += count;
            reached >= wanted
        });
        bucket.map_or(0, largest)
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

fn largest(bucket: usize) -> u64 {
    u64::MAX.checked_shr(u64::BITS - bucket as u32).unwrap_or(0)
}

/// Each is an upper bound, at most twice the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p1, p50, p99, .. } = self;
        write!(f, "{samples} samples, P1 {p1}, P50 {p50}, P99 {p99}")
    }
}

/// Named histograms, a line for each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> Self {
        self.lines.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_right_up_to_a_factor_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        (1..=1000).for_each(|value| histogram.record(value));
        assert_eq!(histogram.total(), 1000);
        for (part, truth) in [(0.001, 1), (0.5, 500), (0.9, 900), (0.999, 999)] {
            let told = histogram.percentile(part);
            assert!((truth..truth * 2 + 1).contains(&told), "{part}: {told}");
        }
    }

    #[test]
    fn every_value_has_a_bucket() {
        for value in [0, 1, 2, 1 << 40, u64::MAX] {
            let mut histogram = Histogram::<()>::new();
            histogram.record(value);
            assert!(histogram.percentile(1.0) >= value);
        }
    }
}
