//! Servers that answer what they should not: the client gets the right status or is cut off, never bytes of
//! another answer, and the connection is never used again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::recorder::OK;
use crate::stage::{Client, Origin, Relay, read_head, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Plays `script` on the first connection; later ones are answered well, with their number.
fn hostile_first(script: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |stream, seen| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            let head = read_head(stream).unwrap_or_default();
            seen.push(head);
            return script(stream);
        }
        while let Some(head) = read_head(stream) {
            seen.push(head);
            stream.write_all(OK.as_bytes())?;
        }
        Ok(())
    })
}

/// Sends, then waits until the relay hangs up; 10 s is the end of all patience.
fn then_waits(text: &str) -> impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static {
    let text = text.to_owned();
    move |stream| {
        stream.write_all(text.as_bytes())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    }
}

/// Sends, and ends the connection.
fn then_ends(text: String) -> impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static {
    move |stream| stream.write_all(text.as_bytes())
}

fn impatient(origin: &Origin) -> Relay {
    Relay::start(origin, |timeouts| {
        timeouts.first_byte_ms = 300;
        timeouts.body_ms = 300;
    })
}

/// A later client gets its own answer, on another connection.
fn next_is_well(relay: &Relay, origin: &Origin, name: &str) {
    let mut next = Client::connect(relay);
    next.send(GET);
    assert!(next.answer().ends_with("\r\n\r\nok"), "{name}");
    assert_eq!(origin.connections(), 2, "{name}: the connection was used again");
}

