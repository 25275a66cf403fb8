//! The server's end of the link: what goes up, what comes down, and staying connected.
//!
//! One small thread reads and writes, so that a server with an asynchronous runtime and one with plain
//! threads use the same thing. When the agent dies the server goes on; the thread connects to the successor
//! and gives it everything it holds (sockets, boards) and says its last report again.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use plan::Plan;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::report::{DatabaseReport, PoolTraffic, Report, SiteReport, State};
use crate::{Secrets, frame, short_path};

/// The version of the frames on the link. Agent and server are of one binary but for an upgrade.
pub const VERSION: u32 = 1;

/// How long the thread waits between two tries to reach a new agent.
const RECONNECT: Duration = Duration::from_millis(50);

/// From server to agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Up {
    /// The first frame of every connection. `holds` names the descriptors that come with it: none from a new
    /// server, all of them from one that outlived its agent.
    Hello {
        version: u32,
        server: String,
        /// Whether this server was connected to an agent before.
        again: bool,
        holds: Vec<String>,
    },
    Report(Report),
    Counters(BTreeMap<String, u64>),
    Traffic(Vec<PoolTraffic>),
}

/// From agent to server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Down {
    /// The answer to a new server's hello; the named descriptors come with it.
    Welcome(Box<Welcome>),
    /// The answer to a server that was adopted.
    Adopted,
    /// The answer to the first report that says the server can serve: its sockets take connections now.
    Admit,
    Site(SiteReport),
    Stop {
        within_ms: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Welcome {
    pub plan: Plan,
    pub server: String,
    pub folder: PathBuf,
    pub files: PathBuf,
    pub programs: PathBuf,
    pub secrets: Secrets,
    /// The names of the descriptors beside this frame, in their order.
    pub holds: Vec<String>,
}

/// What the agent wants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Serve,
    /// Take nothing new, finish what is under way within this time, then end.
    Stop {
        within: Duration,
    },
}

/// The way to the agent. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Line {
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
    admitted: watch::Receiver<bool>,
    site: watch::Receiver<Arc<SiteReport>>,
}

/// Where the reader thread puts what comes down.
struct Downward {
    orders: watch::Sender<Order>,
    admitted: watch::Sender<bool>,
    site: watch::Sender<Arc<SiteReport>>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    upward: Mutex<Upward>,
}

/// What is said again to a new agent, and the way to say it.
#[derive(Debug)]
struct Upward {
    stream: Option<UnixStream>,
    last: Report,
    counters: BTreeMap<String, u64>,
    traffic: Vec<PoolTraffic>,
}

impl Line {
    /// Says how this server is. A new sentence is also logged; the same one twice is sent once.
    pub fn report(&self, state: State, because: impl Into<String>) {
        self.say(|last| Report { state, because: because.into(), ..last.clone() });
    }

    /// The same for a database server, with what it knows of the cluster.
    pub fn report_database(&self, state: State, because: impl Into<String>, database: DatabaseReport) {
        self.say(|last| Report { state, because: because.into(), database: Some(database), ..last.clone() });
    }

    /// Says that the sockets may take connections already, although the server is only starting.
    pub fn take_connections(&self) {
        self.say(|last| Report { takes_connections: true, ..last.clone() });
    }

    /// Publishes totals since the start of this process, for `status --json` and the monitor.
    pub fn count(&self, counters: BTreeMap<String, u64>) {
        let mut upward = self.shared.upward();
        if upward.counters != counters {
            upward.send(&Up::Counters(counters.clone()));
            upward.counters = counters;
        }
    }

    /// The same for the pools of a balancer.
    pub fn traffic(&self, traffic: Vec<PoolTraffic>) {
        let mut upward = self.shared.upward();
        if upward.traffic != traffic {
            upward.send(&Up::Traffic(traffic.clone()));
            upward.traffic = traffic;
        }
    }

    /// Changes to [`Order::Stop`] once, when the server is to end.
    pub fn orders(&self) -> watch::Receiver<Order> {
        self.orders.clone()
    }

