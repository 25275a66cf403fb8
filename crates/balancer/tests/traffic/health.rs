//! Servers that go wrong in ways that only requests, or only checks, see.

use std::sync::atomic::Ordering;

use plan::{CheckKind, StatusRange};

use crate::stage::{Balancer, Server, settle};

/// Only requests find out what is wrong: the next check is far away.
fn blind(check: &mut plan::Check) {
    (check.interval_ms, check.fast_interval_ms) = (3_600_000, 3_600_000);
}

#[test]
fn requests_eject_a_server_and_time_brings_it_back() {
    let (one, mut two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |section| blind(&mut section.pool.check));
    balancer.wait_until_up(2);
    let address = two.address;
    two.die();
    assert_eq!(balancer.names(8), ["one"; 8]);
    balancer.wait_until_up(1);
    assert!(balancer.says().ends_with("down: web-2"), "{}", balancer.says());
    let two = Server::at(address, "two");
    settle(&balancer, &["one", "two"]);
    drop(two);
}

#[test]
fn answers_of_500_eject_where_the_plan_says_so() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let patient = Balancer::before(&[&one, &two], |section| blind(&mut section.pool.check));
    let strict = Balancer::before(&[&one, &two], |section| {
        blind(&mut section.pool.check);
        section.pool.eject.statuses = true;
        section.pool.eject.failures = 2;
    });
    for balancer in [&patient, &strict] {
        balancer.wait_until_up(2);
        for _ in 0..8 {
            assert_eq!(balancer.get("/status/500").status, 500);
        }
    }
    // One of two may go, and not the other.
    strict.wait_until_up(1);
    patient.wait_until_up(2);
    assert_eq!(strict.get("/").status, 200);
}

#[test]
fn a_single_server_is_never_ejected() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| {
        blind(&mut section.pool.check);
        section.pool.eject.statuses = true;
    });
    for _ in 0..6 {
        balancer.get("/status/503");
    }
    assert_eq!(balancer.get("/").status, 200);
}

#[test]
fn a_check_asks_for_what_the_plan_expects() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |section| {
        let check = &mut section.pool.check;
        check.path = "/status/418".into();
        check.host = Some("check.foobar.com".into());
        check.statuses = vec![StatusRange { first: 200, last: 204 }, StatusRange { first: 418, last: 418 }];
        check.body = Some("one /status/418\nhost: check.foobar.com\n".into());
    });
    settle(&balancer, &["one"]);
}

#[test]
fn a_tcp_check_is_content_with_a_connection() {
    let (one, mut two) = (Server::start("one"), Server::start("two"));
    one.mood.healthy.store(false, Ordering::SeqCst);
    two.die();
    let balancer = Balancer::before(&[&one, &two], |section| section.pool.check.kind = CheckKind::Tcp);
    balancer.wait_until_up(1);
    assert_eq!(balancer.names(4), ["one"; 4]);
}

#[test]
fn a_server_that_came_up_begins_slowly() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let balancer = Balancer::before(&[&one, &two], |section| section.pool.slow_start_ms = 3_600_000);
    balancer.wait_until_up(2);
    let names = balancer.names(8);
    assert_eq!(
        names.iter().filter(|name| *name == "two").count(),
        4,
        "after the first check it is all there"
    );
    two.mood.healthy.store(false, Ordering::SeqCst);
    balancer.wait_until_up(1);
    two.mood.healthy.store(true, Ordering::SeqCst);
    balancer.wait_until_up(2);
    // A tenth of the weight of the other: 2 of 22, or one beside, by whose turn it was before.
    let names = balancer.names(22);
    let count = names.iter().filter(|name| *name == "two").count();
    assert!((1..=3).contains(&count), "{names:?}");
}
