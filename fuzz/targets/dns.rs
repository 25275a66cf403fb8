//! Any bytes as a DNS query: never more than fits, never an answer to an answer, and another parser can read it.
#![no_main]

#[allow(dead_code)] // the tests of `dns` use more of it
#[path = "../../crates/dns/tests/all/zone.rs"]
mod zone;

use std::sync::LazyLock;

use dns::{Snapshot, Transport, Verdict, answer};

static ZONE: LazyLock<Snapshot> = LazyLock::new(|| Snapshot::compile(&zone::big()).expect("a valid zone"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let is_query = bytes.len() >= 12 && bytes[2] & 0x80 == 0;
    for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        let mut out = Vec::new();
        let verdict = answer(&ZONE, bytes, transport, bytes.len(), &mut out);
        assert!(out.len() <= most, "{} bytes", out.len());
        assert_eq!(verdict != Verdict::Dropped, is_query);
        assert_eq!(out.is_empty(), !is_query);
        if is_query {
            assert_eq!(out[..2], bytes[..2], "the query's own number");
            out[..2].copy_from_slice(&0x1234u16.to_be_bytes());
            zone::show(&out);
        }
    }
});
