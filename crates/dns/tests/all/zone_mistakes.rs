//! Zones that cannot be served say what is wrong, all at once.

use dns::{Mistake, Snapshot};
use plan::Record;

use crate::zone::{plan, record};

#[track_caller]
fn check(records: Vec<Record>, expect: &[&str]) {
    let mut plan = plan();
    plan.dns.as_mut().unwrap().records = records;
    let mistakes = Snapshot::compile(&plan).unwrap_err().0;
    let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(all, expect);
}

#[test]
fn each_mistake_has_its_sentence() {
    check(
        vec![
            record("www.example.com", "A", "192.0.2.1"),
            record("www.foobar.com", "A", "192.0.2.1"),
            record("foobar.com", "SOA", "a. b. 1 2 3 4 5"),
            record("a..foobar.com", "A", "192.0.2.1"),
            record("ns1.foobar.com", "CNAME", "www"),
            record("*.x.foobar.com", "NS", "ns1"),
        ],
        &[
            "www.example.com is not within the zone foobar.com: write a name that ends with it",
            "the A record of www.foobar.com is made by dolmen: remove it from the file",
            "the SOA record of foobar.com is made by dolmen: remove it from the file",
            "\"a..foobar.com\" is not a domain name",
            "*.x.foobar.com has NS records: a wildcard cannot be delegated (RFC 4592 section 4.2)",
            "ns1.foobar.com has a CNAME and other records: a CNAME stands alone (RFC 1034 section 3.6.2)",
        ],
    );
}

#[test]
fn a_value_cannot_bring_more_than_itself() {
    for (kind, value) in [
        ("A", "300.1.2.3"),
        ("A", ""),
        ("A", "192.0.2.1\nevil A 192.0.2.2"),
        ("A", "192.0.2.1 192.0.2.2"),
        ("TXT", "\"open"),
        ("A\n$INCLUDE /etc/passwd\n", "x"),
        ("NOSUCH", "1"),
    ] {
        let mut plan = plan();
        plan.dns.as_mut().unwrap().records = vec![record("x.foobar.com", kind, value)];
        let mistakes = Snapshot::compile(&plan).expect_err(value).0;
        assert!(matches!(mistakes[..], [Mistake::Unreadable { .. }]), "{kind} {value}: {mistakes:?}");
    }
}
