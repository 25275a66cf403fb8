//! The engine over real sockets: a client, a relay and an origin, each doing what they should not.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

#[path = "sockets/crowd.rs"]
mod crowd;
#[path = "sockets/endings.rs"]
mod endings;
#[allow(dead_code)] // other tests use more of it
#[path = "sockets/stage.rs"]
mod stage;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use stage::{Client, Origin, Relay, always, read_head};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_request_goes_through_and_both_connections_are_kept() {
    let origin = always(OK);
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    for _ in 0..3 {
        client.send(
            "GET /a?b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nConnection: keep-alive, X-A\r\nTE: trailers\r\n\r\n",
        );
        assert!(client.answer().starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.seen()[0], "GET /a?b HTTP/1.1\r\nHost: x\r\nvia: 1.1 relay\r\n\r\n");
}

#[test]
fn edits_replace_fields_and_via_is_one_list() {
    let origin =
        always("HTTP/1.1 200 OK\r\nVia: 1.1 a\r\nvia: 1.1 b\r\nServer: s\r\nContent-Length: 0\r\n\r\n");
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Edit: forged\r\nVia: 1.0 c\r\nx-edit: forged too\r\n\r\n");
    let answer = client.answer();
    assert!(answer.contains("via: 1.1 a, 1.1 b, 1.1 relay\r\n"), "{answer}");
    assert!(answer.contains("date: "), "{answer}");
    let seen = &origin.seen()[0];
    assert!(seen.contains("via: 1.0 c, 1.1 relay\r\n") && !seen.contains("forged"), "{seen}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())?;
        }
        Ok(())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send(&format!("{}{}{}", request("/1"), request("/2"), request("/3")));
    for path in ["/1", "/2", "/3"] {
        assert!(client.answer().ends_with(&format!("\r\n\r\n{path}")));
    }
}

#[test]
fn a_slow_client_is_read_byte_by_byte() {
    let origin = always(OK);
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    for byte in "GET / HTTP/1.1\r\nHost: x\r\n\r\n".chars() {
        client.send(&byte.to_string());
    }
    assert!(client.answer().ends_with("ok"));
}

#[test]
fn a_client_that_never_ends_its_head_gets_408() {
    let origin = always(OK);
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHo");
    assert!(client.rest().starts_with("HTTP/1.1 408 "));
}

#[test]
fn an_idle_client_is_closed_without_a_word() {
    let origin = always(OK);
    let relay = Relay::start(&origin, |timeouts| timeouts.idle_ms = 200);
    assert_eq!(Client::connect(&relay).rest(), "");
}

#[test]
fn bad_framing_gets_400_and_nothing_is_forwarded() {
    let origin = always(OK);
    let relay = Relay::to(&origin);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: x\n\n", 400),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    ] {
        let mut client = Client::connect(&relay);
        client.send(request);
        let answer = client.rest();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} {answer:?}");
        assert!(answer.contains("connection: close\r\n"));
    }
    let mut client = Client::connect(&relay);
    client.send(&format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(17_000)));
    assert!(client.rest().starts_with("HTTP/1.1 414 "));
    let mut client = Client::connect(&relay);
    client.send(&format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(70_000)));
    assert!(client.rest().starts_with("HTTP/1.1 431 "));
    assert_eq!(origin.seen().len(), 0);
}

