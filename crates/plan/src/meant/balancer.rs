//! What `[balancer]` means: pools of servers, and how each of them chooses.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{AccessLog, Check, Eject, Limits, Network, Queue, RateLimit, Route, Target, Timeouts};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balancer {
    /// The servers of `[balancer]` itself. Its name is empty.
    #[serde(flatten)]
    pub pool: Pool,
    pub timeouts: Timeouts,
    /// Whether clients see the `Via` of the answer: on `up` only.
    pub shows_via: bool,
    /// Proxies before this balancer: what they say of their clients is believed.
    #[serde(default)]
    pub trusted: Vec<Network>,
    /// Whether connections from them begin with the PROXY protocol.
    #[serde(default)]
    pub proxy_protocol: bool,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
    /// None: requests are not logged.
    #[serde(default)]
    pub access_log: Option<AccessLog>,
    /// The folder of the site's own error pages, relative to the application files.
    #[serde(default)]
    pub error_pages: Option<PathBuf>,
    /// `[pool.NAME]`, which routes lead to.
    #[serde(default)]
    pub pools: Vec<Pool>,
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// Servers that do the same, and how one of them is chosen for a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    #[serde(default)]
    pub name: String,
    pub algorithm: Algorithm,
    /// The header or cookie that `header-hash` or `cookie-hash` goes by.
    #[serde(default)]
    pub hash_by: Option<String>,
    pub mode: Mode,
    #[serde(default)]
    pub sticky: Option<Sticky>,
    pub servers: Vec<Target>,
    pub check: Check,
    #[serde(default)]
    pub eject: Eject,
    /// How long the traffic of a server that came up grows until it is all of its part. 0: it is at once.
    #[serde(default)]
    pub slow_start_ms: u64,
    #[serde(default)]
    pub queue: Queue,
    /// Servers that one request may be sent to after the first. None: as many as the balancer thinks right.
    #[serde(default)]
    pub retries: Option<u32>,
    /// How often the names of servers are asked for again.
    #[serde(default = "resolve_ms")]
    pub resolve_ms: u64,
}

/// Unless the file says otherwise.
pub const RESOLVE_MS: u64 = 10_000;

fn resolve_ms() -> u64 {
    RESOLVE_MS
}

/// How the next server is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Each in turn, by weight.
    RoundRobin,
    /// The one with the fewest requests under way, by weight.
    LeastConnections,
    /// The less busy of two that are drawn by lot.
    RandomTwo,
    /// The one that answers soonest: the time to its first byte, times the requests under way.
    LeastTime,
    /// The first in the order of the file that may take one more connection.
    First,
    /// The same for the same address of a client.
    SourceHash,
    /// The same for the same path.
    UriHash,
    /// The same for the same value of a header.
    HeaderHash,
    /// The same for the same value of a cookie.
    CookieHash,
}

impl Algorithm {
    pub const ALL: [(&'static str, Algorithm); 9] = [
        ("round-robin", Algorithm::RoundRobin),
        ("least-connections", Algorithm::LeastConnections),
        ("random-two", Algorithm::RandomTwo),
        ("least-time", Algorithm::LeastTime),
        ("first", Algorithm::First),
        ("source-hash", Algorithm::SourceHash),
        ("uri-hash", Algorithm::UriHash),
        ("header-hash", Algorithm::HeaderHash),
        ("cookie-hash", Algorithm::CookieHash),
    ];

    /// As the site file writes it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All healthy servers take traffic, backups only when none of the others is left.
    ActiveActive,
    /// The first healthy server takes all traffic.
    ActivePassive,
}

/// A client comes back to the server that it met first, as long as that one is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    /// The name of the cookie that says which one it was.
    pub cookie: String,
}
