//! The balancer between clients and servers that come and go, without an agent.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use link::{Line, Order, Secrets, Sockets, Start};
use plan::{Ground, NoFiles, Place, Plan, Site};
use relay::{Ended, Exchange, Handler, Serving, Settings, Stop};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that answers with its name and the head it saw.
struct Server {
    address: SocketAddr,
    stop: Stop,
    serving: Option<Serving>,
    healthy: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Named(&'static str, Arc<AtomicBool>);

impl Handler for Named {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let request = exchange.request();
        if request.path() == "/.dolmen/health" {
            let status = if self.1.load(Ordering::SeqCst) { 200 } else { 503 };
            return exchange.reply(status, &[], b"").await;
        }
        let mut text = format!("{} {}\n", self.0, request.target());
        for (name, value) in request.fields().iter() {
            text += &format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        }
        exchange.reply(200, &[("via", &format!("1.1 {}", self.0))], text.as_bytes()).await
    }
}

impl Server {
    fn start(name: &'static str) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), name)
    }

    fn at(address: SocketAddr, name: &'static str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop::default();
        let healthy = Arc::new(AtomicBool::new(true));
        let handler = Named(name, Arc::clone(&healthy));
        let timeouts = plan().balancer.unwrap().timeouts;
        let settings = Settings::new(timeouts);
        let serving = relay::serve(vec![listener], settings, stop.clone(), move |_| handler.clone()).unwrap();
        Self { address, stop, serving: Some(serving), healthy }
    }

    /// Closes all connections and refuses new ones.
    fn die(&mut self) {
        self.stop.drain(Duration::ZERO);
        if let Some(serving) = self.serving.take() {
            serving.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.die();
    }
}

fn plan() -> Plan {
    let site = Site::from_text("[balancer]\nservers = [\"127.0.0.1:1\"]\n");
    let ground = Ground { place: Place::Up { block: 1 }, generation: 1, folder: "test", files: &NoFiles };
    site.plan(&ground).unwrap()
}

struct Balancer {
    address: SocketAddr,
    orders: tokio::sync::watch::Sender<Order>,
    thread: Option<JoinHandle<Result<(), balancer::Error>>>,
    _site: tokio::sync::watch::Sender<Arc<link::report::SiteReport>>,
}

impl Balancer {
    fn before(servers: &[&Server], change: impl Fn(&mut plan::Balancer)) -> Self {
        let mut plan = plan();
        let section = plan.balancer.as_mut().unwrap();
        let pattern = section.servers.remove(0);
        for (index, server) in servers.iter().enumerate() {
            let name = format!("web-{}", index + 1);
            section.servers.push(plan::Target { name, address: server.address, ..pattern.clone() });
        }
        section.check = plan::Check {
            path: "/.dolmen/health".into(),
            interval_ms: 50,
            timeout_ms: 500,
            rise: 2,
            fall: 2,
        };
        change(section);
        let (line, orders, site) = Line::unattached();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = Sockets::default();
        sockets.insert("http", listener);
        let start = Start {
            me: plan.server("balancer-1").unwrap().clone(),
            plan: Arc::new(plan),
            folder: PathBuf::new(),
            files: PathBuf::new(),
            programs: PathBuf::new(),
            sockets,
            board: None,
            secrets: Secrets::default(),
            line,
        };
        let thread = std::thread::spawn(move || balancer::run(start));
        let balancer = Self { address, orders, thread: Some(thread), _site: site };
        if !servers.is_empty() {
            balancer.wait(|answer| answer.status == 200);
        }
        balancer
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: www.foobar.com\r\nConnection: close\r\n\r\n"))
    }

    fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn wait(&self, condition: impl Fn(&Answer) -> bool) {
        let began = Instant::now();
        while !condition(&self.get("/wait")) {
            assert!(began.elapsed() < PATIENCE, "waited in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The names of the servers that answered so many requests, in order.
    fn names(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.get("/").name()).collect()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.orders.send_replace(Order::Stop { within: Duration::ZERO });
        let result = self.thread.take().unwrap().join().unwrap();
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn name(&self) -> String {
        self.body.split(' ').next().unwrap_or_default().to_owned()
    }
}

/// Waits until `names` are the only ones that answer.
fn settle(balancer: &Balancer, names: &[&str]) {
    let began = Instant::now();
    loop {
        let mut answering = balancer.names(8);
        answering.sort();
        answering.dedup();
        if answering == names {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{answering:?} answer, and not {names:?}");
    }
}

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
    one.healthy.store(false, Ordering::SeqCst);
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
    let balancer = Balancer::before(&[&one, &two], |section| section.servers[1].backup = true);
    assert_eq!(balancer.names(4), ["one"; 4]);
    let three = Server::start("three");
    let passive = Balancer::before(&[&one, &three], |section| section.mode = plan::Mode::ActivePassive);
    settle(&passive, &["one"]);
    one.die();
    assert_eq!(balancer.names(4), ["two"; 4]);
    assert_eq!(passive.names(4), ["three"; 4]);
}
