//! How many requests one client may send: a bucket for each address, filled by time (GCRA, ITU-T I.371: one number
//! for each client, the time at which its bucket is full again).
//!
//! The table has a fixed size. Where a set of it is full, the client whose bucket is the fullest is forgotten: that
//! costs the least, since a client that is not known begins with a full one. An IPv6 client is its /64, of which it
//! may use every address.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plan::RateLimit;

/// Clients that are remembered: 65,536, in 2 MiB.
const SETS: usize = 4_096;
const WAYS: usize = 16;

/// See the head of this file. Shared by all threads.
#[derive(Debug)]
pub struct Rates {
    /// What one request takes.
    each: Duration,
    /// What may be taken in advance.
    ahead: Duration,
    began: Instant,
    /// With a start of its own in each process: nobody can choose addresses that meet in one set.
    hasher: RandomState,
    sets: Arc<[Mutex<[Client; WAYS]>]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    address: u128,
    /// Since the beginning; 0: nobody is here.
    full_at: Duration,
}

impl Rates {
    pub fn new(limit: &RateLimit, now: Instant) -> Self {
        Self {
            each: each(limit),
            ahead: ahead(limit),
            began: now,
            hasher: RandomState::new(),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Another limit for the same clients: what they have taken stays taken.
    pub fn changed(&self, limit: &RateLimit) -> Self {
        Self {
            each: each(limit),
            ahead: ahead(limit),
            hasher: self.hasher.clone(),
            sets: Arc::clone(&self.sets),
            ..*self
        }
    }

    /// Lets a request pass, or says in how many seconds one will.
    pub fn admit(&self, client: IpAddr, now: Instant) -> Result<(), u64> {
        let address = number(client);
        let now = now.saturating_duration_since(self.began);
        let set = self.hasher.hash_one(address) as usize % SETS;
        let mut set = self.sets[set].lock().unwrap_or_else(PoisonError::into_inner);
        let known = set.iter().position(|entry| entry.address == address);
        let place = known.unwrap_or_else(|| {
            let fullest = (0..WAYS).min_by_key(|place| set[*place].full_at).unwrap_or(0);
            set[fullest] = Client { address, full_at: Duration::ZERO };
            fullest
        });
        let full_at = set[place].full_at.max(now);
        match (full_at - now).checked_sub(self.ahead) {
            Some(wait) if !wait.is_zero() => Err(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            _ => {
                set[place].full_at = full_at + self.each;
                Ok(())
            }
        }
    }
}

fn each(limit: &RateLimit) -> Duration {
    Duration::from_millis(limit.per_ms) / limit.requests.max(1)
}

fn ahead(limit: &RateLimit) -> Duration {
    each(limit) * limit.burst.saturating_sub(1)
}

fn number(client: IpAddr) -> u128 {
    match client.to_canonical() {
        // With a mark, so that no IPv6 network is the same.
        IpAddr::V4(address) => u128::from(address.to_bits()) | 1 << 48,
        IpAddr::V6(address) => address.to_bits() & !u128::from(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(requests: u32, per_ms: u64, burst: u32) -> (Rates, Instant) {
        let now = Instant::now();
        (Rates::new(&RateLimit { requests, per_ms, burst }, now), now)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let (rates, now) = rates(10, 1_000, 3);
        let client = address("192.0.2.1");
        let passed =
            |at| (0..9).take_while(|_| rates.admit(client, now + Duration::from_millis(at)).is_ok()).count();
        assert_eq!(passed(0), 3);
        assert_eq!(passed(99), 0);
        assert_eq!(passed(100), 1);
        assert_eq!(passed(5_000), 3);
        assert_eq!(rates.admit(address("192.0.2.2"), now), Ok(()));
    }

    #[test]
    fn whoever_waits_is_told_how_long() {
        let (rates, now) = rates(1, 60_000, 1);
        let client = address("2001:db8::1");
        assert_eq!(rates.admit(client, now), Ok(()));
        assert_eq!(rates.admit(client, now + Duration::from_millis(500)), Err(60));
        assert_eq!(
            rates.admit(address("2001:db8::2"), now + Duration::from_secs(59)),
            Err(1),
            "one /64 is one client"
        );
        assert_eq!(rates.admit(address("2001:db8:0:1::1"), now), Ok(()));
    }

    #[test]
    fn many_clients_do_not_grow_it_and_the_busy_are_remembered() {
        let (rates, now) = rates(1, 3_600_000, 100);
        let busy = address("192.0.2.1");
        (0..100).for_each(|_| assert_eq!(rates.admit(busy, now), Ok(())));
        for number in 0..200_000u32 {
            let client = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
            assert_eq!(rates.admit(client, now), Ok(()));
        }
        assert!(rates.admit(busy, now).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            burst in 1u32..20, gaps in proptest::collection::vec(0u64..300, 1..200),
        ) {
            let (rates, start) = rates(10, 1_000, burst);
            let (mut at, mut passed) = (0, 0);
            for gap in gaps {
                at += gap;
                let now = start + Duration::from_millis(at);
                passed += u64::from(rates.admit(address("192.0.2.1"), now).is_ok());
                proptest::prop_assert!(passed <= u64::from(burst) + at / 100);
            }
        }
    }
}
