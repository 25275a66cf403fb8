//! Servers with a name in place of an address, and names that change, fail and grow.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use relay::Resolver;

use crate::stage::{Balancer, Server, settle};

/// A name that leads where the test says.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<IpAddr>>>);

impl Names {
    fn lead_to(&self, servers: &[&Server]) {
        *self.0.lock().unwrap() = servers.iter().map(|server| server.address.ip()).collect();
    }

    fn resolver(&self) -> Resolver {
        let names = self.clone();
        Resolver::new(move |host| {
            assert_eq!(host, "app.internal");
            let addresses = names.0.lock().unwrap().clone();
            if addresses.is_empty() { Err(io::Error::other("no such name")) } else { Ok(addresses) }
        })
    }
}

/// On addresses of this test's block, all on one port.
fn servers<const N: usize>(block: u8, names: [&'static str; N]) -> [Server; N] {
    let mut port = 0;
    let mut last = 0;
    names.map(|name| {
        last += 1;
        let server = Server::at(SocketAddr::from(([127, 0, block, last], port)), name);
        port = server.address.port();
        server
    })
}

fn named(section: &mut plan::Balancer, port: u16, addresses: usize) {
    let pool = &mut section.pool;
    pool.resolve_ms = 50;
    let pattern = plan().balancer.unwrap().pool.servers.remove(0);
    pool.servers = (1..=addresses)
        .map(|number| plan::Target {
            name: format!("app.internal#{number}"),
            address: SocketAddr::from(([0, 0, 0, 0], port)),
            lookup: Some("app.internal".into()),
            ..pattern.clone()
        })
        .collect();
}

use crate::stage::plan;

#[test]
fn a_name_that_changes_moves_the_traffic_without_a_gap() {
    let names = Names::default();
    let [one, two] = servers(125, ["one", "two"]);
    names.lead_to(&[&one]);
    let port = one.address.port();
    let balancer = Balancer::asking(names.resolver(), &[], |section| named(section, port, 1));
    balancer.wait_until_up(1);
    assert_eq!(balancer.names(4), ["one"; 4]);
    let (over, failed) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                failed.fetch_or(balancer.get("/").status != 200, Ordering::SeqCst);
            }
        });
        for _ in 0..5 {
            names.lead_to(&[&two]);
            settle(&balancer, &["two"]);
            names.lead_to(&[&one]);
            settle(&balancer, &["one"]);
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(!failed.load(Ordering::SeqCst), "a request failed while the name changed");
}

#[test]
fn a_name_that_fails_leaves_servers_where_they_are() {
    let names = Names::default();
    let balancer_of = |port| Balancer::asking(names.resolver(), &[], move |section| named(section, port, 1));
    let [one] = servers(126, ["one"]);
    let balancer = balancer_of(one.address.port());
    balancer.wait_until("it is down", || balancer.says().contains("none of 1 servers is up"));
    assert_eq!(balancer.get("/").status, 503);
    names.lead_to(&[&one]);
    balancer.wait_until_up(1);
    names.lead_to(&[]);
    // As long as some questions and checks take: each answer is one more request.
    assert_eq!(balancer.names(100), ["one"; 100]);
    assert!(balancer.says().contains("1 of 1"), "{}", balancer.says());
}

#[test]
fn a_name_with_several_addresses_is_several_servers() {
    let names = Names::default();
    let [one, two, three] = servers(127, ["one", "two", "three"]);
    names.lead_to(&[&one, &two]);
    let port = one.address.port();
    let balancer = Balancer::asking(names.resolver(), &[], |section| named(section, port, 3));
    settle(&balancer, &["one", "two"]);
    assert!(balancer.says().contains("2 of 2 servers up"), "{}", balancer.says());
    names.lead_to(&[&three, &two, &one]);
    settle(&balancer, &["one", "three", "two"]);
    names.lead_to(&[&three]);
    settle(&balancer, &["three"]);
    balancer.wait_until_up(1);
}

#[test]
fn the_computer_knows_its_own_name() {
    let one = Server::at("127.0.0.1:0".parse().unwrap(), "one");
    let port = one.address.port();
    let balancer = Balancer::at(&[], |section| {
        named(section, port, 1);
        section.pool.servers[0].lookup = Some("localhost".into());
    });
    balancer.wait_until_up(1);
    assert_eq!(balancer.get("/").name(), "one");
}
