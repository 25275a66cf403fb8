//! What `check`, `eject` and `slow-start` mean: when a server is in rotation, and with how much of the traffic.

use serde::{Deserialize, Serialize};

/// How a server is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    #[serde(default)]
    pub kind: CheckKind,
    pub path: String,
    #[serde(default = "get")]
    pub method: String,
    /// What `Host` says; None: the server's address.
    #[serde(default)]
    pub host: Option<String>,
    /// Which statuses are good; empty: 200 to 399.
    #[serde(default)]
    pub statuses: Vec<StatusRange>,
    /// A text that the first 64 KiB of the answer must contain.
    #[serde(default)]
    pub body: Option<String>,
    pub interval_ms: u64,
    /// The interval while a server is down, or is about to change.
    #[serde(default = "fast_interval")]
    pub fast_interval_ms: u64,
    pub timeout_ms: u64,
    /// Good answers in a row until a server that was down is up.
    pub rise: u32,
    /// Bad answers in a row until a server that was up is down.
    pub fall: u32,
}

/// While a server is down it should come back soon.
pub(crate) const FAST_INTERVAL_MS: u64 = 250;

fn fast_interval() -> u64 {
    FAST_INTERVAL_MS
}

fn get() -> String {
    "GET".to_owned()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// A request, and an answer as expected.
    #[default]
    Http,
    /// A connection and nothing more. The kernel makes one for a process that is stuck, too.
    Tcp,
}

/// Statuses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

impl Check {
    pub fn expects(&self, status: u16) -> bool {
        match self.statuses.is_empty() {
            true => (200..400).contains(&status),
            false => self.statuses.iter().any(|range| (range.first..=range.last).contains(&status)),
        }
    }
}

/// When requests that fail take a server out of rotation, besides its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eject {
    /// Failures in a row: no connection, a broken one, no first byte in time.
    pub failures: u32,
    /// Whether answers of 500 and above are failures, too.
    pub statuses: bool,
    /// Percent of the servers that may be out of rotation when one more is ejected, itself included. 0: never.
    pub share: u32,
}

impl Default for Eject {
    fn default() -> Self {
        Self { failures: 3, statuses: false, share: 50 }
    }
}
