//! The formats: Apache's combined, JSON, and a line with HAProxy's timers.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use plan::LogFormat;

use super::escape::{json, quoted};
use super::stamp::Stamp;
use crate::codec::request::RequestHead;
use crate::codec::text::{hex, ip, number};
use crate::outcome::Outcome;

/// What a line is made of.
pub(crate) struct Entry<'a> {
    /// None: what came was no request.
    pub(crate) request: Option<&'a RequestHead>,
    pub(crate) outcome: &'a Outcome,
    pub(crate) began: SystemTime,
    /// Connections of clients that are open at this time.
    pub(crate) open: u64,
}

impl Entry<'_> {
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.request.and_then(|request| request.fields().get(name))
    }

    /// The pool and the server; `-` for what there is none of.
    fn names(&self) -> (&str, &str) {
        let Some(meter) = &self.outcome.meter else { return ("-", "-") };
        match meter.pool() {
            Some(pool) => (name_of(pool.name()), meter.name()),
            None => (name_of(meter.name()), "-"),
        }
    }

    fn cause(&self) -> &'static str {
        self.outcome.cause.map_or("-", |cause| cause.name())
    }
}

/// The balancer's own servers are a pool without a name.
fn name_of(pool: &str) -> &str {
    if pool.is_empty() { "-" } else { pool }
}

pub(super) fn write(
    format: LogFormat,
    out: &mut Vec<u8>,
    server: &str,
    entry: &Entry<'_>,
    stamp: &mut Stamp,
) {
    match format {
        LogFormat::Combined => combined(out, entry, stamp),
        LogFormat::Json => as_json(out, server, entry, stamp),
        LogFormat::Timers => timers(out, server, entry, stamp),
    }
    out.push(b'\n');
}

/// Says that lines are missing here.
pub(super) fn write_dropped(format: LogFormat, out: &mut Vec<u8>, dropped: u64, stamp: &mut Stamp) {
    let now = SystemTime::now();
    let text = match format {
        LogFormat::Json => {
            let (date, ms) = stamp.iso(now);
            format!("{{\"time\":\"{date}.{ms:03}Z\",\"dropped\":{dropped}}}\n")
        }
        LogFormat::Combined | LogFormat::Timers => {
            format!("# {} +0000: {dropped} lines are missing here\n", stamp.clf(now).0)
        }
    };
    out.extend_from_slice(text.as_bytes());
}

/// `ADDRESS - - [TIME] "REQUEST" STATUS BODY-BYTES "REFERER" "USER-AGENT"`, as nginx and Apache write it.
fn combined(out: &mut Vec<u8>, entry: &Entry<'_>, stamp: &mut Stamp) {
    let outcome = entry.outcome;
    ip(out, outcome.client.ip());
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(stamp.clf(entry.began).0.as_bytes());
    out.extend_from_slice(b" +0000] ");
    request_line(out, entry, b"-");
    status(out, outcome.status);
    number(out, outcome.bytes_out.saturating_sub(outcome.head_out));
    for name in ["referer", "user-agent"] {
        out.extend_from_slice(b" \"");
        quoted(out, entry.field(name).unwrap_or(b"-"));
        out.push(b'"');
    }
}

/// `ADDRESS:PORT [TIME] BALANCER POOL/SERVER QUEUE/CONNECT/ANSWER/TOTAL STATUS BYTES CAUSE OPEN/RETRIES ID "REQUEST"`,
/// in the order of HAProxy's httplog. Times are milliseconds; -1: it did not come to that.
fn timers(out: &mut Vec<u8>, server: &str, entry: &Entry<'_>, stamp: &mut Stamp) {
    let outcome = entry.outcome;
    address(out, outcome.client);
    let (date, ms) = stamp.clf(entry.began);
    out.extend_from_slice(b" [");
    out.extend_from_slice(date.as_bytes());
    out.push(b'.');
    padded(out, u64::from(ms));
    out.extend_from_slice(b"] ");
    out.extend_from_slice(server.as_bytes());
    let (pool, member) = entry.names();
    for text in [" ", pool, "/", member, " "] {
        out.extend_from_slice(text.as_bytes());
    }
    number(out, outcome.queue.as_millis() as u64);
    for time in [outcome.connect, answer_time(outcome)] {
        out.push(b'/');
        match time {
            Some(time) => number(out, time.as_millis() as u64),
            None => out.extend_from_slice(b"-1"),
        }
    }
    out.push(b'/');
    number(out, outcome.total.as_millis() as u64);
    status(out, outcome.status);
    number(out, outcome.bytes_out);
    out.push(b' ');
    out.extend_from_slice(entry.cause().as_bytes());
    out.push(b' ');
    number(out, entry.open);
    out.push(b'/');
    number(out, u64::from(outcome.tries.saturating_sub(1)));
    out.push(b' ');
    id(out, outcome);
    out.push(b' ');
    request_line(out, entry, b"<BADREQ>");
}

