//! What the RFCs ask of an authoritative server, filed by section.

use dns::{Rcode, Snapshot, Transport, Verdict};

use crate::zone::{ask, big, plan, query, query_edns, show};

const SOA: &str =
    "authority foobar.com. 60 IN SOA ns1.foobar.com. host\\.master.foobar.com. 7 86400 7200 3600000 60";

#[track_caller]
fn check(name: &str, kind: &str, expect: &str) {
    let zone = Snapshot::compile(&plan()).unwrap();
    let (_, bytes) = ask(&zone, &query(name, kind), Transport::Udp);
    assert_eq!(show(&bytes), expect.replace("SOA!", SOA), "{name} {kind}");
}

#[track_caller]
fn check_bytes(bytes: &[u8], expect: &str) {
    let zone = Snapshot::compile(&plan()).unwrap();
    let (_, answer) = ask(&zone, bytes, Transport::Udp);
    assert_eq!(show(&answer), expect.replace("SOA!", SOA));
}

#[test]
fn the_site_answers_with_what_the_world_sees_of_the_balancers() {
    check(
        "www.foobar.com",
        "A",
        "NOERROR aa rd\nwww.foobar.com. 60 IN A 127.0.44.1\nwww.foobar.com. 60 IN A 203.0.113.2",
    );
    check("www.foobar.com", "AAAA", "NOERROR aa rd\nwww.foobar.com. 60 IN AAAA 2001:db8::2");
}

#[test]
fn addresses_take_turns_at_the_first_place() {
    let zone = Snapshot::compile(&plan()).unwrap();
    let firsts: Vec<u8> = (0..4)
        .map(|turn| {
            let mut out = Vec::new();
            dns::answer(&zone, &query("www.foobar.com", "A"), Transport::Udp, turn, &mut out);
            // Header, question (16 + 4), pointer and fixed part of the first record, then its address.
            out[12 + 20 + 12]
        })
        .collect();
    assert_eq!(firsts, [127, 203, 127, 203]);
}

#[test]
fn rfc1034_4_3_2_name_servers_with_their_addresses() {
    check(
        "foobar.com",
        "NS",
        "NOERROR aa rd\nfoobar.com. 60 IN NS ns1.foobar.com.\nfoobar.com. 60 IN NS ns2.foobar.com.\n\
         additional ns1.foobar.com. 60 IN A 127.0.44.1\nadditional ns2.foobar.com. 60 IN A 203.0.113.2\n\
         additional ns2.foobar.com. 60 IN AAAA 2001:db8::2",
    );
    check("ns1.foobar.com", "A", "NOERROR aa rd\nns1.foobar.com. 60 IN A 127.0.44.1");
}

#[test]
fn rfc1035_3_3_13_the_zone_itself_has_its_soa() {
    check("foobar.com", "SOA", &SOA.replace("authority ", "NOERROR aa rd\n"));
}

#[test]
fn rfc1035_5_1_extra_records_relative_and_absolute() {
    check(
        "foobar.com",
        "MX",
        "NOERROR aa rd\nfoobar.com. 300 IN MX 10 mail.foobar.com.\nadditional mail.foobar.com. 300 IN A 192.0.2.25",
    );
    check(
        "_sip._tcp.foobar.com",
        "SRV",
        "NOERROR aa rd\n_sip._tcp.foobar.com. 300 IN SRV 1 2 5060 mail.foobar.com\n\
         additional mail.foobar.com. 300 IN A 192.0.2.25",
    );
    check("foobar.com", "TXT", "NOERROR aa rd\nfoobar.com. 300 IN TXT \"v=spf1 mx -all\"");
}

#[test]
fn rfc1034_3_6_2_aliases_are_followed_within_the_zone() {
    let site = "www.foobar.com. 60 IN A 127.0.44.1\nwww.foobar.com. 60 IN A 203.0.113.2";
    check(
        "alias.foobar.com",
        "A",
        &format!("NOERROR aa rd\nalias.foobar.com. 300 IN CNAME www.foobar.com.\n{site}"),
    );
    check(
        "alias2.foobar.com",
        "A",
        &format!(
            "NOERROR aa rd\nalias2.foobar.com. 300 IN CNAME alias.foobar.com.\n\
             alias.foobar.com. 300 IN CNAME www.foobar.com.\n{site}"
        ),
    );
    check("alias.foobar.com", "CNAME", "NOERROR aa rd\nalias.foobar.com. 300 IN CNAME www.foobar.com.");
    check("out.foobar.com", "A", "NOERROR aa rd\nout.foobar.com. 300 IN CNAME elsewhere.example.");
    check("alias.foobar.com", "MX", "NOERROR aa rd\nalias.foobar.com. 300 IN CNAME www.foobar.com.\nSOA!");
}

