//! The name server from the outside: by RFC section on bytes, by arbitrary bytes, and over real sockets.
#![allow(clippy::unwrap_used)] // these are all tests; clippy sees that only in test functions

#[path = "all/bytes.rs"]
mod bytes;
#[path = "all/rfc.rs"]
mod rfc;
#[path = "all/server.rs"]
mod server;
#[path = "all/zone.rs"]
mod zone;
#[path = "all/zone_mistakes.rs"]
mod zone_mistakes;