/// Answers that become 502.
pub fn refused() -> Vec<(&'static str, String)> {
    let ok = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let line = |line: &str| format!("{line}\r\nContent-Length: 0\r\n\r\n");
    vec![
        ("6.1-length-then-coding", ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("6.1-coding-then-length", ok("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")),
        ("6.1-coding-twice", ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("6.1-coding-empty-beside", ok("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("6.1-gzip-chunked", ok("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("6.1-identity", ok("Transfer-Encoding: identity\r\n", "")),
        ("6.1-http-1-0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        ("6.2-length-twice", ok("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("6.2-length-list", ok("Content-Length: 5, 5\r\n", "hello")),
        ("6.2-length-plus", ok("Content-Length: +5\r\n", "hello")),
        ("6.2-length-empty", ok("Content-Length:\r\n", "")),
        ("6.2-length-huge", ok("Content-Length: 99999999999999999999\r\n", "hello")),
        ("2.2-bare-lf", "HTTP/1.1 200 OK\nContent-Length: 0\n\n".into()),
        ("2.2-bare-cr", ok("X: a\rContent-Length: 0\r\n", "")),
        ("2.2-nul", ok("X: a\0\r\nContent-Length: 0\r\n", "")),
        ("2.2-empty-line-before", format!("\r\n{OK}")),
        ("5.1-blank-before-colon", ok("Content-Length : 0\r\n", "")),
        ("5.2-fold", ok("X: a\r\n b\r\nContent-Length: 0\r\n", "")),
        ("4-status-low", line("HTTP/1.1 099 OK")),
        ("4-status-long", line("HTTP/1.1 2000 OK")),
        ("4-version", line("HTTP/2 200 OK")),
        ("4-version-lower-case", line("http/1.1 200 OK")),
        ("4-other-protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n".into()),
        ("4-http-0-9", "<html>\r\n\r\n</html>".into()),
        ("4-a-request", GET.into()),
        ("limits-head", ok(&format!("X: {}\r\n", "a".repeat(70_000)), "")),
        ("limits-fields", ok(&"X: y\r\n".repeat(200), "")),
        ("limits-interim", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(40)),
    ]
}

/// Answers that begin well, and how they then go wrong.
fn cut_off() -> Vec<(&'static str, String, &'static str)> {
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    vec![
        ("7.1-size", chunked("3\r\nabc\r\n"), "zz\r\n"),
        ("7.1-end", chunked("3\r\nabc"), "d\r\n0\r\n\r\n"),
        ("7.1-lf", chunked("3\r\nabc\r\n"), "3\nabc\n0\n\n"),
        ("7.1.2-fold", chunked("3\r\nabc\r\n"), "0\r\nX: y\r\n z\r\n\r\n"),
        ("7.1-ends-within", chunked("3\r\nabc\r\n"), ""),
        ("6.2-ends-within", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc".into(), ""),
    ]
}

/// All of these, as seeds.
pub fn answers() -> Vec<(&'static str, String)> {
    let cut_off = cut_off().into_iter().map(|(name, begin, then)| (name, begin + then));
    let good = [
        ("good-length", OK.to_owned()),
        ("good-chunked", "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into()),
        ("good-until-close", "HTTP/1.0 200 OK\r\nServer: s\r\nConnection: keep-alive\r\n\r\nabc".into()),
        ("good-interim", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".into()),
        ("good-204", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n".into()),
        ("good-304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nDate: x\r\n\r\n".into()),
        ("good-101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: Upgrade\r\n\r\n".into()),
    ];
    refused().into_iter().chain(cut_off).chain(good).collect()
}

#[test]
fn answers_that_cannot_be_passed_on_are_502() {
    for (name, text) in refused() {
        let origin = hostile_first(then_waits(&text));
        let relay = Relay::to(&origin);
        let mut client = Client::connect(&relay);
        client.send(GET);
        let mut head = client.head();
        while head.starts_with("HTTP/1.1 103 ") {
            head = client.head();
        }
        assert!(head.starts_with("HTTP/1.1 502 "), "{name}: {head}");
        origin.wait_closed(1);
        next_is_well(&relay, &origin, name);
    }
}

/// While nothing of it was passed on it is 502; later the client is cut off, and never sees an end.
#[test]
fn answers_that_go_wrong_are_502_or_cut_off() {
    for (name, begin, then) in cut_off() {
        let at_once = hostile_first(then_ends(begin.clone() + then));
        let relay = Relay::to(&at_once);
        let mut client = Client::connect(&relay);
        client.send(GET);
        client.stream.shutdown(Shutdown::Write).unwrap();
        let answer = client.rest_lossy();
        let is_502 = answer.starts_with("HTTP/1.1 502 ");
        assert!(is_502 || !answer.ends_with("0\r\n\r\n"), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
        at_once.wait_closed(1);
        next_is_well(&relay, &at_once, name);

        let (go, wait) = mpsc::channel();
        let wait = Mutex::new(wait);
        let first = begin.clone();
        let later = hostile_first(move |stream| {
            stream.write_all(first.as_bytes())?;
            let _ = wait.lock().unwrap().recv();
            stream.write_all(then.as_bytes())
        });
        let relay = Relay::to(&later);
        let mut client = Client::connect(&relay);
        client.send(GET);
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{name}: {head}");
        client.expect(begin.split_once("\r\n\r\n").unwrap().1);
        go.send(()).unwrap();
        let rest = client.rest_lossy();
        assert!(!rest.ends_with("0\r\n\r\n") && !rest.contains("HTTP/1.1"), "{name}: {rest}");
        later.wait_closed(1);
        next_is_well(&relay, &later, name);
    }
}

/// What comes after an answer belongs to nobody.
#[test]
fn a_second_answer_reaches_no_client() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (request, first) in [
        (GET, OK),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n"),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        // At once with the first, and later while the connection is idle.
        for late in [false, true] {
            let (go, wait) = mpsc::channel();
            let (wait, sent) = (Mutex::new(wait), Arc::new(AtomicBool::new(false)));
            let said = Arc::clone(&sent);
            let origin = hostile_first(move |stream| {
                let joined = format!("{first}{}", if late { "" } else { evil });
                stream.write_all(joined.as_bytes())?;
                let _ = wait.lock().unwrap().recv();
                if late {
                    stream.write_all(evil.as_bytes())?;
                }
                said.store(true, Ordering::SeqCst);
                stream.read_to_end(&mut Vec::new()).map(|_| ())
            });
            let relay = Relay::to(&origin);
            let mut client = Client::connect(&relay);
            client.send(request);
            let head = client.head();
            assert_eq!(head.lines().next(), first.lines().next());
            if first.ends_with("\r\n\r\nok") {
                client.expect("ok");
            } else if first.ends_with("\r\n\r\n0\r\n\r\n") {
                client.expect("0\r\n\r\n");
            }
            go.send(()).unwrap();
            wait_until("the second answer is sent", || sent.load(Ordering::SeqCst));
            client.send(GET);
            assert!(client.answer().ends_with("\r\n\r\nok"), "{first:?} {late}");
            assert_eq!(origin.connections(), 2, "{first:?} {late}: the connection was used again");
        }
    }
}

/// The same after bodies of all lengths: those that are read, those that fill a buffer, those that are spliced.
#[test]
fn a_second_answer_after_a_long_one_reaches_no_client() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let around = |length: usize| length - 300..length + 60;
    let lengths = around(8 * 1024).chain(around(16 * 1024)).chain(around(32 * 1024)).step_by(4);
    for length in lengths.chain([60_000, 100_000, 1_000_000]) {
        let origin = hostile_first(move |stream| {
            let body = "x".repeat(length);
            let both = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}{evil}");
            then_waits(&both)(stream)
        });
        let relay = Relay::to(&origin);
        let mut client = Client::connect(&relay);
        client.send(&format!("{GET}{GET}"));
        assert!(client.answer().ends_with("xxx"), "{length}");
        assert!(client.answer().ends_with("\r\n\r\nok"), "{length}: an answer to nobody was passed on");
    }
}

#[test]
fn a_server_that_never_answers_is_504() {
    for (name, text) in
        [("nothing", ""), ("half a head", "HTTP/1.1 200 OK\r\nConte"), ("no line", "SSH-2.0-x")]
    {
        let origin = hostile_first(then_waits(text));
        let relay = impatient(&origin);
        let mut client = Client::connect(&relay);
        client.send(GET);
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 504 "), "{name}: {head}");
        origin.wait_closed(1);
        next_is_well(&relay, &origin, name);
    }
}

#[test]
fn a_server_that_closes_early_is_502() {
    for (name, text) in [("nothing", ""), ("half a head", "HTTP/1.1 200 OK\r\nConte")] {
        for request in [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"] {
            let origin = hostile_first(then_ends(text.into()));
            let relay = Relay::to(&origin);
            let mut client = Client::connect(&relay);
            client.send(request);
            let head = client.head();
            assert!(head.starts_with("HTTP/1.1 502 "), "{name}: {head}");
            origin.wait_closed(1);
            next_is_well(&relay, &origin, name);
        }
    }
}

/// A server that takes no more of an upload is late, not the client.
#[test]
fn a_server_that_stops_reading_is_504() {
    const SIZE: usize = 64 * 1024 * 1024;
    let (over, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = hostile_first(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
        Ok(())
    });
    let relay = Relay::start(&origin, |timeouts| timeouts.body_ms = 1_000);
    // Made before, so that the client never pauses.
    let mut request = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").into_bytes();
    request.resize(request.len() + SIZE, b'x');
    let mut client = Client::connect(&relay);
    let mut upload = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let _ = upload.write_all(&request);
    });
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 504 ") && head.contains("connection: close\r\n"), "{head}");
    drop(over);
    let _ = client.stream.shutdown(Shutdown::Both);
    sender.join().unwrap();
    next_is_well(&relay, &origin, "stops reading");
}

/// A reset within an answer, as a server that is killed gives.
#[test]
fn a_server_that_resets_is_502_or_cut_off() {
    let origin = hostile_first(|stream| {
        let socket = socket2::SockRef::from(&*stream);
        socket.set_linger(Some(Duration::ZERO))
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    next_is_well(&relay, &origin, "reset");
}
