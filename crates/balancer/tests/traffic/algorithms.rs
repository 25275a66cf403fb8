//! Each algorithm by what clients see of it.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use plan::Algorithm;

use crate::stage::{Balancer, Server, settle};

fn three() -> [Server; 3] {
    [Server::start("one"), Server::start("two"), Server::start("three")]
}

fn before(servers: &[Server; 3], change: impl Fn(&mut plan::Pool)) -> Balancer {
    let all: Vec<_> = servers.iter().collect();
    let balancer = Balancer::before(&all, |section| change(&mut section.pool));
    // Every server is up once all of them answer clients that have nothing in common.
    balancer.wait_until_up(3);
    balancer
}

fn count(names: &[String], name: &str) -> usize {
    names.iter().filter(|other| *other == name).count()
}

/// Requests that are under way while `then` runs.
fn while_slow<T>(balancer: &Balancer, slow: usize, ms: u64, then: impl FnOnce() -> T) -> (Vec<String>, T) {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..slow).map(|_| scope.spawn(move || balancer.get(&format!("/slow/{ms}")).name())).collect();
        balancer.wait_for_requests(slow);
        let result = then();
        (threads.into_iter().map(|thread| thread.join().unwrap()).collect(), result)
    })
}

#[test]
fn round_robin_goes_by_weight() {
    let servers = three();
    let balancer = before(&servers, |pool| {
        pool.servers[0].weight = 2;
        pool.servers[2].weight = 0;
    });
    let names = balancer.names(12);
    assert_eq!((count(&names, "one"), count(&names, "two")), (8, 4), "{names:?}");
}

#[test]
fn least_connections_avoids_the_busy() {
    let servers = three();
    let balancer = before(&servers, |pool| pool.algorithm = Algorithm::LeastConnections);
    let (slow, quick) = while_slow(&balancer, 2, 1_000, || balancer.names(6));
    assert_ne!(slow[0], slow[1]);
    assert!(quick.iter().all(|name| !slow.contains(name)), "{slow:?} {quick:?}");
}

#[test]
fn random_two_reaches_all_and_avoids_the_busy() {
    let servers = three();
    let balancer = before(&servers, |pool| pool.algorithm = Algorithm::RandomTwo);
    settle(&balancer, &["one", "three", "two"]);
    let pair = Balancer::before(&[&servers[0], &servers[1]], |section| {
        section.pool.algorithm = Algorithm::RandomTwo;
    });
    pair.wait_until_up(2);
    let (slow, quick) = while_slow(&pair, 1, 1_000, || pair.names(6));
    assert!(!quick.contains(&slow[0]), "{slow:?} {quick:?}");
}

/// Its checks are well, and it answers nothing else: nothing is known of it but its silence.
#[test]
fn least_time_avoids_the_silent() {
    let (a, b) = (Server::start("a"), Server::start("b"));
    a.slow_down(Duration::from_secs(20));
    b.slow_down(Duration::from_millis(20));
    let addresses = [a.address, b.address];
    let balancer = Balancer::at(&addresses, |planned| planned.pool.algorithm = plan::Algorithm::LeastTime);
    balancer.wait_until_up(2);
    std::thread::scope(|scope| {
        let asks: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..25 {
                        // A client that has no patience: most are answered, and it asks again.
                        let mut stream = std::net::TcpStream::connect(balancer.address).unwrap();
                        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                        stream.write_all(crate::stage::get("www.foobar.com", "", "/").as_bytes()).unwrap();
                        let _ = stream.read(&mut [0; 1024]);
                    }
                })
            })
            .collect();
        asks.into_iter().for_each(|ask| ask.join().unwrap());
    });
    let asked = |server: &Server| server.mood.asked.load(Ordering::SeqCst);
    assert!(
        asked(&a) <= 15 && asked(&b) >= 85,
        "{} to the silent one, {} to the other",
        asked(&a),
        asked(&b)
    );
}

