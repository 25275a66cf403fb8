//! `limits`, `rate-limit` and `queue`: how much is taken, and how long it waits. Part of `[balancer]`.

use crate::meant::{Limits, Queue, RateLimit};
use crate::typed::{Table, Written, or};

pub(crate) const CONNECTIONS_MAX: u64 = 10_000_000;
/// The engine takes no longer head.
const HEADER_BYTES_MAX: u64 = 64 * 1024;
const HEADER_BYTES_MIN: u64 = 256;
const BODY_BYTES_MAX: u64 = 1 << 50;
const REQUESTS_MAX: u64 = 1_000_000;
const PER_MS_MAX: u64 = 86_400_000;
const PER_MS: u64 = 1_000;
const QUEUE_MAX: u64 = 1_000_000;
const QUEUE_MS_MIN: u64 = 10;
const QUEUE_MS_MAX: u64 = 600_000;

pub(crate) fn limits(parent: &mut Table<'_>) -> Limits {
    let table = parent.get("limits").and_then(|item| item.table("[balancer.limits]"));
    let Some(mut table) = table else { return Limits::default() };
    let connections = table.number("connections", 1, CONNECTIONS_MAX).and_then(small);
    let header = table.get("header").and_then(|item| item.bytes(HEADER_BYTES_MIN, HEADER_BYTES_MAX));
    let body = table.get("body").and_then(|item| item.bytes(0, BODY_BYTES_MAX));
    table.close();
    Limits {
        connections,
        header_bytes: header.map(|written| written.value),
        body_bytes: body.map(|written| written.value),
    }
}

pub(crate) fn rate_limit(parent: &mut Table<'_>) -> Option<RateLimit> {
    let mut table = parent.get("rate-limit")?.table("[balancer.rate-limit]")?;
    let requests = table.number("requests", 1, REQUESTS_MAX).and_then(small);
    let per_ms = table.duration_ms("per", 1, PER_MS_MAX);
    let burst = table.number("burst", 1, REQUESTS_MAX).and_then(small);
    table
        .require("requests", "how many one client may send: `rate-limit = { requests = 100, per = \"1s\" }`");
    table.close();
    let requests = requests?;
    Some(RateLimit { requests, per_ms: or(&per_ms, PER_MS), burst: burst.unwrap_or(requests) })
}

pub(crate) fn queue(parent: &mut Table<'_>, title: &str) -> Queue {
    let default = Queue::default();
    let table = parent.get("queue").and_then(|item| item.table(&format!("[{title}.queue]")));
    let Some(mut table) = table else { return default };
    let length = table.number("length", 0, QUEUE_MAX).and_then(small);
    let timeout_ms = table.duration_ms("timeout", QUEUE_MS_MIN, QUEUE_MS_MAX);
    table.close();
    Queue { length: length.unwrap_or(default.length), timeout_ms: or(&timeout_ms, default.timeout_ms) }
}

pub(crate) fn small(written: Written<u64>) -> Option<u32> {
    u32::try_from(written.value).ok()
}
