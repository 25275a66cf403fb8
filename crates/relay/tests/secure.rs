//! The engine with TLS between two of its servers: what goes in at one end comes out at the other, and nobody else is
//! let in.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

#[allow(dead_code)] // other tests use more of it
#[path = "sockets/stage.rs"]
mod stage;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown};
use std::path::PathBuf;
use std::time::Duration;

use link::api::{Authority, Delegate};
use relay::{Inner, Secured};
use stage::{Client, Origin, Relay, always, read_head};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A machine that nobody in these scenes comes from.
const ELSEWHERE: &str = "192.0.2.1";

/// The keys of a site, and its folder.
struct Site(PathBuf);

impl Site {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("dolmen-secure-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn keys(&self, machine: &str) -> Delegate {
        let folder = self.0.join(machine);
        std::fs::create_dir_all(&folder).unwrap();
        Authority::open(&self.0).unwrap().issue(machine, &folder).unwrap();
        Delegate::given(&Delegate::secrets(&folder, &[]).unwrap()).unwrap()
    }

    fn inner(&self, machine: &str, own: &str, encrypted: bool) -> Inner {
        Inner::new(self.keys(machine).server(), own.parse::<IpAddr>().unwrap(), encrypted, 0)
    }

    fn to(&self, machine: &str) -> Secured {
        self.keys("front").client(machine).unwrap().into()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// One relay that reaches another one in TLS, which reaches the origin.
fn chain(site: &Site, origin: &Origin) -> (Relay, Relay) {
    let back = Relay::within("127.0.0.1:0", site.inner("back", ELSEWHERE, true), origin);
    (Relay::before(&back, site.to("back")), back)
}

#[test]
fn requests_pass_and_connections_are_kept() {
    let (site, origin) = (Site::new("pass"), always(OK));
    let (front, back) = chain(&site, &origin);
    let mut client = Client::connect(&front);
    for _ in 0..20 {
        client.send(GET);
        assert!(client.answer().ends_with("ok"));
    }
    // Several in one piece.
    client.send(&GET.repeat(5));
    (0..5).for_each(|_| assert!(client.answer().ends_with("ok")));
    assert_eq!((back.count("connections"), origin.connections()), (1, 1));
    assert!(origin.seen()[0].contains("via: 1.1 relay, 1.1 relay"), "{:?}", origin.seen()[0]);
}

#[test]
fn bodies_of_all_lengths_come_out_as_they_went_in() {
    let origin = Origin::start(|stream, _| {
        while let Some(head) = read_head(stream) {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body)?;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
            stream.write_all(&body)?;
        }
        Ok(())
    });
    let site = Site::new("lengths");
    let (front, back) = chain(&site, &origin);
    let mut client = Client::connect(&front);
    let lengths = (0..40).chain((10..22).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1]));
    for length in lengths {
        let body: Vec<u8> = (0..length).map(|at: usize| b'a' + (at * 7 % 26) as u8).collect();
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let mut sends = client.stream.try_clone().unwrap();
        let sent = body.clone();
        let sending = std::thread::spawn(move || {
            sends.write_all(head.as_bytes()).unwrap();
            sends.write_all(&sent).unwrap();
        });
        let answer = client.answer();
        sending.join().unwrap();
        let (_, got) = answer.split_once("\r\n\r\n").unwrap();
        assert!(got.as_bytes() == body, "{length} bytes came out as {}", got.len());
    }
    assert_eq!(back.count("connections"), 1);
}

#[test]
fn chunks_and_trailers_pass_and_an_answer_without_length_ends() {
    let site = Site::new("chunks");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n";
    let origin = always(chunked);
    let (front, _back) = chain(&site, &origin);
    let mut client = Client::connect(&front);
    for _ in 0..3 {
        client.send(GET);
        client.head();
        client.expect("3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n");
    }
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    });
    let (front, _back) = chain(&site, &origin);
    let mut client = Client::connect(&front);
    client.send(GET);
    assert!(client.rest().ends_with("\r\n\r\nuntil the end"));
}

