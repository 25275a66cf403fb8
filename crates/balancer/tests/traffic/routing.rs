//! Requests that follow a route: to another pool, to another site, and changed on their way.

use plan::{FieldEdits, Rewrite, Route, To};

use crate::stage::{Balancer, Server, get};

fn route(to: To) -> Route {
    Route {
        hosts: Vec::new(),
        path: None,
        methods: Vec::new(),
        to,
        rewrite: Rewrite::default(),
        request: FieldEdits::default(),
        answer: FieldEdits::default(),
    }
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// `one` is the balancer's own server, `two` the pool `api`.
fn routed(one: &Server, two: &Server, routes: &[Route]) -> Balancer {
    let balancer = Balancer::before(&[one], |section| {
        let mut server = section.pool.servers[0].clone();
        (server.address, server.name) = (two.address, "api-1".to_owned());
        let api = plan::Pool { name: "api".to_owned(), servers: vec![server], ..section.pool.clone() };
        section.pools.push(api);
        section.routes = routes.to_vec();
    });
    balancer.wait_until("both are up", || balancer.says().contains("1 of 1 servers of api up"));
    balancer.wait_until("both are up", || balancer.says().contains("1 of 1 servers up"));
    balancer
}

#[test]
fn hosts_paths_and_methods_lead_to_pools() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let api = || To::Pool("api".to_owned());
    let balancer = routed(
        &one,
        &two,
        &[
            Route { hosts: vec!["*.api.foobar.com".into()], ..route(api()) },
            Route { path: Some("/api".into()), methods: vec!["GET".into()], ..route(api()) },
        ],
    );
    let name = |host: &str, path: &str| balancer.ask(&get(host, "", path)).name();
    assert_eq!(name("v1.api.foobar.com", "/"), "two");
    assert_eq!(name("api.foobar.com", "/"), "one");
    assert_eq!(name("www.foobar.com", "/api/x"), "two");
    assert_eq!(name("www.foobar.com", "/apix"), "one");
    let post = "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(balancer.ask(post).name(), "one");
}

#[test]
fn a_redirect_needs_no_server() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let to = To::Redirect { location: "https://www.foobar.com{uri}".into(), status: 301 };
    let balancer = routed(&one, &two, &[Route { hosts: vec!["foobar.com".into()], ..route(to) }]);
    let answer = balancer.ask(&get("foobar.com", "", "/a?b=c"));
    assert_eq!(answer.status, 301);
    assert!(answer.head.contains("location: https://www.foobar.com/a?b=c"), "{}", answer.head);
}

#[test]
fn heads_and_paths_are_changed_on_the_way() {
    let (one, two) = (Server::start("one"), Server::start("two"));
    let request = FieldEdits {
        set: vec![pair("host", "inner.foobar.com"), pair("x-tier", "api")],
        add: vec![pair("x-more", "2")],
        remove: vec!["x-secret".to_owned()],
    };
    let answer = FieldEdits {
        set: vec![pair("x-frame-options", "DENY")],
        add: vec![pair("set-cookie", "a=b")],
        remove: vec!["via".to_owned()],
    };
    let rewrite = Rewrite { strip: Some("/api".into()), prepend: Some("/v2".into()) };
    let route =
        Route { path: Some("/api".into()), rewrite, request, answer, ..route(To::Pool("api".into())) };
    let balancer = routed(&one, &two, &[route]);
    let told = balancer.get_with("X-Secret: s\r\nX-More: 1\r\nX-Tier: mine\r\n", "/api/x?y=/api");
    assert!(told.body.starts_with("two /v2/x?y=/api\n"), "{}", told.body);
    for line in [
        "host: inner.foobar.com\n",
        "x-tier: api\n",
        "X-More: 1\n",
        "x-more: 2\n",
        "x-forwarded-for: 127.0.0.1\n",
    ] {
        assert!(told.body.contains(line), "{line:?} {}", told.body);
    }
    assert_eq!(
        told.body.to_lowercase().matches("host: ").count() - told.body.matches("x-forwarded-host: ").count(),
        1
    );
    assert!(!told.body.contains("X-Secret") && !told.body.contains("mine"), "{}", told.body);
    assert!(
        told.head.contains("x-frame-options: DENY") && told.head.contains("set-cookie: a=b"),
        "{}",
        told.head
    );
    // What is reserved is so after a rewrite as well.
    assert_eq!(balancer.get("/api/../.dolmen/health").status, 404);
}

#[test]
fn without_servers_of_its_own_what_has_no_route_is_404() {
    let two = Server::start("two");
    let balancer = Balancer::before(&[], |section| {
        let check = plan::Check { path: "/.dolmen/health".into(), ..section.pool.check.clone() };
        let server = plan::Target {
            name: "api-1".into(),
            address: two.address,
            lookup: None,
            machine: None,
            weight: 1,
            backup: false,
            max_connections: None,
        };
        section.pools.push(plan::Pool {
            name: "api".to_owned(),
            servers: vec![server],
            check,
            ..section.pool.clone()
        });
        section.routes = vec![Route { path: Some("/api".into()), ..route(To::Pool("api".into())) }];
    });
    balancer.wait_until("it is up", || balancer.says().contains("1 of 1 servers of api up"));
    assert_eq!(balancer.get("/api").name(), "two");
    assert_eq!(balancer.get("/").status, 404);
}
