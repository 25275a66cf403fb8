//! `timeouts`: how long each step of a request may take. Part of `[balancer]`, `[web]` and `[app]`.

use crate::meant::Timeouts;
use crate::typed::{Table, Written, or};

const HEADER_MS: u64 = 10_000;
/// Servers of one site share a network; one that does not answer in this time is lost, and another is tried.
const CONNECT_MS: u64 = 1_000;
const FIRST_BYTE_MS: u64 = 30_000;
const BODY_MS: u64 = 30_000;
const TUNNEL_MS: u64 = 3_600_000;

/// Each tier keeps an idle connection longer than the tier before it, so that it is always the asking side
/// that closes and no request is sent into a connection that is just being closed.
pub(crate) const BALANCER_IDLE_MS: u64 = 60_000;
pub(crate) const WEB_IDLE_MS: u64 = 75_000;
pub(crate) const APP_IDLE_MS: u64 = 90_000;

const LOW_MS: u64 = 10;
const HIGH_MS: u64 = 86_400_000;

#[derive(Clone, Debug, Default)]
pub(crate) struct TimeoutKeys {
    header: Option<Written<u64>>,
    idle: Option<Written<u64>>,
    connect: Option<Written<u64>>,
    first_byte: Option<Written<u64>>,
    body: Option<Written<u64>>,
    tunnel: Option<Written<u64>>,
}

impl TimeoutKeys {
    pub(crate) fn read(parent: &mut Table<'_>, title: &str) -> TimeoutKeys {
        let table = parent.get("timeouts").and_then(|item| item.table(title));
        let Some(mut table) = table else { return TimeoutKeys::default() };
        let keys = TimeoutKeys {
            header: table.duration_ms("header", LOW_MS, HIGH_MS),
            idle: table.duration_ms("idle", LOW_MS, HIGH_MS),
            connect: table.duration_ms("connect", LOW_MS, HIGH_MS),
            first_byte: table.duration_ms("first-byte", LOW_MS, HIGH_MS),
            body: table.duration_ms("body", LOW_MS, HIGH_MS),
            tunnel: table.duration_ms("tunnel", LOW_MS, HIGH_MS),
        };
        table.close();
        keys
    }

    pub(crate) fn mean(&self, idle_ms: u64) -> Timeouts {
        Timeouts {
            header_ms: or(&self.header, HEADER_MS),
            idle_ms: or(&self.idle, idle_ms),
            connect_ms: or(&self.connect, CONNECT_MS),
            first_byte_ms: or(&self.first_byte, FIRST_BYTE_MS),
            body_ms: or(&self.body, BODY_MS),
            tunnel_ms: or(&self.tunnel, TUNNEL_MS),
        }
    }
}