#[test]
fn a_tunnel_goes_both_ways_and_one_way_after_the_other_has_ended() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nfirst",
        )?;
        let mut bytes = [0; 4096];
        loop {
            match stream.read(&mut bytes)? {
                0 => return stream.write_all(b"bye"),
                count => stream.write_all(&bytes[..count])?,
            }
        }
    });
    let site = Site::new("tunnel");
    let (front, _back) = chain(&site, &origin);
    let mut client = Client::connect(&front);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nearly");
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    client.expect("firstearly");
    for length in [1, 100, 10_000] {
        let text = "x".repeat(length);
        client.send(&text);
        client.expect(&text);
    }
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "bye");
}

#[test]
fn a_slow_reader_slows_the_origin_down() {
    const SIZE: usize = 32 * 1024 * 1024;
    let origin = Origin::start(|stream, seen| {
        read_head(stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")?;
        let block = vec![b'x'; 1024 * 1024];
        for _ in 0..SIZE / block.len() {
            stream.write_all(&block)?;
            seen.push(String::new());
        }
        Ok(())
    });
    let site = Site::new("slow");
    let (front, _back) = chain(&site, &origin);
    let mut client = Client::connect(&front);
    client.send(GET);
    client.head();
    // While nobody reads, only what fits into the sockets on the way is on its way.
    std::thread::sleep(Duration::from_millis(500));
    assert!(origin.seen().len() < SIZE / (1024 * 1024), "all of it is somewhere");
    let (mut seen, mut block) = (0, vec![0; 256 * 1024]);
    while seen < SIZE {
        seen += client.read(&mut block);
    }
    assert_eq!(seen, SIZE);
}

#[test]
fn who_is_not_of_the_site_is_not_answered() {
    let (site, other, origin) = (Site::new("ours"), Site::new("theirs"), always(OK));
    let back = Relay::within("127.0.0.1:0", site.inner("back", ELSEWHERE, true), &origin);
    // Another site's keys, at either end, and another machine than the one that is wanted.
    for secured in [other.to("back"), site.to("other")] {
        let front = Relay::before(&back, secured);
        let mut client = Client::connect(&front);
        client.send(GET);
        assert!(client.head().starts_with("HTTP/1.1 502 "));
    }
    let forged = Relay::within("127.0.0.1:0", other.inner("back", ELSEWHERE, true), &origin);
    let front = Relay::before(&forged, site.to("back"));
    let mut client = Client::connect(&front);
    client.send(GET);
    assert!(client.head().starts_with("HTTP/1.1 502 "));
    // Garbage that begins like TLS, and like nothing.
    for bytes in [&[22_u8; 600][..], &[22], &[0; 30]] {
        let mut client = Client::connect(&back);
        client.send_bytes(bytes);
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(!client.rest_lossy().contains("HTTP/1.1 200"));
    }
    assert_eq!(origin.seen().len(), 0);
    back.wait_for("connections_open", 0);
}

#[test]
fn a_site_without_tls_takes_both() {
    let (site, origin) = (Site::new("plain"), always(OK));
    let back = Relay::within("127.0.0.1:0", site.inner("back", ELSEWHERE, false), &origin);
    let front = Relay::before(&back, site.to("back"));
    for relay in [&front, &back] {
        let mut client = Client::connect(relay);
        for _ in 0..3 {
            client.send(GET);
            assert!(client.answer().ends_with("ok"));
        }
    }
}

#[test]
fn nobody_waits_for_a_client_that_says_nothing() {
    let (site, origin) = (Site::new("silent"), always(OK));
    let back = Relay::within("127.0.0.1:0", site.inner("back", ELSEWHERE, true), &origin);
    let (_silent, mut half) = (Client::connect(&back), Client::connect(&back));
    half.send_bytes(&[22, 3, 1]);
    back.wait_for("connections_open", 2);
    let began = std::time::Instant::now();
    back.drain();
    back.wait_for("connections_open", 0);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn after_a_revocation_all_show_their_keys_again() {
    let (site, origin) = (Site::new("revoked"), always(OK));
    let inner = site.inner("back", ELSEWHERE, true);
    let back = Relay::within("127.0.0.1:0", inner.clone(), &origin);
    let front = Relay::before(&back, site.to("back"));
    let mut client = Client::connect(&front);
    let mut asks = || {
        client.send(GET);
        assert!(client.answer().ends_with("ok"));
        back.count("connections")
    };
    assert_eq!([asks(), asks()], [1, 1]);
    inner.follow(true, 1);
    // The answer on the old connection is the last one there.
    assert_eq!([asks(), asks(), asks()], [1, 2, 2]);
}