#[test]
fn least_time_avoids_the_slow() {
    let servers = three();
    servers[1].slow_down(Duration::from_millis(100));
    let balancer = before(&servers, |pool| pool.algorithm = Algorithm::LeastTime);
    let names = balancer.names(30);
    assert!(count(&names, "two") <= 2, "{names:?}");
}

#[test]
fn first_is_the_first_that_is_up() {
    let mut servers = three();
    let balancer = before(&servers, |pool| pool.algorithm = Algorithm::First);
    assert_eq!(balancer.names(4), ["one"; 4]);
    servers[0].die();
    assert_eq!(balancer.names(4), ["two"; 4]);
}

#[test]
fn source_hash_keeps_a_client_where_it_is() {
    let mut servers = three();
    let balancer = before(&servers, |pool| pool.algorithm = Algorithm::SourceHash);
    let clients: Vec<String> = (1..30).map(|last| format!("127.0.91.{last}")).collect();
    let ask = || clients.iter().map(|client| balancer.get_from(client, "/").name()).collect::<Vec<_>>();
    let before = ask();
    assert_eq!(before, ask());
    servers[2].die();
    for (old, new) in before.iter().zip(ask()) {
        assert!(*old == new || old == "three", "{old} became {new}");
    }
    assert!(["one", "two", "three"].iter().all(|name| before.contains(&(*name).to_owned())), "{before:?}");
}

#[test]
fn uri_hash_keeps_a_path_where_it_is() {
    let servers = three();
    let balancer = before(&servers, |pool| pool.algorithm = Algorithm::UriHash);
    let ask = |query: &str| (0..30).map(|n| balancer.get(&format!("/{n}{query}")).name()).collect::<Vec<_>>();
    let names = ask("");
    assert_eq!(names, ask("?x=1"));
    assert!(["one", "two", "three"].iter().all(|name| count(&names, name) > 0), "{names:?}");
}

#[test]
fn header_and_cookie_hash_keep_a_user_where_they_are() {
    let servers = three();
    for (algorithm, by, field) in [
        (Algorithm::HeaderHash, "x-user", "X-User: "),
        (Algorithm::CookieHash, "user", "Cookie: theme=dark; user="),
    ] {
        let balancer = before(&servers, |pool| {
            pool.algorithm = algorithm;
            pool.hash_by = Some(by.into());
        });
        let ask = |user: usize| balancer.get_with(&format!("{field}{user}\r\n"), "/").name();
        let names: Vec<_> = (0..30).map(ask).collect();
        assert_eq!(names, (0..30).map(ask).collect::<Vec<_>>());
        assert!(["one", "two", "three"].iter().all(|name| count(&names, name) > 0), "{names:?}");
        // Those who have none take turns.
        assert_eq!(count(&balancer.names(6), "one"), 2);
    }
}

#[test]
fn a_sticky_client_comes_back_until_its_server_is_gone() {
    let mut servers = three();
    let balancer = before(&servers, |pool| pool.sticky = Some(plan::Sticky { cookie: "dolmen".into() }));
    let first = balancer.get("/");
    let told = |head: &str| {
        let line = head.lines().find(|line| line.starts_with("set-cookie: dolmen="));
        line.map(|line| line.trim_start_matches("set-cookie: ").split(';').next().unwrap().to_owned())
    };
    let cookie = told(&first.head).unwrap();
    assert!(first.head.contains("; Path=/; HttpOnly; SameSite=Lax"), "{}", first.head);
    for _ in 0..5 {
        let again = balancer.get_with(&format!("Cookie: {cookie}\r\n"), "/");
        assert_eq!((again.name(), told(&again.head)), (first.name(), None));
    }
    let index = ["one", "two", "three"].iter().position(|name| *name == first.name()).unwrap();
    servers[index].die();
    let moved = balancer.get_with(&format!("Cookie: {cookie}\r\n"), "/");
    assert_eq!(moved.status, 200);
    assert_ne!(moved.name(), first.name());
    let after = told(&moved.head).unwrap();
    assert_eq!(balancer.get_with(&format!("Cookie: {after}\r\n"), "/").name(), moved.name());
}