    /// Waits until the server is to end, and says within what time.
    pub async fn stopped(&self) -> Duration {
        let mut orders = self.orders.clone();
        loop {
            if let Order::Stop { within } = *orders.borrow_and_update() {
                return within;
            }
            if orders.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the agent has made the sockets take connections, which it does at the first report that is
    /// not `starting`, or that says so. A socket must not be given to an event loop before: what is not listening yet looks
    /// closed for ever to some of them.
    pub async fn admitted(&self) {
        let mut admitted = self.admitted.clone();
        if admitted.wait_for(|admitted| *admitted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The same as a value that changes to true, for an engine on threads of its own.
    pub fn admission(&self) -> watch::Receiver<bool> {
        self.admitted.clone()
    }

    /// What all machines report, as far as this machine's agent knows. Sent to gates and database servers.
    pub fn site(&self) -> watch::Receiver<Arc<SiteReport>> {
        self.site.clone()
    }

    /// A line that leads nowhere, for tests of a server without an agent. The sender gives orders.
    pub fn unattached() -> (Self, watch::Sender<Order>, watch::Sender<Arc<SiteReport>>) {
        let shared = Arc::new(Shared::new("unattached".into(), None));
        let (line, downward) = connect(shared);
        downward.admitted.send_replace(true);
        // Its last value stays readable without a sender.
        (line, downward.orders, downward.site)
    }

    /// What was reported last: for tests.
    pub fn last_report(&self) -> Report {
        self.shared.upward().last.clone()
    }

    /// What was published last: for tests.
    pub fn last_traffic(&self) -> Vec<PoolTraffic> {
        self.shared.upward().traffic.clone()
    }

    fn say(&self, next: impl FnOnce(&Report) -> Report) {
        let mut upward = self.shared.upward();
        let report = next(&upward.last);
        if report == upward.last {
            return;
        }
        if (report.state, &report.because) != (upward.last.state, &upward.last.because) {
            log_change(&report);
        }
        upward.send(&Up::Report(report.clone()));
        upward.last = report;
    }
}

fn log_change(report: &Report) {
    match report.state {
        State::Unhealthy | State::Down => tracing::warn!("{}: {}", report.state, report.because),
        State::Starting | State::Healthy | State::Draining => {
            tracing::info!("{}: {}", report.state, report.because);
        }
    }
}

impl Shared {
    fn new(server: String, stream: Option<UnixStream>) -> Self {
        let last = Report {
            state: State::Starting,
            because: "started".into(),
            database: None,
            takes_connections: false,
        };
        Self {
            server,
            upward: Mutex::new(Upward { stream, last, counters: BTreeMap::new(), traffic: Vec::new() }),
        }
    }

    fn upward(&self) -> MutexGuard<'_, Upward> {
        self.upward.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Upward {
    /// A frame that cannot be sent is not lost: the reader thread notices the end and says all again.
    fn send(&mut self, up: &Up) {
        let Some(stream) = &self.stream else { return };
        if let Err(error) = frame::send(stream, up, &[] as &[OwnedFd]) {
            tracing::debug!("the agent did not take a frame: {error}");
            self.stream = None;
        }
    }
}

/// What the reader thread needs for the whole life of the server.
pub(crate) struct Keeper {
    pub(crate) server: String,
    pub(crate) socket: PathBuf,
    /// Duplicates of all that the agent handed over, to give to its successor.
    pub(crate) holds: Vec<(String, OwnedFd)>,
}

fn connect(shared: Arc<Shared>) -> (Line, Downward) {
    let (order_sender, orders) = watch::channel(Order::Serve);
    let (admitted_sender, admitted) = watch::channel(false);
    let (site_sender, site) = watch::channel(Arc::new(SiteReport::default()));
    let line = Line { shared, orders, admitted, site };
    (line, Downward { orders: order_sender, admitted: admitted_sender, site: site_sender })
}

/// Starts the thread that keeps the line up, on a connection whose welcome was read.
pub(crate) fn keep(keeper: Keeper, stream: UnixStream) -> std::io::Result<Line> {
    let shared = Arc::new(Shared::new(keeper.server.clone(), Some(stream.try_clone()?)));
    let (line, downward) = connect(Arc::clone(&shared));
    std::thread::Builder::new().name("link".into()).stack_size(256 * 1024).spawn(move || {
        let mut stream = stream;
        loop {
            listen(&stream, &downward);
            shared.upward().stream = None;
            stream = reconnect(&keeper, &shared);
        }
    })?;
    Ok(line)
}

/// Reads orders until the connection ends.
fn listen(stream: &UnixStream, downward: &Downward) {
    loop {
        match frame::receive::<Down>(stream) {
            Ok((Down::Site(report), _)) => {
                downward.site.send_replace(Arc::new(report));
            }
            Ok((Down::Stop { within_ms }, _)) => {
                downward.orders.send_replace(Order::Stop { within: Duration::from_millis(within_ms) });
            }
            Ok((Down::Admit, _)) => {
                downward.admitted.send_replace(true);
            }
            Ok((Down::Welcome(_) | Down::Adopted, _)) => {}
            Err(error) => {
                tracing::debug!("the line to the agent ended: {error}");
                return;
            }
        }
    }
}

/// Tries until a new agent takes us, however long that takes: traffic goes on meanwhile.
fn reconnect(keeper: &Keeper, shared: &Shared) -> UnixStream {
    loop {
        std::thread::sleep(RECONNECT);
        match adopt(keeper) {
            Ok(stream) => {
                let Ok(clone) = stream.try_clone() else { continue };
                let mut upward = shared.upward();
                upward.stream = Some(clone);
                let (last, counters) = (upward.last.clone(), upward.counters.clone());
                let traffic = upward.traffic.clone();
                upward.send(&Up::Report(last));
                upward.send(&Up::Counters(counters));
                upward.send(&Up::Traffic(traffic));
                tracing::info!("{} is connected to a new agent", shared.server);
                return stream;
            }
            Err(error) => tracing::trace!("no agent yet: {error}"),
        }
    }
}

fn adopt(keeper: &Keeper) -> Result<UnixStream, frame::FrameError> {
    let stream = short_path::connect(&keeper.socket)?;
    let holds = keeper.holds.iter().map(|(name, _)| name.clone()).collect();
    let descriptors: Vec<_> = keeper.holds.iter().map(|(_, descriptor)| descriptor).collect();
    let hello = Up::Hello { version: VERSION, server: keeper.server.clone(), again: true, holds };
    frame::send(&stream, &hello, &descriptors)?;
    match frame::receive::<Down>(&stream)? {
        (Down::Adopted, _) => Ok(stream),
        (other, _) => Err(frame::FrameError::Unexpected(format!("{other:?}"))),
    }
}
