//! Nothing is left behind: descriptors, tasks and memory are counted before and after what goes wrong.
//!
//! One test, since it counts what the whole process has.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

#[allow(dead_code)] // other tests use more of it
#[path = "sockets/stage.rs"]
mod stage;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stage::{Client, Origin, Relay, read_head, wait_until};

/// Requests that are cut at every byte, each way of a request through the engine.
const REQUESTS: [&str; 4] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: e\r\nConnection: Upgrade\r\n\r\nfirst",
];

/// What a server does on its n-th connection.
const ANSWERS: [&str; 8] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: e\r\nConnection: Upgrade\r\n\r\ntunnel",
    "SSH-2.0-x\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "",
];

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn nothing_is_left_of_what_went_wrong() {
    // The runtime opens some descriptors once for the whole process.
    drop(Relay::to(&Origin::start(|_, _| Ok(()))));
    wait_until("the test and its runner are alone", || threads() <= 2);
    let before = (descriptors(), threads());
    misbehave();
    wait_until("all descriptors are closed", || descriptors() <= before.0);
    wait_until("all threads have ended", || threads() <= before.1);
    stream_a_large_body();
    wait_until("all descriptors are closed", || descriptors() <= before.0);
}

/// Clients that vanish at every byte, by a reset and in good order, before servers of every kind.
fn misbehave() {
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |stream, _| {
        let answer = ANSWERS[count.fetch_add(1, Ordering::SeqCst) % ANSWERS.len()];
        while read_head(stream).is_some() {
            stream.write_all(answer.as_bytes())?;
            if !answer.ends_with("ok") && !answer.ends_with("0\r\n\r\n") {
                return Ok(());
            }
        }
        Ok(())
    });
    let relay = Relay::start(&origin, |timeouts| {
        timeouts.first_byte_ms = 200;
        timeouts.body_ms = 200;
        timeouts.header_ms = 200;
        timeouts.tunnel_ms = 200;
        timeouts.idle_ms = 200;
    });
    let mut clients = 0;
    for request in REQUESTS {
        for cut in 0..=request.len() {
            for resets in [false, true] {
                vanish(&relay, &request[..cut], resets);
                clients += 1;
            }
        }
    }
    // The connections of clients are the tasks of the engine. Half of them are reset, many before they are accepted.
    relay.wait_for("connections_open", 0);
    println!("{clients} clients vanished, over {} connections to servers", origin.connections());
    assert!(relay.count("connections") >= clients / 2);
    assert!(clients > 400 && origin.connections() > 50);
}

fn vanish(relay: &Relay, text: &str, resets: bool) {
    let mut client = Client::connect(relay);
    client.send(text);
    if resets {
        let socket = socket2::SockRef::from(&client.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    } else {
        let _ = client.stream.shutdown(Shutdown::Write);
    }
}

/// How much goes through (in the drill DOLMEN_DRILL_GIB), and the time after which less is enough (there it never is).
const BODY_GIB: u64 = 2;
const BODY_TIME: Duration = Duration::from_secs(20);
const DRILL_TIME: Duration = Duration::from_secs(600);

/// The reader is slower than the server; what is between them must not pile up. Chunked, so that all of the
/// engine takes part.
fn stream_a_large_body() {
    let drill = std::env::var("DOLMEN_DRILL_GIB").ok().map(|gib| gib.parse::<u64>().unwrap());
    let body_bytes = drill.unwrap_or(BODY_GIB) << 30;
    let (time, enough) = if drill.is_some() { (DRILL_TIME, body_bytes) } else { (BODY_TIME, 256 << 20) };
    let origin = Origin::start(move |stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let mut chunk = b"10000\r\n".to_vec();
        chunk.resize(chunk.len() + 0x10000, b'x');
        chunk.extend_from_slice(b"\r\n");
        for _ in 0..body_bytes / 0x10000 {
            stream.write_all(&chunk)?;
        }
        stream.write_all(b"0\r\n\r\n")
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    let mut block = vec![0; 64 * 1024];
    let began = Instant::now();
    let mut seen = read_some(&mut client.stream, &mut block, 16 * 1024 * 1024);
    let (before, mut most) = (resident_kib(), 0);
    while began.elapsed() < time && seen < body_bytes {
        let now = read_some(&mut client.stream, &mut block, 32 * 1024 * 1024);
        if now == 0 {
            break;
        }
        seen += now;
        // A pause, in which everything behind the reader fills up.
        std::thread::sleep(Duration::from_millis(20));
        most = most.max(resident_kib());
    }
    let grown = most.saturating_sub(before);
    println!("{} MiB in {:?}, memory from {before} to at most {most} KiB", seen >> 20, began.elapsed());
    assert!(seen >= enough, "only {seen} bytes");
    assert!(grown < 8 * 1024, "memory grew by {grown} KiB");
}

fn read_some(stream: &mut TcpStream, block: &mut [u8], limit: u64) -> u64 {
    let mut seen = 0;
    while seen < limit {
        match stream.read(block) {
            Ok(count) if count > 0 => seen += count as u64,
            _ => break,
        }
    }
    seen
}
