//! Clients that come by way of proxies, that are slow, or that send more than they may.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use plan::Network;

use crate::stage::{Answer, Balancer, PATIENCE, Server, get, talk};

/// A proxy on 127.0.123.0/24 is believed; the others come from elsewhere.
fn trusting(section: &mut plan::Balancer) {
    section.trusted = vec![Network { address: "127.0.123.0".parse().unwrap(), bits: 24 }];
}

const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 127.0.123.9\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: shop.example\r\nX-Request-Id: abc-1\r\nForwarded: for=6.6.6.6\r\n";

#[test]
fn a_trusted_proxy_speaks_for_its_client_and_nobody_else_does() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], trusting);
    let told = balancer.ask_from("127.0.123.1", &get("www.foobar.com", CLAIMS, "/"));
    for line in [
        "x-forwarded-for: 192.0.2.1, 127.0.123.9, 127.0.123.1\n",
        "x-forwarded-proto: https\n",
        "x-forwarded-host: shop.example\n",
        "x-request-id: abc-1\n",
        "forwarded: for=192.0.2.1;proto=https;host=\"shop.example\", for=127.0.123.9, for=127.0.123.1\n",
    ] {
        assert!(told.body.contains(line), "{line:?} {}", told.body);
    }
    assert!(!told.body.contains("6.6.6.6"), "{}", told.body);
    let alone = balancer.ask_from("127.0.124.1", &get("www.foobar.com", CLAIMS, "/"));
    for line in ["x-forwarded-for: 127.0.124.1\n", "x-forwarded-proto: http\n"] {
        assert!(alone.body.contains(line), "{line:?} {}", alone.body);
    }
    assert!(
        !alone.body.contains("192.0.2.1")
            && !alone.body.contains("abc-1")
            && !alone.body.contains("\nforwarded")
    );
}

#[test]
fn rates_and_hashes_go_by_the_client_behind_a_trusted_proxy() {
    let balancer = Balancer::before(&[], |section| {
        trusting(section);
        section.rate_limit = Some(plan::RateLimit { requests: 1, per_ms: 3_600_000, burst: 1 });
    });
    let of = |client: &str| {
        let fields = format!("X-Forwarded-For: {client}\r\n");
        balancer.ask_from("127.0.123.1", &get("a", &fields, "/")).status
    };
    assert_eq!([of("192.0.2.1"), of("192.0.2.1"), of("192.0.2.2")], [503, 429, 503]);
    let (one, two) = (Server::start("one"), Server::start("two"));
    let hashing = Balancer::before(&[&one, &two], |section| {
        trusting(section);
        section.pool.algorithm = plan::Algorithm::SourceHash;
    });
    hashing.wait_until_up(2);
    let name = |client: u8| {
        let fields = format!("X-Forwarded-For: 192.0.2.{client}\r\n");
        hashing.ask_from("127.0.123.1", &get("a", &fields, "/")).name()
    };
    let names: Vec<_> = (0..20).map(name).collect();
    assert!(names.contains(&"one".into()) && names.contains(&"two".into()), "{names:?}");
    assert_eq!(names, (0..20).map(name).collect::<Vec<_>>());
}

#[test]
fn the_proxy_protocol_is_read_from_proxies_and_from_nobody_else() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| {
        trusting(section);
        section.proxy_protocol = true;
    });
    let request = get("a", "", "/");
    let via = |header: &str| balancer.ask_from("127.0.123.1", &format!("{header}{request}"));
    let told = via("PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n");
    assert!(told.body.contains("x-forwarded-for: 192.0.2.7\n"), "{told:?}");
    let local = via("PROXY UNKNOWN\r\n");
    assert!(local.body.contains("x-forwarded-for: 127.0.123.1\n"), "{local:?}");
    for wrong in ["", "PROXY TCP4 192.0.2.7\r\n", "PROXY TCP4 x y 1 2\r\n"] {
        assert_eq!(via(wrong).status, 0, "{wrong:?} is closed without a word");
    }
    let by_itself = balancer.ask_from("127.0.124.1", &request);
    assert!(by_itself.body.contains("x-forwarded-for: 127.0.124.1\n"), "{by_itself:?}");
    let forged = balancer.ask_from("127.0.124.1", &format!("PROXY TCP4 192.0.2.7 1.2.3.4 1 2\r\n{request}"));
    assert_eq!(forged.status, 400);
}

#[test]
fn a_chunked_body_may_not_be_longer_than_any_other() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| section.limits.body_bytes = Some(10));
    let post = |chunks: &str| {
        balancer.ask(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"))
    };
    let whole =
        "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let both = post(whole);
    assert!(both.status == 200 && both.body.contains("one /next"), "{both:?}");
    for long in ["5\r\nhello\r\n6\r\nworld!\r\n0\r\n\r\n", "b\r\n", "fffffffffffff\r\n"] {
        let refused = post(long);
        assert_eq!(refused.status, 413, "{long:?}");
        assert!(refused.head.contains("connection: close"), "{}", refused.head);
    }
}

#[test]
fn a_long_chunked_body_is_refused_while_it_comes() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| section.limits.body_bytes = Some(50_000));
    let mut stream = TcpStream::connect(balancer.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /slow/60000 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    balancer.wait_for_requests(1);
    let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
    (0..6).for_each(|_| stream.write_all(chunk.as_bytes()).unwrap());
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
}

/// Sends this and nothing more, and says how the connection ended, and after what time.
fn stalls(balancer: &Balancer, text: &str) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = talk(TcpStream::connect(balancer.address).unwrap(), text);
    (answer, began.elapsed())
}

#[test]
fn clients_that_stop_in_the_middle_are_sent_away() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| {
        (section.timeouts.header_ms, section.timeouts.body_ms, section.timeouts.idle_ms) = (300, 300, 300);
    });
    for (text, status) in [(String::new(), 0), ("GET / HTTP/1.1\r\nHost: a\r\nX-Slo".to_owned(), 408)] {
        let (answer, took) = stalls(&balancer, &text);
        assert_eq!(answer.status, status, "{text:?}");
        assert!(took >= Duration::from_millis(300), "{took:?}");
    }
}

#[test]
fn with_no_server_up_the_answer_does_not_wait_for_the_body_or_the_queue() {
    let balancer = Balancer::before(&[], |section| {
        section.pool.queue = plan::Queue { length: 10, timeout_ms: 60_000 };
    });
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    for request in [get("a", "", "/"), chunked.to_owned()] {
        let began = Instant::now();
        let answer = balancer.ask(&request);
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }
}
