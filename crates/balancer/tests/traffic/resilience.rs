//! More requests than servers, or clients, may have; and servers that fail.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use plan::{Queue, RateLimit};

use crate::stage::{Balancer, Server, get, talk};

fn limited(section: &mut plan::Balancer, length: u32, timeout_ms: u64) {
    section.pool.servers.iter_mut().for_each(|server| server.max_connections = Some(1));
    section.pool.queue = Queue { length, timeout_ms };
}

#[test]
fn what_is_too_much_for_a_server_waits_its_turn() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| limited(section, 10, 10_000));
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..6).map(|_| scope.spawn(|| balancer.get("/slow/30").status)).collect();
        balancer.wait_for_requests(1);
        let most = (0..20).map(|_| one.mood.busy.load(std::sync::atomic::Ordering::SeqCst)).max();
        assert_eq!(most, Some(1));
        for thread in slow {
            assert_eq!(thread.join().unwrap(), 200);
        }
    });
}

#[test]
fn another_server_takes_what_one_may_not() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |section| {
        limited(section, 0, 1_000);
        section.pool.algorithm = plan::Algorithm::First;
    });
    balancer.wait_until_up(2);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| balancer.get("/slow/1000").name());
        balancer.wait_for_requests(1);
        assert_eq!(balancer.names(4), ["two"; 4]);
        assert_eq!(slow.join().unwrap(), "one");
    });
}

#[test]
fn a_full_queue_is_503_at_once_and_a_long_wait_is_503_in_time() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| limited(section, 1, 300));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| balancer.get("/slow/2000").status);
        balancer.wait_for_requests(1);
        let began = Instant::now();
        let waits = scope.spawn(|| balancer.get("/"));
        let late = waits.join().unwrap();
        assert_eq!(late.status, 503);
        assert!(late.head.contains("retry-after: 1"), "{}", late.head);
        assert!((300..1_500).contains(&(began.elapsed().as_millis() as u64)), "{:?}", began.elapsed());
        // Two come while one may wait.
        let balancer = &balancer;
        let timed = move || {
            let began = Instant::now();
            (balancer.get("/").status, began.elapsed())
        };
        let both: Vec<_> = (0..2).map(|_| scope.spawn(timed)).collect();
        let mut both: Vec<_> = both.into_iter().map(|thread| thread.join().unwrap()).collect();
        both.sort_by_key(|(_, took)| *took);
        assert_eq!([both[0].0, both[1].0], [503, 503]);
        assert!(both[0].1 < Duration::from_millis(250), "{both:?}");
        assert_eq!(slow.join().unwrap(), 200);
    });
}

#[test]
fn a_client_that_leaves_while_it_waits_gives_its_place_to_others() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| limited(section, 3, 60_000));
    let queue = |length| {
        balancer.wait_until("so many wait", || balancer.traffic()[0].queue == length);
    };
    let ask = |text: &str| {
        let mut client = TcpStream::connect(balancer.address).unwrap();
        client.write_all(text.as_bytes()).unwrap();
        client
    };
    let request = get("a", "", "/");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| balancer.get("/slow/3000").status);
        balancer.wait_for_requests(1);
        let (closes, half, resets) = (ask(&request), ask(&request), ask(&request));
        queue(3);
        assert_eq!(balancer.get("/").status, 503, "the queue is full");
        drop(closes);
        half.shutdown(std::net::Shutdown::Write).unwrap();
        socket2::SockRef::from(&resets).set_linger(Some(Duration::ZERO)).unwrap();
        drop(resets);
        queue(0);
        // Whoever sends its next request meanwhile is there, as far as anybody can see.
        let more = ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let next = scope.spawn(|| talk(more, &request));
        queue(1);
        assert_eq!(next.join().unwrap().body.matches("one /").count(), 2);
        assert_eq!(slow.join().unwrap(), 200);
    });
    let left = || balancer.traffic()[0].counts.ended.get("client-left").copied();
    balancer.wait_until("they are counted", || left() == Some(3));
}

#[test]
fn whoever_waits_is_answered_when_the_server_is_lost() {
    let mut one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| limited(section, 10, 60_000));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| balancer.get("/slow/5000").status);
        balancer.wait_for_requests(1);
        let waits = scope.spawn(|| balancer.get("/").status);
        one.die();
        assert_eq!(waits.join().unwrap(), 503);
        assert!(slow.join().unwrap() >= 502);
    });
}

#[test]
fn retries_are_a_part_of_all_requests() {
    let (one, mut two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |section| {
        let check = &mut section.pool.check;
        (check.interval_ms, check.fast_interval_ms) = (3_600_000, 3_600_000);
        section.pool.eject.share = 0;
    });
    balancer.wait_until_up(2);
    two.die();
    let statuses: Vec<_> = (0..120).map(|_| balancer.get("/").status).collect();
    let lost = statuses.iter().filter(|status| **status == 503).count();
    // Half of them need a second try: 60 of 120, of which the floor and a fifth are granted.
    assert!((5..=30).contains(&lost), "{statuses:?}");
    assert!(statuses[..20].iter().all(|status| *status == 200), "{statuses:?}");
}

#[test]
fn without_retries_each_request_is_sent_once() {
    let (one, mut two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |section| {
        let check = &mut section.pool.check;
        (check.interval_ms, check.fast_interval_ms) = (3_600_000, 3_600_000);
        (section.pool.eject.share, section.pool.retries) = (0, Some(0));
    });
    balancer.wait_until_up(2);
    two.die();
    let lost = (0..8).filter(|_| balancer.get("/").status == 503).count();
    assert_eq!(lost, 4);
}

#[test]
fn a_client_that_asks_too_often_is_told_to_wait() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |_| {});
    let limited = Balancer::before(&[], |section| {
        section.rate_limit = Some(RateLimit { requests: 1, per_ms: 3_600_000, burst: 3 });
    });
    let statuses: Vec<_> = (0..5).map(|_| limited.get_from("127.0.92.1", "/").status).collect();
    assert_eq!(statuses, [503, 503, 503, 429, 429]);
    let answer = limited.get_from("127.0.92.1", "/");
    let wait = answer.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((3_500..=3_600).contains(&wait.parse::<u32>().unwrap()), "{wait}");
    assert_eq!(limited.get_from("127.0.92.2", "/").status, 503);
    assert_eq!(limited.get_from("127.0.92.1", "/.dolmen/health").status, 200);
    assert_eq!(balancer.get("/").status, 200);
}

#[test]
fn what_is_too_large_is_refused() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| {
        section.limits.body_bytes = Some(10);
        section.limits.header_bytes = Some(300);
    });
    let post = |body: &str| {
        let length = body.len();
        balancer.ask(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    };
    assert_eq!((post("0123456789").status, post("0123456789x").status), (200, 413));
    assert_eq!(balancer.get_with(&format!("X-Long: {}\r\n", "x".repeat(300)), "/").status, 431);
}

#[test]
fn connections_past_the_limit_wait_in_the_backlog() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| section.limits.connections = Some(1));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| balancer.get("/slow/200").status);
        balancer.wait_for_requests(1);
        let began = Instant::now();
        assert_eq!(balancer.get("/").status, 200);
        assert!(began.elapsed() > Duration::from_millis(50), "{:?}", began.elapsed());
        assert_eq!(slow.join().unwrap(), 200);
    });
}
