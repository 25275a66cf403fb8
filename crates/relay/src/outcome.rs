//! What became of one exchange: all that an access log needs, gathered as it happens.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// See the head of this file. Given to `Handler::ended` once the exchange is over.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub client: SocketAddr,
    /// When the head of the request was complete.
    pub began: Instant,
    /// 0: nothing was answered.
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// The last target that was tried.
    pub target: Option<SocketAddr>,
    /// Targets that were tried, beginning with 1; 0 for an answer of our own.
    pub tries: u32,
    pub reused: bool,
    /// From the beginning until the first byte of the target's answer.
    pub first_byte: Option<Duration>,
    pub total: Duration,
    /// Why it ended before its time, if it did.
    pub cause: Option<Cause>,
}

/// Who ended an exchange before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client went away, or sent a body that is not valid.
    Client,
    /// The client was too slow.
    ClientLate,
    Target,
    TargetLate,
}

impl Outcome {
    pub(crate) fn new(client: SocketAddr, now: Instant) -> Self {
        Self {
            client,
            began: now,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            target: None,
            tries: 0,
            reused: false,
            first_byte: None,
            total: Duration::ZERO,
            cause: None,
        }
    }
}
