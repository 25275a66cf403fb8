//! Strictness from the outside: bytes that two readers could take for different messages, from clients and from
//! servers, over real sockets; what an independent parser makes of them; and the fuzz corpus, replayed.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

#[allow(dead_code)] // other tests use more of it
#[path = "sockets/stage.rs"]
mod stage;

#[allow(dead_code)]
#[path = "../../../fuzz/src/http.rs"]
mod http;

#[path = "strict/cases.rs"]
mod cases;
#[path = "strict/recorder.rs"]
mod recorder;
#[path = "strict/smuggling.rs"]
mod smuggling;
#[path = "strict/hostile_servers.rs"]
mod hostile_servers;
#[path = "strict/streams.rs"]
mod streams;
#[path = "strict/differential.rs"]
mod differential;
#[path = "strict/replay.rs"]
mod replay;
