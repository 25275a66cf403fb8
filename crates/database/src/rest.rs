//! How long to rest after a failure before the next try.

use std::time::{Duration, Instant};

use crate::failover::Trouble;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15);

/// What went well for this long has its earlier failures forgiven.
const FORGIVEN: Duration = Duration::from_secs(30);

/// Failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    failures: u32,
    last: Option<(String, Instant)>,
}

impl Rest {
    /// The first failure after a good time is tried again at once: a postgres that was killed is back soonest.
    pub(crate) fn failed(&mut self, what: String, now: Instant) {
        if self.last.as_ref().is_some_and(|(_, at)| now.duration_since(*at) > FORGIVEN) {
            self.failures = 0;
        }
        self.failures += 1;
        self.last = Some((what, now));
    }

    pub(crate) fn went_well(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn trouble(&self, now: Instant) -> Option<Trouble> {
        let (what, at) = self.last.as_ref()?;
        let retry_in = (*at + self.pause()).saturating_duration_since(now);
        Some(Trouble { what: what.clone(), retry_in })
    }

    fn pause(&self) -> Duration {
        match self.failures {
            0 | 1 => Duration::ZERO,
            more => (FIRST * 2u32.saturating_pow(more.min(16) - 2)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let now = Instant::now();
        let mut rest = Rest::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            rest.failed("x".into(), now);
            pauses.push(rest.trouble(now).unwrap().retry_in.as_millis());
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 15000, 15000]);
        rest.failed("x".into(), now + FORGIVEN * 2);
        assert!(rest.trouble(now + FORGIVEN * 2).unwrap().retry_in.is_zero());
    }
}
