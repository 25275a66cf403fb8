//! Clients that end their half, read slowly or send on, and what is waited for, for how long.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use relay::{Io, Settings, Tuning};

use crate::stage::{Client, Origin, Relay, read_head, timeouts, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Answers each request with so many bytes, and goes on with the next only when all of them were taken.
fn answering(length: usize) -> Origin {
    Origin::start(move |stream, _| {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length));
        while read_head(stream).is_some() {
            stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    })
}

/// The time that this process has used on processors.
fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Threads of the kernel's that wait in our name.
fn kernel_workers() -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("iou-wrk")).count()
}

/// io_uring tells of such a socket again and again that it is ready.
#[test]
fn a_client_that_ended_its_half_and_does_not_read_costs_nothing() {
    for io in [Io::Epoll, Io::Uring] {
        for (length, requests) in [(64 << 20, 1), (4_000, 5_000)] {
            let origin = answering(length);
            let relay = Relay::through(io, &origin);
            let mut client = Client::connect(&relay);
            client.send(GET);
            client.head();
            client.send(&GET.repeat(requests - 1));
            client.stream.shutdown(Shutdown::Write).unwrap();
            let window = Duration::from_millis(500);
            wait_until("all is still", || {
                let before = used();
                std::thread::sleep(window);
                used() - before < window / 5
            });
            assert_eq!(kernel_workers(), 0, "{io:?}: sends wait in threads");
            let mut rest = vec![0; length];
            client.stream.read_exact(&mut rest).unwrap();
            for _ in 1..requests {
                client.head();
                client.stream.read_exact(&mut rest).unwrap();
            }
            assert_eq!(client.rest(), "", "{io:?}");
        }
    }
}

#[test]
fn after_an_interim_answer_the_time_of_the_target_holds() {
    for (first_byte_ms, body_ms, status) in [(10_000, 300, 200), (300, 10_000, 504)] {
        let origin = Origin::start(move |stream, _| {
            read_head(stream);
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
            std::thread::sleep(Duration::from_secs(2));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        });
        let relay = Relay::start(&origin, |timeouts| {
            (timeouts.first_byte_ms, timeouts.body_ms) = (first_byte_ms, body_ms);
        });
        let mut client = Client::connect(&relay);
        client.send(GET);
        assert!(client.head().starts_with("HTTP/1.1 103 "));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{first_byte_ms} {body_ms} {head}");
    }
}

/// Most libraries read the answer only when they have sent all.
#[test]
fn an_upload_that_is_refused_may_take_its_time() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 413 Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    for io in [Io::Epoll, Io::Uring] {
        let relay = Relay::through(io, &origin);
        let mut client = Client::connect(&relay);
        let parts = 12;
        client.send(&format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", parts << 20));
        for _ in 0..parts {
            client.stream.write_all(&vec![b'x'; 1 << 20]).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        let answer = client.rest();
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("big"), "{io:?} {answer}");
    }
}

#[test]
fn a_request_that_comes_too_late_does_not_cost_the_answer_before() {
    const LENGTH: usize = 400_000;
    for io in [Io::Epoll, Io::Uring] {
        let (go, wait) = mpsc::channel();
        let wait = Arc::new(Mutex::new(wait));
        let origin = Origin::start(move |stream: &mut TcpStream, _| {
            read_head(stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            let _ = wait.lock().unwrap().recv();
            stream.write_all(&vec![b'x'; LENGTH])
        });
        let relay = Relay::through(io, &origin);
        let mut client = Client::connect(&relay);
        client.send(GET);
        client.head();
        client.send(GET);
        go.send(()).unwrap();
        wait_until("all was sent", || relay.count("bytes_out") > LENGTH as u64);
        origin.wait_closed(1);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(client.rest().len(), LENGTH, "{io:?}");
        drop(client);
        relay.wait_for("connections_open", 0);
    }
}

#[test]
fn lingering_ends_when_the_thread_drains() {
    let origin = Origin::start(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 413 Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    let relay = Relay::to(&origin);
    let mut client = Client::connect(&relay);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n");
    assert!(client.rest().ends_with("big"));
    assert_eq!(relay.count("connections_open"), 1);
    let began = Instant::now();
    relay.drain();
    relay.wait_for("connections_open", 0);
    assert!(began.elapsed() < Duration::from_millis(3_500), "{:?}", began.elapsed());
}

/// The wait for a PROXY header is as long as the latest plan says.
#[test]
fn a_silent_proxy_is_given_up_by_the_settings_of_now() {
    let origin = answering(0);
    let began_with = plan::Timeouts { header_ms: 60_000, ..timeouts() };
    let settings = Settings::new(began_with);
    let (_tune, tuned) = tokio::sync::watch::channel(Tuning {
        timeouts: plan::Timeouts { header_ms: 200, ..began_with },
        connections: 10,
        proxies: [plan::Network { address: [127, 0, 0, 0].into(), bits: 8 }].into(),
        pages: Arc::default(),
    });
    let relay = Relay::set("127.0.0.1:0", vec![origin.address()], settings.tuned(tuned));
    assert_eq!(Client::connect(&relay).rest(), "");
}
