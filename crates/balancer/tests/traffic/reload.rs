//! Plans that change while requests are under way.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::stage::{Balancer, Server, settle};

#[test]
fn servers_weights_and_ways_to_choose_change_under_load_and_nothing_fails() {
    let (a, b, c) = (Server::start("a"), Server::start("b"), Server::start("c"));
    let balancer = Balancer::before(&[&a, &b], |_| ());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    while !over.load(Ordering::SeqCst) {
                        let answer = balancer.get("/");
                        if answer.status != 200 {
                            failed.push(answer);
                        }
                    }
                    failed
                })
            })
            .collect();
        for round in 0..5 {
            balancer.reload(3 * round + 2, &[&b, &c], |_| ());
            settle(&balancer, &["b", "c"]);
            balancer.reload(3 * round + 3, &[&c], |planned| {
                planned.pool.algorithm = plan::Algorithm::LeastConnections;
            });
            settle(&balancer, &["c"]);
            balancer.reload(3 * round + 4, &[&a, &b], |_| ());
            settle(&balancer, &["a", "b"]);
        }
        over.store(true, Ordering::SeqCst);
        for client in clients {
            let failed = client.join().unwrap();
            assert!(failed.is_empty(), "{failed:?}");
        }
    });
}

#[test]
fn what_is_under_way_ends_at_a_server_that_left() {
    let (a, b) = (Server::start("a"), Server::start("b"));
    let balancer = Balancer::before(&[&a], |_| ());
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| balancer.get("/slow/300"));
        balancer.wait_for_requests(1);
        balancer.reload(2, &[&b], |_| ());
        assert_eq!(balancer.get("/").name(), "b");
        assert_eq!(slow.join().unwrap().name(), "a");
    });
}

#[test]
fn a_server_that_is_down_stays_so_and_what_it_has_to_do_still_counts() {
    let (a, mut b) = (Server::start("a"), Server::start("b"));
    let balancer = Balancer::before(&[&a, &b], |_| ());
    balancer.wait_until_up(2);
    b.die();
    balancer.wait_until_up(1);
    balancer.reload(2, &[&a, &b], |_| ());
    assert!(balancer.says().contains("1 of 2 servers up, down: web-2"), "{}", balancer.says());
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| balancer.get("/slow/500"));
        balancer.wait_for_requests(1);
        balancer.reload(3, &[&a], |planned| {
            planned.pool.servers[0].max_connections = Some(1);
            planned.pool.queue = plan::Queue { length: 0, timeout_ms: 100 };
        });
        assert_eq!(balancer.get("/").status, 503, "its one place is taken by a request from before");
        assert_eq!(slow.join().unwrap().status, 200);
    });
    assert_eq!(balancer.get("/").status, 200);
}

/// Who waits for a server is given one of the new settings, and those that come later do not wait behind it.
#[test]
fn who_waits_goes_to_a_server_that_a_reload_brings() {
    let (a, b) = (Server::start("a"), Server::start("b"));
    let one_at_a_time = |planned: &mut plan::Balancer| {
        for server in &mut planned.pool.servers {
            server.max_connections = Some(1);
        }
        planned.pool.queue = plan::Queue { length: 9, timeout_ms: 60_000 };
    };
    let balancer = Balancer::before(&[&a], one_at_a_time);
    let mut slow = std::net::TcpStream::connect(balancer.address).unwrap();
    slow.write_all(crate::stage::get("www.foobar.com", "", "/slow/60000").as_bytes()).unwrap();
    balancer.wait_for_requests(1);
    std::thread::scope(|scope| {
        let waits: Vec<_> = (0..3).map(|_| scope.spawn(|| balancer.get("/"))).collect();
        balancer.wait_until("three wait", || balancer.traffic().iter().any(|pool| pool.queue == 3));
        balancer.reload(2, &[&a, &b], one_at_a_time);
        assert_eq!(balancer.get("/").name(), "b");
        for waited in waits {
            assert_eq!(waited.join().unwrap().name(), "b");
        }
    });
}

#[test]
fn whose_turn_it_is_is_soon_by_the_new_weights() {
    let (a, b) = (Server::start("a"), Server::start("b"));
    let weighing = |weight: u32| {
        move |planned: &mut plan::Balancer| {
            planned.pool.servers.iter_mut().for_each(|server| server.weight = weight);
        }
    };
    let balancer = Balancer::before(&[&a, &b], weighing(256));
    balancer.wait_until_up(2);
    balancer.names(1);
    balancer.reload(2, &[&a, &b], weighing(1));
    let names = balancer.names(10);
    let changes = names.windows(2).filter(|two| two[0] != two[1]).count();
    assert!(changes >= 7, "{names:?}");
}

#[test]
fn a_drained_server_gets_nothing_new_until_it_is_ready() {
    let (a, b) = (Server::start("a"), Server::start("b"));
    let balancer = Balancer::before(&[&a, &b], |_| ());
    balancer.wait_until_up(2);
    balancer.drain(2, &[&a, &b], &["web-1"]);
    assert_eq!(balancer.names(6), ["b"; 6]);
    assert!(balancer.says().contains("1 of 2 servers up, drained: web-1"), "{}", balancer.says());
    balancer.drain(3, &[&a, &b], &[]);
    settle(&balancer, &["a", "b"]);
}

#[test]
fn limits_and_routes_change() {
    let a = Server::start("a");
    let balancer = Balancer::before(&[&a], |_| ());
    balancer.reload(2, &[&a], |planned| planned.limits.header_bytes = Some(10));
    assert_eq!(balancer.get("/").status, 431);
    balancer.reload(3, &[&a], |planned| {
        planned.rate_limit = Some(plan::RateLimit { requests: 1, per_ms: 3_600_000, burst: 1 });
    });
    assert_eq!((balancer.get("/").status, balancer.get("/").status), (200, 429));
    balancer.reload(4, &[&a], |planned| {
        planned.rate_limit = Some(plan::RateLimit { requests: 1, per_ms: 3_600_000, burst: 2 });
    });
    assert_eq!((balancer.get("/").status, balancer.get("/").status), (200, 429), "one was taken before");
}
