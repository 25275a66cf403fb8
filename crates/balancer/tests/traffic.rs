//! The balancer between clients and servers that come and go, without an agent.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

#[path = "traffic/algorithms.rs"]
mod algorithms;
#[path = "traffic/clients.rs"]
mod clients;
#[path = "traffic/faults.rs"]
mod faults;
#[path = "traffic/health.rs"]
mod health;
#[path = "traffic/names.rs"]
mod names;
#[path = "traffic/reload.rs"]
mod reload;
#[path = "traffic/resilience.rs"]
mod resilience;
#[path = "traffic/routing.rs"]
mod routing;
#[path = "traffic/seeing.rs"]
mod seeing;
#[path = "traffic/stage.rs"]
mod stage;
#[path = "traffic/websocket.rs"]
mod websocket;

use std::sync::atomic::Ordering;

use stage::{Balancer, Server, settle};

#[test]
fn servers_alternate() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |_| {});
    settle(&balancer, &["one", "two"]);
    let names = balancer.names(8);
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

#[test]
fn clients_cannot_say_who_they_are() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |_| {});
    let answer = balancer.ask(
        "GET / HTTP/1.1\r\nHost: www.foobar.com\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\n\
         Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
         X-Request-Id: mine\r\nX_Forwarded_For: 6.6.6.6\r\nConnection: close, X-Forwarded-For, X-Request-Id\r\n\r\n",
    );
    for line in [
        "x-forwarded-for: 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: www.foobar.com\n",
        "via: 1.1 balancer-1\n",
    ] {
        assert!(answer.body.contains(line), "{line:?} {}", answer.body);
    }
    assert!(answer.body.contains("x-request-id: ") && !answer.body.contains("mine"));
    assert!(!answer.body.contains("6.6.6.6") && !answer.body.contains("7.7.7.7"));
}

#[test]
fn via_is_shown_only_when_planned() {
    let one = Server::start("one");
    let shows = Balancer::before(&[&one], |section| section.shows_via = true);
    assert!(shows.get("/").head.contains("via: 1.1 one, 1.1 balancer-1"));
    let hides = Balancer::before(&[&one], |section| section.shows_via = false);
    assert!(!hides.get("/").head.contains("via:"));
}

#[test]
fn reserved_paths_do_not_pass() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |_| {});
    assert_eq!(balancer.get("/.dolmen/health").body, "ok\n");
    for path in ["/.dolmen/other", "//.dolmen/health", "/%2edolmen/health", "/a/../.dolmen/health"] {
        assert_eq!(balancer.get(path).status, 404, "{path}");
    }
}

#[test]
fn a_dead_server_costs_no_request_and_comes_back() {
    let (one, mut two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |_| {});
    settle(&balancer, &["one", "two"]);
    let address = two.address;
    two.die();
    for _ in 0..20 {
        let answer =
            balancer.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        assert_eq!((answer.status, answer.name().as_str()), (200, "one"));
    }
    let _two = Server::at(address, "two");
    settle(&balancer, &["one", "two"]);
}

#[test]
fn a_server_whose_check_fails_gets_nothing() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |_| {});
    settle(&balancer, &["one", "two"]);
    one.mood.healthy.store(false, Ordering::SeqCst);
    settle(&balancer, &["two"]);
    assert_eq!(balancer.names(4), ["two"; 4]);
}

#[test]
fn without_a_server_the_answer_is_503_at_once() {
    let mut one = Server::start("one");
    let balancer = Balancer::before(&[&one], |_| {});
    one.die();
    let answer = balancer.get("/");
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    assert!(answer.body.contains("<p><small>Request "));
}

#[test]
fn backups_and_passive_servers_wait() {
    let (mut one, two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |section| section.pool.servers[1].backup = true);
    balancer.wait_until_up(2);
    assert_eq!(balancer.names(4), ["one"; 4]);
    let three = Server::start("three");
    let passive = Balancer::before(&[&one, &three], |section| section.pool.mode = plan::Mode::ActivePassive);
    settle(&passive, &["one"]);
    one.die();
    assert_eq!(balancer.names(4), ["two"; 4]);
    assert_eq!(passive.names(4), ["three"; 4]);
}
