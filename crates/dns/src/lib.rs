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

use link::report::State;
use link::{Given, Line, Start};
use plan::Plan;
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
    let zone = Arc::new(Snapshot::compile(&start.plan)?);
    let (publish, snapshots) = watch::channel(zone);
    let sockets = start.sockets.udp("dns");
    let address = sockets.first().ok_or(Error::NoSocket)?.local_addr()?;
    let mut server =
        Server { publish, snapshots, address, threads: Vec::new(), counts: Vec::new(), stop: Arc::default() };
    for socket in sockets {
        server.spawn(socket)?;
    }
    let listeners = start.sockets.tcp("dns-tcp");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    server.say(&start.plan, &start.line);
    runtime.block_on(server.serve(listeners, &start.line))
}

struct Server {
    publish: watch::Sender<Arc<Snapshot>>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
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
        let within = loop {
            tokio::select! {
                within = line.stopped() => break within,
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

    fn say(&self, plan: &Plan, line: &Line) {
        let zone = plan.dns.as_ref().map(|dns| dns.zone.as_str()).unwrap_or_default();
        line.report(State::Healthy, format!("answering for {zone} on {}", self.address));
    }

    /// Answers from the new zone; one that cannot be served leaves the old one in force.
    fn take_on(&self, given: &Given, line: &Line) {
        match Snapshot::compile(&given.plan) {
            Ok(zone) => {
                self.publish.send_replace(Arc::new(zone));
                self.say(&given.plan, line);
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

fn ended((address, thread): (SocketAddr, JoinHandle<io::Result<()>>)) -> Result<(), Error> {
    let why = match thread.join() {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it panicked, see the log".into(),
    };
    Err(Error::Ended { address, why })
}
