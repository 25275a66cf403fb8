//! Servers that freeze, are killed, get slow or come and go under load, and what the clients see of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{Balancer, PATIENCE, Server, settle};

const NAME: &str = "DOLMEN_TEST_SERVER";

/// A server that is a process of its own, so that it can be stopped and killed: this very program, which then runs
/// [`a_process_that_serves`].
struct Process {
    address: SocketAddr,
    child: Child,
}

impl Process {
    fn start(name: &str, address: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::a_process_that_serves", "--nocapture"])
            .env(NAME, format!("{name}@{address}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let says = |line: String| Some(line.split_once("serving on ")?.1.parse().unwrap());
        let address = lines.map_while(Result::ok).find_map(says).unwrap();
        Self { address, child }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Serves where another test started it by its name; by itself there is nothing that it could do.
#[test]
fn a_process_that_serves() {
    let Ok(wanted) = std::env::var(NAME) else { return };
    let (name, address) = wanted.split_once('@').unwrap();
    let server = Server::at(address.parse().unwrap(), String::leak(name.to_owned()));
    println!("serving on {}", server.address);
    // Until the test that started it is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

/// What the clients of a load saw.
#[derive(Debug, Default)]
struct Seen {
    good: usize,
    bad: Vec<(u16, String)>,
    longest: Duration,
}

/// Runs this while eight clients ask, each one request after the other.
fn under_load(what: &str, balancer: &Balancer, during: impl FnOnce()) -> Seen {
    const CLIENTS: usize = 8;
    let over = AtomicBool::new(false);
    let client = || {
        let mut seen = Seen::default();
        while !over.load(Ordering::SeqCst) {
            let began = Instant::now();
            let answer = balancer.get("/");
            seen.longest = seen.longest.max(began.elapsed());
            match answer.status {
                200 => seen.good += 1,
                status => seen.bad.push((status, answer.head)),
            }
        }
        seen
    };
    let seen = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        over.store(true, Ordering::SeqCst);
        let all = clients.into_iter().map(|client| client.join().unwrap());
        let seen = all.fold(Seen::default(), |mut sum, one| {
            sum.good += one.good;
            sum.bad.extend(one.bad);
            sum.longest = sum.longest.max(one.longest);
            sum
        });
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        seen
    });
    println!("{what}: {} answered, {} not, the longest took {:?}", seen.good, seen.bad.len(), seen.longest);
    seen
}

#[test]
fn requests_leave_a_frozen_server_when_its_checks_fail() {
    let (one, two) = (Process::start("one", "127.0.0.1:0"), Process::start("two", "127.0.0.1:0"));
    let balancer = Balancer::at(&[one.address, two.address], |_| {});
    balancer.wait_until_up(2);
    let seen = under_load("one of two frozen", &balancer, || {
        settle(&balancer, &["one", "two"]);
        one.signal(Signal::STOP);
        balancer.wait_until_up(1);
        settle(&balancer, &["two"]);
        one.signal(Signal::CONT);
        settle(&balancer, &["one", "two"]);
    });
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    // The time-out for the first byte is 30 s.
    assert!(seen.longest < PATIENCE, "{seen:?}");
}

#[test]
fn what_may_not_be_done_twice_stays_with_a_frozen_server() {
    let (one, two) = (Process::start("one", "127.0.0.1:0"), Process::start("two", "127.0.0.1:0"));
    let balancer = Balancer::at(&[one.address, two.address], |section| {
        section.pool.algorithm = plan::Algorithm::First;
    });
    balancer.wait_until_up(2);
    one.signal(Signal::STOP);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    std::thread::scope(|scope| {
        let posted = scope.spawn(|| balancer.ask(post).name());
        let got = scope.spawn(|| balancer.get("/").name());
        assert_eq!(got.join().unwrap(), "two");
        balancer.wait_until_up(1);
        one.signal(Signal::CONT);
        assert_eq!(posted.join().unwrap(), "one");
    });
}

#[test]
fn with_nobody_else_to_go_to_requests_wait_for_a_frozen_server() {
    let one = Process::start("one", "127.0.0.1:0");
    let balancer = Balancer::at(&[one.address], |_| {});
    balancer.wait_until_up(1);
    one.signal(Signal::STOP);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| balancer.get("/").status);
        balancer.wait_until("it is down", || balancer.says().contains("none of 1"));
        assert_eq!(balancer.get("/").status, 503);
        one.signal(Signal::CONT);
        assert_eq!(waits.join().unwrap(), 200);
    });
}

