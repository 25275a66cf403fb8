//! What a balancer counted of its pools and of each server in them, for `status --json` and the monitor.
//!
//! Numbers only grow while the balancer's process lives, but those that say how things are now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most servers of one balancer that are reported; more would not fit into a frame of the link.
pub const SERVERS: usize = 256;

/// Servers that do the same, as their clients see them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTraffic {
    /// Empty for the servers of `[balancer]` itself.
    pub name: String,
    /// Requests that wait for a server now.
    pub queue: u32,
    #[serde(flatten)]
    pub counts: TrafficCounts,
    pub servers: Vec<ServerTraffic>,
    /// Servers that are left out of the report, being too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub servers_left_out: usize,
}

/// One server of a pool, as the balancer sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTraffic {
    pub name: String,
    /// None: its name leads nowhere at the moment.
    pub address: Option<String>,
    pub up: bool,
    /// How often it came or went.
    pub changes: u64,
    /// Requests that it has under way now.
    pub under_way: u32,
    #[serde(flatten)]
    pub counts: TrafficCounts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficCounts {
    /// Of a pool: of clients. Of a server: how often it was asked.
    pub requests: u64,
    /// Of a pool: how often another server was asked for the same request. Of a server: how often it was that one.
    pub retries: u64,
    /// By class: `2xx`. Of a pool as the clients saw them.
    pub answers: BTreeMap<String, u64>,
    /// Why requests ended before their time or were answered by the balancer, in the words of the access log.
    pub ended: BTreeMap<String, u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Of a pool: until the answer was complete. Of a server: until its first byte.
    pub times: TrafficTimes,
}

/// A histogram whose buckets are at most an eighth wide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficTimes {
    pub count: u64,
    pub sum_us: u64,
    /// The longest time that a bucket holds, and how many it counted; empty ones are left out.
    pub buckets: Vec<(u64, u64)>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
