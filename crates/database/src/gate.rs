//! The gate: where an application reaches the primary (read-write) and the replicas (read-only).
//!
//! It holds a client back while no server can take it, refuses in PostgreSQL's own words, and then passes bytes on
//! unchanged. It looks at the kind of each message and into three small ones ([`wire`]): enough to send a cancel
//! request to the right server, to know when nothing is under way, and never to pass on the success of a commit
//! that the replicas did not confirm. What is encrypted it passes on unread. It decides nothing: who is the
//! primary is what [`targets`] makes of the site's reports; when that changes, connections to the old one end.

mod lead;

pub mod trust;

mod targets;

mod follow;

mod busy;

mod serve;

pub mod wire;

mod reach;

mod refuse;

mod pipe;

mod pump;

mod keys;

mod report;

mod sockets;

use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use link::api::{AuthorityError, Identity};
use link::control::{Client, Control};
use link::report::State;
use link::{Line, Order, Start};
use plan::Role;
use tokio::sync::{Semaphore, mpsc, watch};

use busy::Busy;
use follow::Until;
use keys::Keys;
use report::Counters;
use serve::Kind;
use targets::Targets;

/// How much a gate takes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most connections that are open at a time, where the limit on open files allows it.
    connections: usize,
    /// The most connections that wait for a server at a time.
    held: usize,
    /// How long a new connection is held while no server takes it.
    hold: Duration,
}

const LIMITS: Limits = Limits { connections: 4096, held: 512, hold: Duration::from_secs(10) };

/// The most clients that are told of a refusal at a time; more are just closed.
const REFUSALS: usize = 64;

/// How many held connections try at a time, so that a server that comes back is not stormed.
const TURNS: usize = 8;