#[test]
fn a_killed_server_costs_no_request_that_may_be_repeated() {
    let (mut one, two) = (Process::start("one", "127.0.0.1:0"), Process::start("two", "127.0.0.1:0"));
    let balancer = Balancer::at(&[one.address, two.address], |_| {});
    balancer.wait_until_up(2);
    let seen = under_load("one of two killed and started again, three times", &balancer, || {
        for _ in 0..3 {
            let address = one.address.to_string();
            one.kill();
            settle(&balancer, &["two"]);
            one = Process::start("one", &address);
            settle(&balancer, &["one", "two"]);
        }
    });
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    assert!(seen.longest < PATIENCE, "{seen:?}");
}

#[test]
fn a_server_that_gets_slower_and_slower_is_left_in_time() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |_| {});
    balancer.wait_until_up(2);
    let seen = under_load("one of two slower and slower", &balancer, || {
        let mut delay = Duration::from_millis(10);
        while balancer.says().contains(" 2 of ") {
            one.mood.checks_wait.store(true, Ordering::SeqCst);
            one.slow_down(delay);
            delay = (delay * 2).min(Duration::from_secs(20));
            let next = Instant::now() + Duration::from_millis(50);
            while Instant::now() < next {
                std::thread::yield_now();
            }
        }
        settle(&balancer, &["two"]);
    });
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    assert!(seen.longest < PATIENCE, "{seen:?}");
}

#[test]
fn a_server_that_comes_and_goes_costs_nothing() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |_| {});
    balancer.wait_until_up(2);
    let seen = under_load("one of two down and up five times", &balancer, || {
        for _ in 0..5 {
            one.mood.healthy.store(false, Ordering::SeqCst);
            balancer.wait_until_up(1);
            one.mood.healthy.store(true, Ordering::SeqCst);
            balancer.wait_until_up(2);
        }
    });
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
}

/// Answers checks, and does this with everything else.
fn impostor(does: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut head = [0; 1024];
                let Ok(count) = stream.read(&mut head) else { return };
                match head[..count].starts_with(b"GET /.dolmen/health ") {
                    true => drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")),
                    false => does(stream),
                }
            });
        }
    });
    address
}

#[test]
fn a_server_that_answers_only_checks_is_ejected() {
    let silent = impostor(|mut stream| drop(stream.read(&mut [0])));
    let good = Server::start("good");
    let balancer = Balancer::at(&[silent, good.address], |section| section.timeouts.first_byte_ms = 200);
    balancer.wait_until_up(2);
    let seen = under_load("one of two answers nothing but checks", &balancer, || {
        balancer.wait_until_up(1);
        settle(&balancer, &["good"]);
    });
    assert!(seen.bad.iter().all(|(status, _)| *status == 504), "{:?}", seen.bad);
    // Each client can meet it once before it is out, and once more after its second in the corner.
    assert!((1..=20).contains(&seen.bad.len()), "{:?}", seen.bad);
}

#[test]
fn an_answer_that_breaks_off_is_never_passed_for_a_whole_one() {
    let breaks = impostor(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it").unwrap();
        // Closed with a byte unread: a reset.
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    });
    let good = Server::start("good");
    let balancer = Balancer::at(&[breaks, good.address], |section| section.pool.eject.statuses = true);
    balancer.wait_until_up(2);
    let mut broken = 0;
    let whole = |text: &crate::stage::Answer| text.name() == "good" && text.status == 200;
    while balancer.says().contains(" 2 of ") {
        let answer = balancer.get("/");
        assert!(whole(&answer) || answer.status != 200 || answer.body.len() < 100, "{answer:?}");
        broken += usize::from(!whole(&answer));
    }
    println!("an answer that breaks off: {broken} clients saw it break");
    assert_eq!(broken, 3, "three in a row eject where answers count");
}
