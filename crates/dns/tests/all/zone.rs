//! One zone for all tests, how to ask it, and how to read what it says.

use std::net::{IpAddr, SocketAddr};

use dns::{Snapshot, Transport, Verdict};
use domain::base::iana::Rtype;
use domain::base::message_builder::MessageBuilder;
use domain::base::{Message, Name};
use domain::rdata::AllRecordData;
use plan::{Dns, Listen, Machine, Place, Plan, Record, Role, Server, SocketKind};

/// Site www.foobar.com in the zone foobar.com, on two balancers and two DNS servers.
pub(crate) fn plan() -> Plan {
    let address = |last: u8| IpAddr::from([127, 0, 44, last]);
    let machine = |name: &str, last, public: &[&str]| Machine {
        name: name.into(),
        address: address(last),
        public: public.iter().map(|text| text.parse().unwrap()).collect(),
        agent: SocketAddr::new(address(last), 7400),
    };
    let server = |name: &str, role, machine: &str, last| Server {
        name: name.into(),
        role,
        machine: machine.into(),
        address: address(last),
        listen: Vec::new(),
    };
    let records = RECORDS.iter().map(|(name, kind, value)| record(name, kind, value)).collect();
    Plan {
        format: plan::FORMAT,
        generation: 7,
        site: "www.foobar.com".into(),
        domain: Some("www.foobar.com".into()),
        place: Place::Up { block: 44 },
        machines: vec![machine("alpha", 1, &[]), machine("beta", 2, &["203.0.113.2", "2001:db8::2"])],
        servers: vec![
            server("dns-1", Role::Dns, "alpha", 1),
            server("dns-2", Role::Dns, "beta", 2),
            server("balancer-1", Role::Balancer, "alpha", 1),
            server("balancer-2", Role::Balancer, "beta", 2),
        ],
        dns: Some(Dns {
            zone: "foobar.com".into(),
            site: "www.foobar.com".into(),
            ttl_s: 60,
            mailbox: "host.master@foobar.com".into(),
            records,
        }),
        balancer: None,
        web: None,
        app: None,
        database: None,
        drained: Vec::new(),
        control: None,
        encrypted: false,
        not_served: Vec::new(),
    }
}

/// One for each case of the tests.
const RECORDS: &[(&str, &str, &str)] = &[
    ("foobar.com", "MX", "10 mail"),
    ("foobar.com", "TXT", "\"v=spf1 mx -all\""),
    ("mail.foobar.com", "A", "192.0.2.25"),
    ("_sip._tcp.foobar.com", "SRV", "1 2 5060 mail.foobar.com."),
    ("alias.foobar.com", "CNAME", "www"),
    ("alias2.foobar.com", "CNAME", "alias"),
    ("out.foobar.com", "CNAME", "elsewhere.example."),
    ("dangling.foobar.com", "CNAME", "nothing.here"),
    ("circle1.foobar.com", "CNAME", "circle2"),
    ("circle2.foobar.com", "CNAME", "circle1"),
    ("into.foobar.com", "CNAME", "host.sub"),
    ("a.b.c.foobar.com", "A", "192.0.2.3"),
    ("*.wild.foobar.com", "A", "192.0.2.77"),
    ("*.wild.foobar.com", "TXT", "wild"),
    ("known.wild.foobar.com", "A", "192.0.2.78"),
    ("*.star.foobar.com", "CNAME", "www"),
    ("sub.foobar.com", "NS", "ns.sub"),
    ("sub.foobar.com", "NS", "ns.elsewhere.example."),
    ("ns.sub.foobar.com", "A", "192.0.2.53"),
    ("signed.foobar.com", "NS", "ns.elsewhere.example."),
    ("signed.foobar.com", "DS", "1 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
    ("new.foobar.com", "TYPE65280", "\\# 4 DEADBEEF"),
];

pub(crate) fn record(name: &str, kind: &str, value: &str) -> Record {
    Record { name: name.into(), kind: kind.into(), value: value.into(), ttl_s: 300 }
}

/// The zone with a name that has many records.
pub(crate) fn big() -> Plan {
    let mut plan = plan();
    let dns = plan.dns.as_mut().unwrap();
    let many = (0..40).map(|last| record("many.foobar.com", "A", &format!("192.0.2.{last}")));
    dns.records.extend(many);
    let text = format!("\"{}\"", "x".repeat(200));
    dns.records.push(record("text.foobar.com", "TXT", &[text.as_str(); 7].join(" ")));
    plan
}

pub(crate) fn listening(mut plan: Plan, address: SocketAddr) -> Plan {
    let listen = |name: &str, kind| Listen { name: name.into(), kind, address, held: true, sockets: 1 };
    plan.servers[0].listen = vec![listen("dns", SocketKind::Udp), listen("dns-tcp", SocketKind::Tcp)];
    plan
}

/// A query as a resolver would send it, without EDNS.
pub(crate) fn query(name: &str, kind: &str) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    let name: Name<Vec<u8>> = name.parse().unwrap();
    builder.push((name, kind.parse::<Rtype>().unwrap())).unwrap();
    builder.finish()
}

/// The same with an OPT record.
pub(crate) fn query_edns(name: &str, kind: &str, payload: u16, version: u8, dnssec_ok: bool) -> Vec<u8> {
    let mut bytes = query(name, kind);
    bytes[11] = 1;
    bytes.extend([0, 0, 41]);
    bytes.extend(payload.to_be_bytes());
    bytes.extend([0, version, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    bytes
}

pub(crate) fn ask(snapshot: &Snapshot, bytes: &[u8], transport: Transport) -> (Verdict, Vec<u8>) {
    let mut out = Vec::new();
    let verdict = dns::answer(snapshot, bytes, transport, 0, &mut out);
    (verdict, out)
}

/// An answer as text: the code and the flags, then a line for each record with the letter of its section.
pub(crate) fn show(bytes: &[u8]) -> String {
    let message = Message::from_octets(bytes).expect("a message has a header");
    let (header, flags) = (message.header(), message.header().flags());
    let mut text = message.opt_rcode().to_string();
    for (flag, name) in
        [(flags.aa, "aa"), (flags.tc, "tc"), (flags.rd, "rd"), (flags.cd, "cd"), (flags.ra, "ra")]
    {
        text += &if flag { format!(" {name}") } else { String::new() };
    }
    assert!(flags.qr && header.id() == 0x1234, "an answer to our query");
    let (_, answer, authority, additional) = message.sections().expect("the sections can be read");
    for (letter, section) in [("", answer), ("authority ", authority), ("additional ", additional)] {
        for record in section {
            let record = record.expect("a whole record");
            if record.rtype() == Rtype::OPT {
                continue;
            }
            let record = record.into_any_record::<AllRecordData<_, _>>().expect("data of its type");
            text += &format!("\n{letter}{record}");
        }
    }
    text
}