#[test]
fn a_circle_of_aliases_ends() {
    let zone = Snapshot::compile(&plan()).unwrap();
    let (verdict, bytes) = ask(&zone, &query("circle1.foobar.com", "A"), Transport::Udp);
    assert_eq!(verdict, Verdict::Answered { rcode: Rcode::NoError, truncated: false });
    assert_eq!(show(&bytes).lines().count(), 1 + 9);
}

#[test]
fn rfc6604_2_the_code_is_that_of_the_last_alias() {
    check(
        "dangling.foobar.com",
        "A",
        "NXDOMAIN aa rd\ndangling.foobar.com. 300 IN CNAME nothing.here.foobar.com.\nSOA!",
    );
}

#[test]
fn rfc2308_2_1_a_name_that_is_not_there() {
    check("nobody.foobar.com", "A", "NXDOMAIN aa rd\nSOA!");
    check("below.www.foobar.com", "A", "NXDOMAIN aa rd\nSOA!");
}

#[test]
fn rfc2308_2_2_a_type_that_is_not_there() {
    check("www.foobar.com", "MX", "NOERROR aa rd\nSOA!");
}

#[test]
fn rfc2308_3_a_negative_answer_is_kept_for_a_short_time() {
    let mut plan = plan();
    plan.dns.as_mut().unwrap().ttl_s = 86_400;
    let zone = Snapshot::compile(&plan).unwrap();
    let (_, bytes) = ask(&zone, &query("nobody.foobar.com", "A"), Transport::Udp);
    assert!(show(&bytes).contains("foobar.com. 300 IN SOA"), "{}", show(&bytes));
    assert!(show(&bytes).ends_with(" 300"));
}

#[test]
fn rfc8020_2_an_empty_name_with_names_below_it_exists() {
    check("c.foobar.com", "A", "NOERROR aa rd\nSOA!");
    check("b.c.foobar.com", "A", "NOERROR aa rd\nSOA!");
    check("x.c.foobar.com", "A", "NXDOMAIN aa rd\nSOA!");
}

#[test]
fn rfc4592_2_2_1_wildcards() {
    check("any.wild.foobar.com", "A", "NOERROR aa rd\nany.wild.foobar.com. 300 IN A 192.0.2.77");
    check("a.b.wild.foobar.com", "A", "NOERROR aa rd\na.b.wild.foobar.com. 300 IN A 192.0.2.77");
    check("any.wild.foobar.com", "MX", "NOERROR aa rd\nSOA!");
    check("known.wild.foobar.com", "TXT", "NOERROR aa rd\nSOA!");
    check("below.known.wild.foobar.com", "A", "NXDOMAIN aa rd\nSOA!");
    check("wild.foobar.com", "A", "NOERROR aa rd\nSOA!");
    check("*.wild.foobar.com", "A", "NOERROR aa rd\n*.wild.foobar.com. 300 IN A 192.0.2.77");
    check(
        "x.star.foobar.com",
        "AAAA",
        "NOERROR aa rd\nx.star.foobar.com. 300 IN CNAME www.foobar.com.\nwww.foobar.com. 60 IN AAAA 2001:db8::2",
    );
}

#[test]
fn rfc1034_4_2_1_a_delegated_part_is_referred() {
    let referral = "NOERROR rd\nauthority sub.foobar.com. 300 IN NS ns.sub.foobar.com.\n\
                    authority sub.foobar.com. 300 IN NS ns.elsewhere.example.\n\
                    additional ns.sub.foobar.com. 300 IN A 192.0.2.53";
    check("sub.foobar.com", "A", referral);
    check("sub.foobar.com", "NS", referral);
    check("deep.in.sub.foobar.com", "A", referral);
    check("ns.sub.foobar.com", "A", referral);
    let into = referral
        .replace("NOERROR rd\n", "NOERROR aa rd\ninto.foobar.com. 300 IN CNAME host.sub.foobar.com.\n");
    check("into.foobar.com", "A", &into);
}

