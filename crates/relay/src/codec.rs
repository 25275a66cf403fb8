//! HTTP/1.1 as bytes and meaning (RFC 9110, RFC 9112), without sockets and without a clock.
//!
//! Strict wherever two readers of the same bytes could disagree on where a message ends: such a message is
//! refused, never repaired. Everything here can be fed byte by byte and gives the same result.

pub mod body;
pub mod chunked;
pub mod date;
pub mod fields;
pub mod proxy;
pub mod request;
pub mod response;
pub mod scan;
pub mod target;
pub(crate) mod text;
pub mod write;
