//! What `limits`, `rate-limit` and `queue` mean: how much the balancer takes, and how long a request waits.

use serde::{Deserialize, Serialize};

/// Sizes and counts. None: the engine's own limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Connections of clients; more wait in the backlog.
    pub connections: Option<u32>,
    /// The head of a request; a longer one is answered with 431.
    pub header_bytes: Option<u64>,
    /// The body of a request; a longer one is answered with 413.
    pub body_bytes: Option<u64>,
}

/// How many requests one client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    pub requests: u32,
    pub per_ms: u64,
    /// So many at once, when it was quiet before.
    pub burst: u32,
}

/// Where requests wait while all servers have as many as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    pub length: u32,
    pub timeout_ms: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { length: 1_000, timeout_ms: 5_000 }
    }
}
