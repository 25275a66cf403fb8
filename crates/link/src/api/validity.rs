//! How long certificates are good, and when they are renewed: by themselves, long before they end. No clock is read here.

use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Certificates are good for this long. A machine that keeps no authority and was away for longer needs a token.
const LIFETIME: Duration = DAY.saturating_mul(90);

/// For tests, which have no months.
const VARIABLE: &str = "DOLMEN_CERTIFICATE_SECONDS";

/// They begin to be good so long before they are made, so that clocks need not agree on the hour.
const BEFORE: Duration = DAY;

/// Certificates of earlier versions, which did not end, are good for longer than this.
const ENDLESS: Duration = DAY.saturating_mul(400);

pub(super) fn lifetime() -> Duration {
    let asked = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    asked.map_or(LIFETIME, Duration::from_secs)
}

/// From when until when a certificate is good, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub begins_s: u64,
    pub ends_s: u64,
}

/// What is to be done about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing for this long.
    Nothing(Duration),
    /// A third of its time is over.
    Renewal,
    /// It ended so long ago.
    Ended(Duration),
}

impl Validity {
    pub(super) fn of(lifetime: Duration, now_s: u64) -> Self {
        Self { begins_s: now_s.saturating_sub(BEFORE.as_secs()), ends_s: now_s + lifetime.as_secs() }
    }

    pub fn due(self, now_s: u64) -> Due {
        let Self { begins_s, ends_s } = self;
        if now_s >= ends_s {
            return Due::Ended(Duration::from_secs(now_s - ends_s));
        }
        let lifetime_s = ends_s.saturating_sub(begins_s + BEFORE.as_secs());
        let renewal_s = ends_s - lifetime_s / 3 * 2;
        if now_s >= renewal_s || ends_s - now_s > ENDLESS.as_secs() {
            return Due::Renewal;
        }
        Due::Nothing(Duration::from_secs(renewal_s - now_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_renewed_when_a_third_of_its_time_is_over() {
        let (made_s, day_s) = (1_800_000_000, DAY.as_secs());
        let validity = Validity::of(LIFETIME, made_s);
        assert!(validity.begins_s + 3600 < made_s, "a clock that is an hour behind reads it");
        assert_eq!(validity.due(made_s), Due::Nothing(DAY * 30));
        assert_eq!(validity.due(made_s + 29 * day_s), Due::Nothing(DAY));
        assert_eq!(validity.due(made_s + 30 * day_s), Due::Renewal);
        assert_eq!(validity.due(made_s + 90 * day_s - 1), Due::Renewal);
        assert_eq!(validity.due(made_s + 91 * day_s), Due::Ended(DAY));
        let endless = Validity { begins_s: 0, ends_s: 67_090_000_000 };
        assert_eq!(endless.due(made_s), Due::Renewal, "of a version that let them last for ever");
    }
}
