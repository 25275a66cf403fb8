//! The DNS server: name to address, the first step of a request.
//!
//! It is authoritative for the site's zone and for nothing else: it never asks anybody, never answers for
//! others, and keeps no state. What it says is compiled from the plan into a [`Snapshot`]; [`answer`] turns one
//! query into one answer; `udp` and `tcp` move the bytes.
//!
//! ```text
//! plan ── compile ──▶ Snapshot ─┐
//!   query ── udp | tcp ────────▶ answer ── udp | tcp ──▶ client
//! ```

mod answer;
mod batch;
mod compile;
mod count;
mod name;
mod query;
mod snapshot;
mod tcp;
mod udp;
mod writer;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use link::report::{SiteReport, State};
use link::{Given, Line, Start};
use plan::{Plan, Role};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use answer::{Rcode, Transport, Verdict, answer};
pub use compile::{Mistake, Mistakes};
pub use snapshot::Snapshot;

use count::Counts;

/// How often counters are published and the threads looked after.
const TICK: Duration = Duration::from_secs(1);
/// The longest wait for connections at the end: a query takes a millisecond, the rest is idle.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// A serving thread has its buffers on the heap.
const STACK: usize = 256 * 1024;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Zone(#[from] Mistakes),
    #[error("the agent handed over no socket \"dns\"")]
    NoSocket,
    #[error("the thread that answers on {address} ended: {why}")]
    Ended { address: SocketAddr, why: String },
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
}

/// Answers until the agent says stop.
pub fn run(mut start: Start) -> Result<(), Error> {
    let site = start.line.site().borrow().clone();
    let down = down(&start.plan, &site);
    let zone = Arc::new(Snapshot::compile(&without(&start.plan, &down))?);
    let (publish, snapshots) = watch::channel(zone);
    let sockets = start.sockets.udp("dns");
    let address = sockets.first().ok_or(Error::NoSocket)?.local_addr()?;
    let mut server = Server {
        publish,
        snapshots,
        plan: start.plan,
        down,
        address,
        threads: Vec::new(),
        counts: Vec::new(),
        stop: Arc::default(),
    };
    for socket in sockets {
        server.spawn(socket)?;
    }
    let listeners = start.sockets.tcp("dns-tcp");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    server.say(&start.line);
    runtime.block_on(server.serve(listeners, &start.line))
}

struct Server {
    publish: watch::Sender<Arc<Snapshot>>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    plan: Arc<Plan>,
    /// The servers that are not named, because they are down.
    down: Vec<String>,
    address: SocketAddr,
    threads: Vec<(SocketAddr, JoinHandle<io::Result<()>>)>,
    counts: Vec<Arc<Counts>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn spawn(&mut self, socket: UdpSocket) -> io::Result<()> {
        let address = socket.local_addr()?;
        let (counts, stop) = (self.counts(), Arc::clone(&self.stop));
        let snapshots = self.snapshots.clone();
        let thread = thread::Builder::new()
            .name(format!("udp-{}", self.threads.len() + 1))
            .stack_size(STACK)
            .spawn(move || udp::serve(&socket, snapshots, &counts, &stop))?;
        self.threads.push((address, thread));
        Ok(())
    }

    fn counts(&mut self) -> Arc<Counts> {
        let counts = Arc::<Counts>::default();
        self.counts.push(Arc::clone(&counts));
        counts
    }

    /// Serves TCP on this thread, looks after the others, and ends them all.
    async fn serve(mut self, listeners: Vec<TcpListener>, line: &Line) -> Result<(), Error> {
        let (ending, stop) = watch::channel(false);
        tokio::select! {
            () = line.admitted() => {}
            _ = line.stopped() => {}
        }
        let turn = Arc::<AtomicUsize>::default();
        let mut connections = JoinSet::new();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let shared = tcp::Shared {
                snapshots: self.snapshots.clone(),
                counts: self.counts(),
                turn: Arc::clone(&turn),
                stop: stop.clone(),
            };
            connections.spawn(tcp::serve(listener, shared));
        }
        let mut tick = tokio::time::interval(TICK);
        let mut plans = line.plans();
        let mut site = line.site();
        let within = loop {
            tokio::select! {
                within = line.stopped() => break within,
                Ok(()) = site.changed() => {
                    let report = site.borrow_and_update().clone();
                    self.follow(&report, line);
                }
                given = plans.next() => self.take_on(&given, line),
                _ = tick.tick() => self.look(line)?,
            }
        };
        line.report(State::Draining, "answering the queries that are under way");
        ending.send_replace(true);
        self.stop.store(true, Ordering::Relaxed);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(within.min(DRAIN_LIMIT), all).await.is_err() {
            tracing::debug!("some clients kept their connection open until the end");
        }
        line.count(count::total(&self.counts));
        self.threads.drain(..).try_for_each(ended)
    }

    fn say(&self, line: &Line) {
        let zone = self.plan.dns.as_ref().map(|dns| dns.zone.as_str()).unwrap_or_default();
        let mut because = format!("answering for {zone} on {}", self.address);
        if !self.down.is_empty() {
            because.push_str(&format!(", not naming {}, which cannot be reached", self.down.join(", ")));
        }
        line.report(State::Healthy, because);
    }

    /// Names no server that is down, as long as another one is left.
    fn follow(&mut self, site: &SiteReport, line: &Line) {
        let now = down(&self.plan, site);
        if now == self.down {
            return;
        }
        match Snapshot::compile(&without(&self.plan, &now)) {
            Ok(zone) => {
                self.publish.send_replace(Arc::new(zone));
                self.down = now;
                self.say(line);
            }
            Err(mistakes) => tracing::error!("goes on naming all servers: {mistakes}"),
        }
    }

    /// Answers from the new zone; one that cannot be served leaves the old one in force.
    fn take_on(&mut self, given: &Given, line: &Line) {
        match Snapshot::compile(&without(&given.plan, &self.down)) {
            Ok(zone) => {
                self.publish.send_replace(Arc::new(zone));
                self.plan = Arc::new(given.plan.clone());
                self.say(line);
                line.took(given, "answers from the new zone");
            }
            Err(mistakes) => line.refused(given, mistakes),
        }
    }

    /// Publishes the counters; an error when a thread is gone, for then its socket is answered by nobody.
    fn look(&mut self, line: &Line) -> Result<(), Error> {
        line.count(count::total(&self.counts));
        match self.threads.iter().position(|(_, thread)| thread.is_finished()) {
            None => Ok(()),
            Some(index) => {
                let (address, thread) = self.threads.swap_remove(index);
                ended((address, thread))?;
                Err(Error::Ended { address, why: "it was not told to".into() })
            }
        }
    }
}

/// The balancers that clients would be led to in vain, as far as the machines know; none when those are all.
fn down(plan: &Plan, site: &SiteReport) -> Vec<String> {
    let is_down = |name: &str| site.server(name).is_some_and(|server| server.state == State::Down);
    let named = || plan.role(Role::Balancer).filter(|server| !plan.drained.contains(&server.name));
    if named().all(|server| is_down(&server.name)) {
        return Vec::new();
    }
    named().filter(|server| is_down(&server.name)).map(|server| server.name.clone()).collect()
}

/// The plan with these servers out of rotation.
fn without(plan: &Plan, down: &[String]) -> Plan {
    let mut plan = plan.clone();
    plan.drained.extend_from_slice(down);
    plan
}

fn ended((address, thread): (SocketAddr, JoinHandle<io::Result<()>>)) -> Result<(), Error> {
    let why = match thread.join() {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it panicked, see the log".into(),
    };
    Err(Error::Ended { address, why })
}
