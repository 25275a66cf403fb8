//! The lease of the primary: for how long one that is not heard of may still be one.

use std::time::Duration;

/// What a site has that says nothing else.
pub const LEASE_DEFAULT_MS: u64 = 3_000;

/// However long a lease is: a gate that begins leads to nobody before it has seen a renewal.
const RENEW_MAX: Duration = Duration::from_secs(1);

/// Of a lease and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub length: Duration,
    /// A renewal is due this long after the last one.
    pub renew: Duration,
    /// Its holder begins to end itself this long before it is over: killing 110 processes took up to 131 ms.
    pub fence_before: Duration,
}

impl Lease {
    pub fn of(length: Duration) -> Self {
        Self { length, renew: (length / 6).min(RENEW_MAX), fence_before: length / 4 }
    }

    /// How long no renewal may get through before its holder begins to end itself: the last one may have been
    /// just before, and the next one is only tried at the next turn.
    pub fn patience(self) -> Duration {
        self.length.saturating_sub(self.fence_before + self.renew)
    }
}
