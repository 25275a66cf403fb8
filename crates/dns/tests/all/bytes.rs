//! Arbitrary bytes: no panic, never more than the limit, never an answer to an answer.

use std::sync::LazyLock;

use dns::{Snapshot, Transport, Verdict, answer};
use proptest::prelude::*;

use crate::zone::{big, query_edns, show};

static ZONE: LazyLock<Snapshot> = LazyLock::new(|| Snapshot::compile(&big()).unwrap());

fn check(bytes: &[u8], turn: usize) {
    let mut out = vec![7; 3];
    let verdict = answer(&ZONE, bytes, Transport::Udp, turn, &mut out);
    assert!(out.len() - 3 <= 1232 && out[..3] == [7; 3]);
    let query = bytes.len() >= 12 && bytes[2] & 0x80 == 0;
    assert_eq!(verdict != Verdict::Dropped, query);
    assert_eq!(out.len() > 3, query);
    let mut over_tcp = Vec::new();
    answer(&ZONE, bytes, Transport::Tcp, turn, &mut over_tcp);
    assert!(over_tcp.len() <= 65_535);
    if query {
        let mut copy = out[3..].to_vec();
        copy[..2].copy_from_slice(&0x1234u16.to_be_bytes());
        show(&copy); // another parser can read it
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_any_kind(bytes in proptest::collection::vec(any::<u8>(), 0..600), turn in any::<usize>()) {
        check(&bytes, turn);
    }

    #[test]
    fn of_a_query_with_some_changed(
        name in "([a-z*]{1,12}\\.){0,4}(wild\\.|sub\\.|many\\.|text\\.|alias\\.|circle1\\.)?foobar\\.com",
        kind in prop_oneof![Just("A"), Just("AAAA"), Just("ANY"), Just("NS"), Just("TXT"), Just("MX"), Just("DS")],
        payload in any::<u16>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        turn in any::<usize>(),
    ) {
        let mut bytes = query_edns(&name, kind, payload, 0, false);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        check(&bytes, turn);
    }
}
