//! Servers that say their names, and a balancer before them, without an agent.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use link::{Line, Order, Secrets, Sockets, Start};
use plan::{Ground, NoFiles, Place, Plan, Site};
use relay::{Ended, Exchange, Handler, Serving, Settings, Stop};

pub const PATIENCE: Duration = Duration::from_secs(10);

/// A server that answers with its name and the head it saw.
pub struct Server {
    pub address: SocketAddr,
    stop: Stop,
    serving: Option<Serving>,
    pub mood: Arc<Mood>,
}

/// How a server is, for the test to change.
#[derive(Debug)]
pub struct Mood {
    /// What the check is told.
    pub healthy: AtomicBool,
    /// Whether checks are as slow as all else.
    pub checks_wait: AtomicBool,
    /// Every answer comes so much later.
    pub delay_ms: AtomicU64,
    /// Requests that wait for that.
    pub busy: AtomicUsize,
    /// All requests that came, without checks.
    pub asked: AtomicUsize,
}

#[derive(Clone)]
struct Named(&'static str, Arc<Mood>);

impl Handler for Named {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let request = exchange.request();
        if request.path() == "/.dolmen/health" {
            if self.1.checks_wait.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(self.1.delay_ms.load(Ordering::SeqCst))).await;
            }
            let status = if self.1.healthy.load(Ordering::SeqCst) { 200 } else { 503 };
            return exchange.reply(status, &[], b"").await;
        }
        self.1.asked.fetch_add(1, Ordering::SeqCst);
        // `/slow/MS` is answered after so many milliseconds.
        let slow = request.path().strip_prefix("/slow/").and_then(|ms| ms.parse().ok()).unwrap_or(0);
        let wait = Duration::from_millis(slow + self.1.delay_ms.load(Ordering::SeqCst));
        if !wait.is_zero() {
            self.1.busy.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(wait).await;
            self.1.busy.fetch_sub(1, Ordering::SeqCst);
        }
        // `/status/CODE` with this status.
        let status =
            request.path().strip_prefix("/status/").and_then(|code| code.parse().ok()).unwrap_or(200);
        let mut text = format!("{} {}\n", self.0, request.target());
        for (name, value) in request.fields().iter() {
            text += &format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        }
        exchange.reply(status, &[("via", &format!("1.1 {}", self.0))], text.as_bytes()).await
    }
}

impl Server {
    pub fn start(name: &'static str) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), name)
    }

    pub fn at(address: SocketAddr, name: &'static str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop::default();
        let mood = Arc::new(Mood {
            healthy: AtomicBool::new(true),
            checks_wait: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        });
        let handler = Named(name, Arc::clone(&mood));
        let timeouts = plan().balancer.unwrap().timeouts;
        let settings = Settings::new(timeouts);
        let serving = relay::serve(vec![listener], settings, stop.clone(), move |_| handler.clone()).unwrap();
        Self { address, stop, serving: Some(serving), mood }
    }