/// How long the server that answered took, beside queue and connection.
fn answer_time(outcome: &Outcome) -> Option<Duration> {
    Some(outcome.answered_in()?.saturating_sub(outcome.connect.unwrap_or_default()))
}

fn as_json(out: &mut Vec<u8>, server: &str, entry: &Entry<'_>, stamp: &mut Stamp) {
    let outcome = entry.outcome;
    let (date, ms) = stamp.iso(entry.began);
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(date.as_bytes());
    out.push(b'.');
    padded(out, u64::from(ms));
    out.extend_from_slice(b"Z\",\"by\":");
    json(out, server.as_bytes());
    out.extend_from_slice(b",\"id\":\"");
    id(out, outcome);
    out.extend_from_slice(b"\",\"client\":\"");
    address(out, outcome.client);
    out.push(b'"');
    let request = entry.request;
    text(out, "method", request.map(|request| request.method().as_bytes()));
    text(out, "host", request.and_then(|request| request.host()).map(str::as_bytes));
    text(out, "target", request.map(|request| request.target().as_bytes()));
    text(out, "version", request.map(|request| version(request).as_bytes()));
    text(out, "referer", entry.field("referer"));
    text(out, "user_agent", entry.field("user-agent"));
    count(out, "status", u64::from(outcome.status));
    count(out, "bytes_in", outcome.bytes_in);
    count(out, "bytes_out", outcome.bytes_out);
    let (pool, member) = entry.names();
    text(out, "pool", (pool != "-").then_some(pool.as_bytes()));
    text(out, "server", (member != "-").then_some(member.as_bytes()));
    count(out, "tries", u64::from(outcome.tries));
    out.extend_from_slice(if outcome.reused { b",\"reused\":true" } else { b",\"reused\":false" });
    time(out, "queue_ms", Some(outcome.queue));
    time(out, "connect_ms", outcome.connect);
    time(out, "answer_ms", answer_time(outcome));
    time(out, "total_ms", Some(outcome.total));
    count(out, "open", entry.open);
    text(out, "cause", outcome.cause.map(|cause| cause.name().as_bytes()));
    if let Some(refusal) = outcome.refusal {
        text(out, "reason", Some(refusal.to_string().as_bytes()));
    }
    out.push(b'}');
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    key(out, name);
    match value {
        Some(value) => json(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

fn count(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    number(out, value);
}

/// Milliseconds with their thousandths.
fn time(out: &mut Vec<u8>, name: &str, value: Option<Duration>) {
    key(out, name);
    let Some(value) = value else { return out.extend_from_slice(b"null") };
    number(out, value.as_millis() as u64);
    out.push(b'.');
    padded(out, value.as_micros() as u64 % 1_000);
}

fn version(request: &RequestHead) -> &'static str {
    if request.is_http_1_0() { "HTTP/1.0" } else { "HTTP/1.1" }
}

/// `"GET /path HTTP/1.1"`.
fn request_line(out: &mut Vec<u8>, entry: &Entry<'_>, none: &[u8]) {
    out.push(b'"');
    match entry.request {
        Some(request) => {
            quoted(out, request.method().as_bytes());
            out.push(b' ');
            quoted(out, request.target().as_bytes());
            out.push(b' ');
            out.extend_from_slice(version(request).as_bytes());
        }
        None => out.extend_from_slice(none),
    }
    out.push(b'"');
}

/// ` 200 `; ` 000 ` when nothing was answered.
fn status(out: &mut Vec<u8>, status: u16) {
    out.push(b' ');
    padded(out, u64::from(status));
    out.push(b' ');
}

fn address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V6(_) => {
            out.push(b'[');
            ip(out, address.ip());
            out.push(b']');
        }
        IpAddr::V4(_) => ip(out, address.ip()),
    }
    out.push(b':');
    number(out, u64::from(address.port()));
}

fn id(out: &mut Vec<u8>, outcome: &Outcome) {
    if let Some(given) = &outcome.given_id {
        return quoted(out, given.as_bytes());
    }
    out.extend_from_slice(&hex(outcome.id));
}

/// Three digits.
fn padded(out: &mut Vec<u8>, value: u64) {
    out.extend([100, 10, 1].map(|place| b'0' + (value / place % 10) as u8));
}