#[test]
fn rfc4035_3_1_4_1_the_parent_answers_for_ds() {
    check(
        "signed.foobar.com",
        "DS",
        "NOERROR aa rd\nsigned.foobar.com. 300 IN DS 1 13 2 \
         0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    );
    check("sub.foobar.com", "DS", "NOERROR aa rd\nSOA!");
}

#[test]
fn rfc3597_5_unknown_types_are_served() {
    check("new.foobar.com", "TYPE65280", "NOERROR aa rd\nnew.foobar.com. 300 IN TYPE65280 \\# 4 de ad be ef");
}

#[test]
fn rfc8482_4_2_everything_is_next_to_nothing() {
    check("www.foobar.com", "ANY", "NOERROR aa rd\nwww.foobar.com. 60 IN HINFO \"RFC8482\" \"\"");
    check("alias.foobar.com", "ANY", "NOERROR aa rd\nalias.foobar.com. 300 IN CNAME www.foobar.com.");
    check("nobody.foobar.com", "ANY", "NXDOMAIN aa rd\nSOA!");
    check("c.foobar.com", "ANY", "NOERROR aa rd\nSOA!");
}

#[test]
fn other_zones_are_refused() {
    check("example.com", "A", "REFUSED rd");
    check("com", "NS", "REFUSED rd");
    check(".", "NS", "REFUSED rd");
    check("xfoobar.com", "A", "REFUSED rd");
}

#[test]
fn zone_transfers_and_other_classes_are_refused() {
    check("foobar.com", "AXFR", "REFUSED rd");
    check("foobar.com", "IXFR", "REFUSED rd");
    let mut chaos = query("www.foobar.com", "TXT");
    let last = chaos.len() - 1;
    chaos[last] = 3;
    check_bytes(&chaos, "REFUSED rd");
}

#[test]
fn rfc1035_4_1_1_other_opcodes_are_not_implemented() {
    for opcode in [1u8, 2, 4, 5, 6, 15] {
        let mut bytes = query("www.foobar.com", "A");
        bytes[2] |= opcode << 3;
        let zone = Snapshot::compile(&plan()).unwrap();
        let (_, answer) = ask(&zone, &bytes, Transport::Udp);
        assert_eq!(answer.len(), 12);
        assert_eq!((answer[2] >> 3) & 15, opcode, "the opcode comes back");
        assert_eq!(answer[3] & 15, 4, "NOTIMP");
    }
}

#[test]
fn what_is_no_query_gets_no_answer() {
    let zone = Snapshot::compile(&plan()).unwrap();
    let mut answer = query("www.foobar.com", "A");
    answer[2] |= 0x80;
    for bytes in [&answer[..], b"", b"\x12\x34\x01\x00\0\x01\0\0\0\0\0"] {
        assert_eq!(ask(&zone, bytes, Transport::Udp), (Verdict::Dropped, Vec::new()));
    }
}

#[test]
fn rfc1035_4_1_malformed_queries() {
    let good = query("www.foobar.com", "A");
    let mut cut = good.clone();
    cut.pop();
    let mut pointer = good.clone();
    pointer.splice(12..13, [0xc0, 0x0c]);
    let mut label = good.clone();
    label[12] = 0x41;
    let mut none = good[..12].to_vec();
    none[5] = 0;
    let mut two = good.clone();
    two[5] = 2;
    two.extend_from_slice(&good[12..]);
    let trailing = [&good[..], b"x"].concat();
    let mut promised = good.clone();
    promised[11] = 1;
    for bytes in [cut, pointer, label, none, two, trailing, promised] {
        check_bytes(&bytes, "FORMERR rd");
    }
}

#[test]
fn rfc4343_and_0x20_the_question_comes_back_as_it_was_written() {
    let zone = Snapshot::compile(&plan()).unwrap();
    let (_, bytes) = ask(&zone, &query("wWw.FooBAR.com", "AAAA"), Transport::Udp);
    assert_eq!(show(&bytes), "NOERROR aa rd\nwWw.FooBAR.com. 60 IN AAAA 2001:db8::2");
}

#[test]
fn flags_of_the_query_come_back() {
    let mut bytes = query("www.foobar.com", "AAAA");
    (bytes[2], bytes[3]) = (0, 0x30);
    check_bytes(&bytes, "NOERROR aa cd\nwww.foobar.com. 60 IN AAAA 2001:db8::2");
}

#[test]
fn rfc6891_6_1_1_opt_is_answered_by_opt_and_only_then() {
    let zone = Snapshot::compile(&plan()).unwrap();
    let (_, plain) = ask(&zone, &query("www.foobar.com", "AAAA"), Transport::Udp);
    assert_eq!(plain[11], 0);
    let (_, with) = ask(&zone, &query_edns("www.foobar.com", "AAAA", 4096, 0, true), Transport::Udp);
    assert_eq!(with[11], 1);
    // The root, OPT, 1232, no code, version 0, DO, no options.
    assert_eq!(with[with.len() - 11..], [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    let mut twice = query_edns("www.foobar.com", "AAAA", 4096, 0, false);
    let opt = twice[twice.len() - 11..].to_vec();
    twice.extend(opt);
    twice[11] = 2;
    check_bytes(&twice, "FORMERR rd");
}

#[test]
fn rfc6891_6_1_3_a_later_version_is_refused() {
    check_bytes(&query_edns("www.foobar.com", "A", 1232, 1, false), "BADVERS rd");
}

#[test]
fn rfc6891_6_2_3_sizes() {
    let zone = Snapshot::compile(&big()).unwrap();
    // 40 addresses take 692 bytes, the text 1449 bytes.
    for (payload, name, kind, whole) in [
        (None, "many.foobar.com", "A", false),
        (Some(0), "many.foobar.com", "A", false),
        (Some(512), "many.foobar.com", "A", false),
        (Some(1232), "many.foobar.com", "A", true),
        (Some(65535), "many.foobar.com", "A", true),
        (Some(1232), "text.foobar.com", "TXT", false),
        (Some(65535), "text.foobar.com", "TXT", false),
    ] {
        let bytes = match payload {
            Some(payload) => query_edns(name, kind, payload, 0, false),
            None => query(name, kind),
        };
        let (verdict, answer) = ask(&zone, &bytes, Transport::Udp);
        assert_eq!(
            verdict,
            Verdict::Answered { rcode: Rcode::NoError, truncated: !whole },
            "{payload:?} {name}"
        );
        assert!(answer.len() <= usize::from(payload.unwrap_or(512).clamp(512, 1232)));
        if !whole {
            assert_eq!(show(&answer), "NOERROR aa tc rd");
        }
        let (verdict, answer) = ask(&zone, &bytes, Transport::Tcp);
        assert_eq!(verdict, Verdict::Answered { rcode: Rcode::NoError, truncated: false });
        assert!(show(&answer).lines().count() > 1);
    }
}

#[test]
fn rfc9471_2_glue_that_does_not_fit_truncates_and_other_additional_records_do_not() {
    let mut plan = plan();
    let dns = plan.dns.as_mut().unwrap();
    for host in 0..12 {
        let servers = [("cut", format!("server{host}.with.a.long.name.cut")), ("mx", format!("10 mx{host}"))];
        dns.records.push(crate::zone::record("cut.foobar.com", "NS", &servers[0].1));
        dns.records.push(crate::zone::record("mx.foobar.com", "MX", &servers[1].1));
        for last in 0..3 {
            let address = format!("192.0.2.{}", host * 3 + last);
            let name = format!("server{host}.with.a.long.name.cut.foobar.com");
            dns.records.push(crate::zone::record(&name, "A", &address));
            dns.records.push(crate::zone::record(&format!("mx{host}.foobar.com"), "A", &address));
        }
    }
    let zone = Snapshot::compile(&plan).unwrap();
    let (_, bytes) = ask(&zone, &query_edns("x.cut.foobar.com", "A", 900, 0, false), Transport::Udp);
    assert_eq!(show(&bytes), "NOERROR tc rd");
    let (_, bytes) = ask(&zone, &query("mx.foobar.com", "MX"), Transport::Udp);
    assert!(show(&bytes).starts_with("NOERROR aa rd\n") && bytes.len() <= 512, "{}", show(&bytes));
}