    pub fn slow_down(&self, by: Duration) {
        self.mood.delay_ms.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// Closes all connections and refuses new ones.
    pub fn die(&mut self) {
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

pub fn plan() -> Plan {
    let site = Site::from_text("[balancer]\nservers = [\"127.0.0.1:1\"]\naccess-log = \"off\"\n");
    let ground = Ground { place: Place::Up { block: 1 }, generation: 1, folder: "test", files: &NoFiles };
    site.plan(&ground).unwrap()
}

/// A plan with these servers, named web-1, web-2 and so on.
fn plan_for(servers: &[SocketAddr], change: impl Fn(&mut plan::Balancer)) -> Plan {
    let mut plan = plan();
    let balancer = plan.balancer.as_mut().unwrap();
    let section = &mut balancer.pool;
    let pattern = section.servers.remove(0);
    for (index, address) in servers.iter().enumerate() {
        let name = format!("web-{}", index + 1);
        section.servers.push(plan::Target { name, address: *address, ..pattern.clone() });
    }
    section.check = plan::Check {
        path: "/.dolmen/health".into(),
        interval_ms: 50,
        fast_interval_ms: 50,
        timeout_ms: 500,
        rise: 2,
        fall: 2,
        ..section.check.clone()
    };
    change(balancer);
    plan
}

fn addresses(servers: &[&Server]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}

pub struct Balancer {
    pub address: SocketAddr,
    orders: tokio::sync::watch::Sender<Order>,
    thread: Option<JoinHandle<Result<(), balancer::Error>>>,
    line: Line,
    moods: Vec<Arc<Mood>>,
    _site: tokio::sync::watch::Sender<Arc<link::report::SiteReport>>,
}

impl Balancer {
    pub fn before(servers: &[&Server], change: impl Fn(&mut plan::Balancer)) -> Self {
        let moods = servers.iter().map(|server| Arc::clone(&server.mood)).collect();
        let mut balancer = Self::at(&addresses(servers), change);
        balancer.moods = moods;
        if !servers.is_empty() {
            balancer.wait(|answer| answer.status == 200);
        }
        balancer
    }

    pub fn at(servers: &[SocketAddr], change: impl Fn(&mut plan::Balancer)) -> Self {
        Self::asking(relay::Resolver::default(), servers, change)
    }

    /// `resolver` says where the names of servers lead.
    pub fn asking(
        resolver: relay::Resolver,
        servers: &[SocketAddr],
        change: impl Fn(&mut plan::Balancer),
    ) -> Self {
        let plan = plan_for(servers, change);
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
            succeeds: false,
            line,
        };
        let line = start.line.clone();
        let thread = std::thread::spawn(move || balancer::run_with(start, resolver));
        Self { address, orders, thread: Some(thread), line, moods: Vec::new(), _site: site }
    }

    /// Gives it a later plan, and waits until it says that it took it.
    pub fn reload(&self, generation: u64, servers: &[&Server], change: impl Fn(&mut plan::Balancer)) {
        self.reload_to(Plan { generation, ..plan_for(&addresses(servers), change) });
    }

    /// The same, with these servers ordered out of rotation.
    pub fn drain(&self, generation: u64, servers: &[&Server], drained: &[&str]) {
        let drained = drained.iter().map(|name| (*name).to_owned()).collect();
        self.reload_to(Plan { generation, drained, ..plan_for(&addresses(servers), |_| ()) });
    }

    fn reload_to(&self, plan: Plan) {
        let generation = plan.generation;
        let (files, programs) = (PathBuf::new(), PathBuf::new());
        self.line.give(link::Given { plan, files, programs, secrets: Secrets::default() });
        self.wait_until("the plan is taken", || self.line.last_taken() == Some(generation));
    }

    pub fn get(&self, path: &str) -> Answer {
        self.get_with("", path)
    }

    /// `fields`: whole lines.
    pub fn get_with(&self, fields: &str, path: &str) -> Answer {
        self.ask(&get("www.foobar.com", fields, path))
    }

    pub fn get_from(&self, client: &str, path: &str) -> Answer {
        self.ask_from(client, &get("www.foobar.com", "", path))
    }

    pub fn ask_from(&self, client: &str, request: &str) -> Answer {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let client: std::net::IpAddr = client.parse().unwrap();
        socket.bind(&SocketAddr::new(client, 0).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        talk(socket.into(), request)
    }

    pub fn ask(&self, request: &str) -> Answer {
        talk(TcpStream::connect(self.address).unwrap(), request)
    }

    /// What was counted of its pools.
    pub fn traffic(&self) -> Vec<link::report::PoolTraffic> {
        self.line.last_traffic()
    }

    /// What the balancer says of itself.
    pub fn says(&self) -> String {
        self.line.last_report().because
    }

    pub fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}: {}", self.says());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn wait_until_up(&self, count: usize) {
        self.wait_until("all are up", || self.says().contains(&format!(" {count} of ")));
    }

    /// Until so many requests wait at the servers.
    pub fn wait_for_requests(&self, count: usize) {
        let busy = || self.moods.iter().map(|mood| mood.busy.load(Ordering::SeqCst)).sum::<usize>();
        self.wait_until("requests are under way", || busy() == count);
    }

    pub fn wait(&self, condition: impl Fn(&Answer) -> bool) {
        let began = Instant::now();
        while !condition(&self.get("/wait")) {
            assert!(began.elapsed() < PATIENCE, "waited in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The names of the servers that answered so many requests, in order.
    pub fn names(&self, count: usize) -> Vec<String> {
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

/// The text of a request after which the connection is closed.
pub fn get(host: &str, fields: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n")
}

pub fn talk(mut stream: TcpStream, request: &str) -> Answer {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    // What came before a reset was answered, too.
    let ended = stream.read_to_end(&mut text);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn name(&self) -> String {
        self.body.split(' ').next().unwrap_or_default().to_owned()
    }
}

/// Waits until `names` are the only ones that answer.
pub fn settle(balancer: &Balancer, names: &[&str]) {
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