#[test]
fn a_head_of_60_kib_passes() {
    let origin = always(OK);
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    let long = "a".repeat(60_000);
    client.send(&format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"));
    assert!(client.answer().ends_with("ok"));
    assert!(origin.seen()[0].contains(&long));
}

#[test]
fn a_body_passes_with_its_length_and_in_chunks() {
    let origin = Origin::start(|stream, seen| {
        while let Some(head) = read_head(stream) {
            let mut body = vec![0; if head.contains("Content-Length: 5") { 5 } else { 26 }];
            stream.read_exact(&mut body)?;
            seen.push(String::from_utf8(body).unwrap());
            stream.write_all(OK.as_bytes())?;
        }
        Ok(())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert!(client.answer().ends_with("ok"));
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
    client.send("lo\r\n0\r\nX-Sum: 1234\r\n\r\n");
    assert!(client.answer().ends_with("ok"));
    assert_eq!(
        origin.seen(),
        ["hello", "5\r\nhello\r\n0\r\nX-Sum: 1234\r\n"].map(|text| {
            // The origin reads so many bytes; the rest of the trailer section stays in its socket.
            text.chars().take(26).collect::<String>()
        })
    );
}

#[test]
fn a_chunked_body_that_is_not_valid_gets_400() {
    let origin = always(OK);
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    assert!(client.rest().starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_chunked_answer_passes_with_trailers_and_to_http_1_0_without_chunks() {
    let origin = always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(client.rest().ends_with("\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n"));
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = client.rest();
    assert!(answer.ends_with("\r\n\r\nabcdefg") && !answer.contains("Transfer-Encoding"), "{answer}");
    assert_eq!(origin.connections(), 1, "the origin's connection was kept");
}

#[test]
fn http_1_0_is_kept_alive_only_when_it_asks() {
    let origin = always(OK);
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(client.answer().contains("connection: keep-alive\r\n"));
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert!(client.rest().contains("connection: close\r\n"));
    assert!(origin.seen()[0].contains("\r\nhost: 127.0.0.1:"), "{}", origin.seen()[0]);
}

#[test]
fn an_answer_without_length_ends_with_the_connection() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.rest();
    assert!(answer.ends_with("until the end") && answer.contains("connection: close"), "{answer}");
}

#[test]
fn head_and_304_have_no_body_whatever_the_length_says() {
    let origin = Origin::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            let status = if head.contains("/304") { "304 Not Modified" } else { "200 OK" };
            let length = if head.contains("/0") { 0 } else { 1000 };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n")?;
        }
        Ok(())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    let requests = [("HEAD /0", 1), ("HEAD /0", 1), ("HEAD /", 1), ("GET /304", 2), ("HEAD /0", 3)];
    for (request, connections) in requests {
        client.send(&format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(client.head().contains("Content-Length: "));
        assert_eq!(
            origin.connections(),
            connections,
            "{request}: none is used again after a body that did not come"
        );
    }
}

#[test]
fn a_body_after_head_never_becomes_the_next_answer() {
    let origin = Origin::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            let extra = if head.starts_with("HEAD") {
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
            } else {
                ""
            };
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{extra}")?;
            if extra.is_empty() {
                stream.write_all(b"ok")?;
            }
        }
        Ok(())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.answer().ends_with("\r\n\r\nok"));
    assert_eq!(origin.connections(), 2);
}

#[test]
fn the_client_waits_for_100_and_gets_it() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        let mut body = [0; 5];
        stream.read_exact(&mut body)?;
        stream.write_all(OK.as_bytes())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 100 Continue\r\n"));
    client.send("hello");
    assert!(client.answer().ends_with("ok"));
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nbegin");
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
}

#[test]
fn upgrade_becomes_a_tunnel() {
    let origin = Origin::start(|stream, seen| {
        seen.push(read_head(stream).unwrap_or_default());
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nfirst",
        )?;
        let mut bytes = [0; 64];
        loop {
            match stream.read(&mut bytes)? {
                0 => return stream.write_all(b"bye"),
                count => stream.write_all(&bytes[..count])?,
            }
        }
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nearly");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("connection: upgrade\r\n"), "{head}");
    client.expect("firstearly");
    client.send("more");
    client.expect("more");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "bye");
    let seen = &origin.seen()[0];
    assert!(seen.contains("Upgrade: echo\r\n") && seen.contains("connection: upgrade\r\n"), "{seen}");
}

#[test]
fn an_idle_tunnel_ends() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: e\r\nConnection: Upgrade\r\n\r\n")?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    let relay = Relay::start(&origin, |timeouts| timeouts.tunnel_ms = 200);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: e\r\nConnection: Upgrade\r\n\r\n");
    assert!(client.rest().starts_with("HTTP/1.1 101 "));
}

#[test]
fn h2c_is_never_asked_for() {
    let origin = always(OK);
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send(
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
    );
    assert!(client.answer().ends_with("ok"));
    assert_eq!(origin.seen()[0], "GET / HTTP/1.1\r\nHost: x\r\nvia: 1.1 relay\r\n\r\n");
}

#[test]
fn a_101_that_nobody_asked_for_is_502() {
    let origin = always("HTTP/1.1 101 Switching Protocols\r\nUpgrade: e\r\nConnection: Upgrade\r\n\r\n");
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 502 "));
}

