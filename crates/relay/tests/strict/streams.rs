//! Bodies, trailers and interim answers on their way over real sockets.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use relay::Io;

use crate::recorder::{OK, recorder};
use crate::stage::{Client, Origin, Relay, read_head};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Several chunked uploads with trailers on one connection, answered by chunked answers with trailers: the
/// connection to the origin is used for all, so nothing may be left on it.
#[test]
fn trailers_both_ways_leave_nothing_in_the_pool() {
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nHost: b\r\n\r\n";
    let origin = Origin::start(move |stream, seen| {
        while let Some(head) = read_head(stream) {
            let (mut body, mut byte) = (Vec::new(), [0]);
            while !body.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
                body.push(byte[0]);
            }
            seen.push(head.lines().next().unwrap().to_owned() + " " + &String::from_utf8_lossy(&body));
            stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    for number in 0..5 {
        client.send(&format!("POST /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
        client.send("3\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-");
        client.send("Length: 9\r\nY: 2\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 200 "));
        client.expect("2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n");
    }
    let body = "3\r\nabc\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n";
    assert_eq!(origin.seen(), (0..5).map(|n| format!("POST /{n} HTTP/1.1 {body}")).collect::<Vec<_>>());
    assert_eq!(origin.connections(), 1, "one connection serves all");
}

/// Bodies long enough to be spliced, there and back, over one connection each way; lengths around every limit.
#[test]
fn long_bodies_arrive_whole_however_they_are_read() {
    for io in [Io::Epoll, Io::Uring] {
        let origin = Origin::start(|stream, _| {
            while let Some(head) = read_head(stream) {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let mut body = vec![0; length.unwrap().parse().unwrap()];
                stream.read_exact(&mut body)?;
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
                stream.write_all(&body)?;
            }
            Ok(())
        });
        let relay = Relay::through(io, &origin);
        let mut client = Client::connect(&relay);
        for length in [1, 7_000, 8_000, 32_000, 33_000, 66_000, 100_000, 300_000, 3_000_000] {
            let body: Vec<u8> = (0..length).map(|at: usize| (at * 7 + at / 251) as u8).collect();
            client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
            client.send_bytes(&body);
            assert!(client.head().starts_with("HTTP/1.1 200 "));
            let (mut back, mut filled) = (vec![0; length], 0);
            while filled < length {
                filled += client.read(&mut back[filled..]);
            }
            assert!(back == body, "{io:?}: {length} bytes came back changed");
        }
        assert_eq!(origin.connections(), 1, "{io:?}: one connection serves all");
    }
}

/// A body that is not valid gets its 400 although much of it was not yet read.
#[test]
fn a_refused_body_does_not_cost_the_client_its_answer() {
    let origin = recorder();
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n");
    client.send(&"x".repeat(150_000));
    let answer = client.rest_lossy();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close\r\n"), "{answer}");
}

#[test]
fn a_client_that_stops_reading_is_closed_after_the_body_timeout() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1u64 << 40)?;
        let block = vec![b'x'; 1024 * 1024];
        loop {
            stream.write_all(&block)?;
        }
    });
    let relay = Relay::start(&origin, |timeouts| timeouts.body_ms = 300);
    let mut client = Client::connect(&relay);
    client.send(GET);
    let began = Instant::now();
    client.head();
    origin.wait_closed(1);
    relay.wait_for("connections_open", 0);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_client_that_stops_sending_gets_408() {
    let origin = recorder();
    let relay = Relay::start(&origin, |timeouts| timeouts.body_ms = 300);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let answer = client.rest_lossy();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close\r\n"), "{answer}");
    origin.wait_closed(1);
    assert!(origin.seen()[0].starts_with("partial: "), "{:?}", origin.seen());
}

/// A slow client that makes some progress is not late, however long it takes as a whole.
#[test]
fn a_client_that_sends_slowly_is_heard() {
    let origin = recorder();
    let relay = Relay::start(&origin, |timeouts| timeouts.body_ms = 400);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100)); // slowness is what is tested
        client.send("x");
    }
    assert!(client.answer().ends_with("ok"));
}

#[test]
fn interim_answers_pass_to_http_1_1_alone() {
    let answer = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\
                  Connection: close\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let origin = Origin::start(move |stream, _| {
        while read_head(stream).is_some() {
            stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send(GET);
    assert!(client.head().starts_with("HTTP/1.1 102 Processing\r\n"));
    let hints = client.head();
    assert!(hints.starts_with("HTTP/1.1 103 ") && hints.contains("Link: </a>\r\n"), "{hints}");
    assert!(!hints.contains("Content-Length") && !hints.to_lowercase().contains("connection"), "{hints}");
    assert!(client.answer().ends_with("ok"));
    let mut old = Client::connect(&relay);
    old.send("GET / HTTP/1.0\r\n\r\n");
    let answer = old.rest_lossy();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    assert_eq!(origin.connections(), 1, "the connection was kept");
}

#[test]
fn a_status_without_a_reason_gets_its_space() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n")
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send(GET);
    assert!(client.head().starts_with("HTTP/1.1 200 \r\n"));
}

/// A client that expects 100 and is refused at once keeps its body; the connection ends, since nobody knows
/// whether the body still comes.
#[test]
fn an_expectation_that_is_refused_ends_the_connection() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n");
    client.send("GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.rest_lossy();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    origin.wait_closed(1);
}

#[test]
fn ipv6_from_end_to_end() {
    let origin = Origin::start_at("[::1]:0", |stream, seen| {
        while let Some(head) = read_head(stream) {
            seen.push(head);
            stream.write_all(OK.as_bytes())?;
        }
        Ok(())
    });
    let relay = Relay::at("[::1]:0", &origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    assert!(client.answer().ends_with("ok"));
    client.send("GET http://[2001:db8::1]:8080 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.answer().ends_with("ok"));
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(client.answer().ends_with("ok"));
    let hosts: Vec<_> = origin.seen().iter().map(|head| head.lines().nth(1).unwrap().to_owned()).collect();
    assert_eq!(hosts[..2], ["Host: [::1]:80", "host: [2001:db8::1]:8080"]);
    assert!(hosts[2].starts_with("host: [::1]:"), "{hosts:?}");
    assert_eq!(origin.connections(), 1);
}
