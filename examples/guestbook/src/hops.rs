//! The servers that a request passed, read from its `Via` header (RFC 9110 section 7.6.3).
//!
//! Only names are taken. What a client wrote there is shown to that client alone, escaped like any text.

use axum::http::{HeaderMap, header};

/// More than the path has; what goes beyond is not shown.
const HOPS_LIMIT: usize = 8;

/// The names in `Via`, first hop first, and the application server, which started us, last.
pub(crate) fn passed(headers: &HeaderMap, server: Option<&str>) -> Vec<String> {
    let lines = headers.get_all(header::VIA).iter().filter_map(|line| line.to_str().ok());
    let mut hops: Vec<String> =
        lines.flat_map(|line| line.split(',')).filter_map(name).take(HOPS_LIMIT).map(str::to_owned).collect();
    if let Some(server) = server.filter(|server| hops.last().is_none_or(|last| last != server)) {
        hops.push(server.to_owned());
    }
    hops
}

/// `1.1 web-2 (a comment)` is `web-2`.
fn name(hop: &str) -> Option<&str> {
    hop.split_whitespace().nth(1)
}