#[test]
fn a_server_that_dies_within_its_answer_cuts_the_client_off() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.rest().ends_with("\r\n\r\nhalf"));
}

#[test]
fn garbage_silence_and_death_have_their_status() {
    for (answer, status) in [("SSH-2.0-x\r\n\r\n", 502), ("HTTP/1.1 200 OK\nA: b\n\n", 502), ("", 504)] {
        let origin = Origin::start(move |stream, _| {
            read_head(stream);
            stream.write_all(answer.as_bytes())?;
            stream.read_to_end(&mut Vec::new()).map(|_| ())
        });
        let relay = Relay::start(&origin, |timeouts| timeouts.first_byte_ms = 200);
        let mut client = Client::connect(&relay);
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?} {head:?}");
    }
    let origin = Origin::start(|stream, _| read_head(stream).map_or(Ok(()), |_| Ok(())));
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na");
    assert!(client.head().starts_with("HTTP/1.1 502 "));
    assert_eq!(origin.connections(), 1, "a POST is not sent twice");
}

#[test]
fn a_reused_connection_that_died_is_replaced() {
    let origin = Origin::start(|stream, seen| {
        // One answer for each connection, which is then closed without having said so.
        seen.push(read_head(stream).unwrap_or_default());
        stream.write_all(OK.as_bytes())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    for count in 1..=5 {
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert!(client.answer().ends_with("ok"), "request {count}");
        origin.wait_closed(count);
    }
}

#[test]
fn a_refused_connection_is_tried_elsewhere() {
    let origin = always(OK);
    let relay = Relay::to_first_refusing(&origin);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert!(client.answer().ends_with("ok"));
    assert_eq!(origin.connections(), 1);
    assert!(origin.seen()[0].contains("Content-Length: 5"));
}

#[test]
fn a_large_body_to_a_slow_reader_takes_bounded_memory() {
    const SIZE: usize = 64 * 1024 * 1024;
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")?;
        let block = vec![b'x'; 1024 * 1024];
        for _ in 0..SIZE / block.len() {
            stream.write_all(&block)?;
        }
        Ok(())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head();
    let before = resident_kib();
    let (mut seen, mut block) = (0, vec![0; 256 * 1024]);
    while seen < SIZE {
        seen += client.read(&mut block);
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "grew by {grown} KiB");
    assert_eq!(seen, SIZE);
}

#[test]
fn a_large_upload_passes_and_is_counted() {
    const SIZE: usize = 16 * 1024 * 1024;
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        let mut block = vec![0; 1024 * 1024];
        let mut seen = 0;
        while seen < SIZE {
            seen += stream.read(&mut block)?;
        }
        stream.write_all(OK.as_bytes())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send(&format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n"));
    client.stream.write_all(&vec![b'y'; SIZE]).unwrap();
    assert!(client.answer().ends_with("ok"));
    // Counted when the exchange is over, which the client may know first.
    stage::wait_until("the bytes are counted", || relay.count("bytes_in") >= SIZE as u64);
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let origin = always(OK);
    let relay = Relay::to(&origin);
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    for cut in 0..request.len() {
        let mut client = Client::connect(&relay);
        client.send(&request[..cut]);
    }
    relay.wait_for("connections_open", 0);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.answer().ends_with("ok"));
}

#[test]
fn draining_closes_idle_clients_and_finishes_the_others() {
    let origin = Origin::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            if head.contains("/slow") {
                std::thread::sleep(Duration::from_millis(300));
            }
            stream.write_all(OK.as_bytes())?;
        }
        Ok(())
    });
    let relay = Relay::to(&origin);
    let (mut idle, mut busy) = (Client::connect(&relay), Client::connect(&relay));
    idle.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(idle.answer().ends_with("ok"));
    busy.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    origin.wait_seen_or_requests(&relay, 2);
    let began = Instant::now();
    relay.drain();
    assert_eq!(idle.rest(), "");
    assert!(began.elapsed() < Duration::from_millis(250), "the idle one waited {:?}", began.elapsed());
    let answer = busy.rest();
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("ok"), "{answer}");
    assert!(TcpStream::connect(relay.address()).is_err(), "nothing listens any more");
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