/// After an accept that failed (no descriptors left), so that the loop does not spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the plan has no [database]")]
    NoDatabase,
    #[error("the plan has no database server and [database] has no url")]
    NoServer,
    #[error("[database] url: {0}")]
    Url(String),
    #[error("the agent gave no socket {0}")]
    NoSocket(&'static str),
    #[error("no way to control: {0}")]
    Identity(#[from] AuthorityError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs a gate until the agent orders its stop.
pub fn run(start: Start) -> Result<(), Error> {
    let control = control(&start)?;
    run_with(start, control)
}

/// The same with another way to control.
pub fn run_with(mut start: Start, control: Option<Arc<dyn Control>>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let read_write = start.sockets.tcp("read-write");
    let read_only = start.sockets.tcp("read-only");
    for (sockets, name) in [(&read_write, "read-write"), (&read_only, "read-only")] {
        if sockets.is_empty() {
            return Err(Error::NoSocket(name));
        }
    }
    runtime.block_on(serve_until_stopped(start, control, read_write, read_only))
}

/// What all connections of a gate share.
pub(crate) struct Gate {
    /// Our machine's address, which servers see as the source.
    from: IpAddr,
    targets: watch::Receiver<Arc<Targets>>,
    until: Until,
    busy: Arc<Busy>,
    keys: Arc<Keys>,
    counters: Counters,
    connections: Semaphore,
    limits: Limits,
    held: Semaphore,
    refusals: Semaphore,
    turns: Semaphore,
    /// How the last try to reach the primary ended; `None` before the first.
    reached: Mutex<Option<Result<(), String>>>,
    /// Becomes true when connections that are still open must end.
    ending: watch::Receiver<bool>,
}

impl Gate {
    fn new(
        from: IpAddr,
        targets: watch::Receiver<Arc<Targets>>,
        ending: watch::Receiver<bool>,
        limits: Limits,
    ) -> Self {
        Self {
            from,
            targets,
            until: Until::default(),
            busy: Arc::default(),
            keys: Arc::default(),
            counters: Counters::default(),
            connections: Semaphore::new(limits.connections),
            limits,
            held: Semaphore::new(limits.held),
            refusals: Semaphore::new(REFUSALS),
            turns: Semaphore::new(TURNS),
            reached: Mutex::new(None),
            ending,
        }
    }

    fn reached(&self) -> MutexGuard<'_, Option<Result<(), String>>> {
        self.reached.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many connections are held now.
    fn waiting(&self) -> usize {
        self.limits.held - self.held.available_permits()
    }

    fn targets(&self) -> Arc<Targets> {
        self.targets.borrow().clone()
    }
}

async fn serve_until_stopped(
    start: Start,
    control: Option<Arc<dyn Control>>,
    read_write: Vec<TcpListener>,
    read_only: Vec<TcpListener>,
) -> Result<(), Error> {
    let first = targets::first(&start.plan, &start.secrets)?;
    let (targets_sender, targets) = watch::channel(Arc::new(first));
    let (ending_sender, ending) = watch::channel(false);
    let limits = Limits { connections: sockets::raise_file_limit(LIMITS.connections), ..LIMITS };
    let gate = Arc::new(Gate::new(start.me.address, targets, ending, limits));
    // Every connection has a sender; the receiver ends when the last one is gone.
    let (alive, all_gone) = mpsc::channel::<()>(1);
    let mut accepting = Vec::new();
    for (kind, listeners) in [(Kind::ReadWrite, read_write), (Kind::ReadOnly, read_only)] {
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let (gate, line, alive) = (Arc::clone(&gate), start.line.clone(), alive.clone());
            accepting.push(tokio::spawn(async move {
                line.admitted().await;
                accept(gate, kind, listener, alive).await;
            }));
        }
    }
    drop(alive);
    let follow = follow::follow(&start.plan, start.line.site(), control, &targets_sender, &gate.until);
    tokio::pin!(follow);
    let order = tokio::select! {
        order = start.line.left() => order,
        () = &mut follow => return Ok(()),
        () = report::keep(&gate, &start.line) => return Ok(()),
    };
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    // Connections that go on are still led away from a server that is the primary no more.
    tokio::select! {
        () = drain(&gate, &start.line, all_gone, order, &ending_sender) => {}
        () = &mut follow => {}
    }
    Ok(())
}

/// The way to control, where the plan has control servers.
fn control(start: &Start) -> Result<Option<Arc<dyn Control>>, Error> {
    if start.plan.role(Role::Control).next().is_none() {
        return Ok(None);
    }
    let identity = Identity::given(&start.secrets)?;
    start.line.renews(&identity);
    let client = Client::new(identity, &start.plan, &start.me.machine);
    let known = client.clone();
    start.line.heeds(move |given| known.follow(&given.plan));
    Ok(Some(Arc::new(client)))
}

async fn accept(gate: Arc<Gate>, kind: Kind, listener: TcpListener, alive: mpsc::Sender<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot listen: {error}"),
    };
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let (gate, alive) = (Arc::clone(&gate), alive.clone());
                tokio::spawn(async move {
                    serve::serve(&gate, kind, client).await;
                    drop(alive);
                });
            }
            // The agent makes the listener refuse before an end.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Lets connections end by themselves for most of the time, then cuts them.
async fn drain(
    gate: &Gate,
    line: &Line,
    mut all_gone: mpsc::Receiver<()>,
    order: Order,
    ending: &watch::Sender<bool>,
) {
    let open = gate.limits.connections - gate.connections.available_permits();
    line.report(State::Draining, format!("waiting for {open} connections to end"));
    let within = match order {
        Order::Stop { within } => within,
        Order::Serve => Duration::ZERO,
        Order::Retire { within } => tokio::select! {
            _ = all_gone.recv() => return,
            // The last of the time is for those that have to be cut.
            () = tokio::time::sleep(within.mul_f32(0.9)) => within.mul_f32(0.1),
            within = line.hurried() => within,
        },
    };
    if tokio::time::timeout(within.mul_f32(0.9), all_gone.recv()).await.is_err() {
        ending.send_replace(true);
        if tokio::time::timeout(within.mul_f32(0.1), all_gone.recv()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

#[cfg(test)]
mod tests;
