//! The server's end of the link: what goes up, what comes down, and staying connected.
//!
//! One small thread reads and writes, so that a server with an asynchronous runtime and one with plain
//! threads use the same thing. When the agent dies the server goes on; the thread connects to the successor
//! and gives it everything it holds (sockets, boards) and says its last report again.

mod keeper;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plan::Plan;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::api::{AuthorityError, Delegate, Identity};
use crate::report::{DatabaseReport, PoolTraffic, Report, SiteReport, State};
use crate::{Secrets, frame};

pub(crate) use keeper::{Keeper, keep};

/// The version of the frames on the link. Agent and server are of one binary but for an upgrade.
pub const VERSION: u32 = 1;

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
    /// What was done about the plan of this generation.
    Took(Taken),
}

/// What a server did about a later plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub generation: u64,
    /// In words.
    pub did: String,
    /// Whether it could not, and goes on as before.
    pub refused: bool,
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
    /// A plan of a later generation, to be carried out without the loss of a request.
    Plan(Box<Given>),
    /// A successor serves on the same sockets.
    Retire {
        within_ms: u64,
    },
    Stop {
        within_ms: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Welcome {
    pub server: String,
    pub folder: PathBuf,
    pub given: Given,
    /// Whether this process takes over from one that still serves.
    #[serde(default)]
    pub succeeds: bool,
    /// The names of the descriptors beside this frame, in their order.
    pub holds: Vec<String>,
}

/// What a server works by, all of which a reload may replace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Given {
    pub plan: Plan,
    /// The application files of the release in force.
    pub files: PathBuf,
    /// Where programs beside the dolmen binary are sought.
    pub programs: PathBuf,
    pub secrets: Secrets,
}

/// What the agent wants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Serve,
    /// A successor serves on the same sockets: take nothing new, let what was begun come to its own end, at most
    /// within this time, then end.
    Retire {
        within: Duration,
    },
    /// Take nothing new, finish what is under way within this time, then end.
    Stop {
        within: Duration,
    },
}

impl Order {
    /// Why a server that follows this order is draining.
    pub fn sentence(&self) -> String {
        match self {
            Order::Serve => "serving".to_owned(),
            Order::Retire { .. } => "a successor serves; finishing what was begun".to_owned(),
            Order::Stop { within } => format!("finishing requests within {} s", within.as_secs()),
        }
    }
}

/// The way to the agent. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Line {
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
    admitted: watch::Receiver<bool>,
    site: watch::Receiver<Arc<SiteReport>>,
    plans: watch::Receiver<Option<Arc<Given>>>,
}

/// Where the reader thread puts what comes down.
struct Downward {
    orders: watch::Sender<Order>,
    admitted: watch::Sender<bool>,
    site: watch::Sender<Arc<SiteReport>>,
}

/// The plans that come after the one of the start.
#[derive(Debug)]
pub struct Plans(watch::Receiver<Option<Arc<Given>>>);

impl Plans {
    /// The newest that was not seen yet. Older ones that nobody looked at are skipped.
    pub async fn next(&mut self) -> Arc<Given> {
        while self.0.changed().await.is_ok() {
            if let Some(given) = &*self.0.borrow_and_update() {
                return Arc::clone(given);
            }
        }
        std::future::pending().await
    }

    /// The same, if there is one already.
    pub fn newest(&mut self) -> Option<Arc<Given>> {
        let has_changed = self.0.has_changed().unwrap_or(false);
        has_changed.then(|| self.0.borrow_and_update().clone()).flatten()
    }
}

#[derive(Debug)]
struct Shared {
    server: String,
    plans: watch::Sender<Option<Arc<Given>>>,
    /// What is done with each later plan before anything else.
    heeding: Mutex<Vec<Heed>>,
    upward: Mutex<Upward>,
}

/// It has no other way to be seen than what it does.
struct Heed(Box<dyn Fn(&Given) + Send>);

impl std::fmt::Debug for Heed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Heed")
    }
}

/// What is said again to a new agent, and the way to say it.
#[derive(Debug)]
struct Upward {
    stream: Option<UnixStream>,
    last: Report,
    counters: BTreeMap<String, u64>,
    traffic: Vec<PoolTraffic>,
    took: Option<Taken>,
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

    /// The plans that come after the one of the start. A server that asks for them must say of each that it
    /// [took](Line::took) it.
    pub fn plans(&self) -> Plans {
        Plans(self.plans.clone())
    }

    /// Has this done with each later plan, on the thread of the line, before the agent hears that it was taken. For keys,
    /// and for servers that do not adapt to plans: what they work by stays, but machines come and go around them.
    pub fn heeds(&self, heed: impl Fn(&Given) + Send + 'static) {
        let mut heeding = self.shared.heeding();
        // None that comes between is missed: it waits for this lock.
        if let Some(given) = &*self.plans.borrow() {
            heed(given);
        }
        heeding.push(Heed(Box::new(heed)));
    }

    /// Lets this identity show each newer certificate that the agent gives to this server, and heed what was revoked.
    pub fn renews(&self, identity: &Identity) {
        let identity = identity.clone();
        self.heeds(move |given| match Identity::given(&given.secrets) {
            Ok(newer) => identity.renew(&newer),
            Err(error) => tracing::error!("goes on with the certificate that it has: {error}"),
        });
    }

    /// The delegated key that this server was given for its plan, if any; it is renewed in the same way.
    pub fn delegate(&self, plan: &Plan, secrets: &Secrets) -> Result<Option<Delegate>, AuthorityError> {
        let delegate = Delegate::for_plan(plan, secrets)?;
        if let Some(delegate) = delegate.clone() {
            self.heeds(move |given| match Delegate::given(&given.secrets) {
                Ok(newer) => delegate.renew(&newer),
                Err(error) => tracing::error!("goes on with the key that it has: {error}"),
            });
        }
        Ok(delegate)
    }

    /// Says that this plan is carried out from now on, and what was done about it.
    pub fn took(&self, given: &Given, did: impl Into<String>) {
        let generation = given.plan.generation;
        self.shared.took(Taken { generation, did: did.into(), refused: false });
    }

    /// Says that this plan cannot be carried out, and why; all stays as it was.
    pub fn refused(&self, given: &Given, because: impl std::fmt::Display) {
        let did = format!("goes on as before: {because}");
        self.shared.took(Taken { generation: given.plan.generation, did, refused: true });
    }

    /// Hands a later plan to the server: for tests without an agent.
    pub fn give(&self, given: Given) {
        self.shared.plans.send_replace(Some(Arc::new(given)));
    }

    /// The generation of the last plan that the server said it took: for tests.
    pub fn last_taken(&self) -> Option<u64> {
        self.shared.upward().took.as_ref().map(|taken| taken.generation)
    }

    /// Changes to [`Order::Stop`] once, when the server is to end.
    pub fn orders(&self) -> watch::Receiver<Order> {
        self.orders.clone()
    }

    /// Waits until the server is to end, and says within what time.
    pub async fn stopped(&self) -> Duration {
        match self.left().await {
            Order::Stop { within } | Order::Retire { within } => within,
            Order::Serve => Duration::ZERO,
        }
    }

    /// Waits until the server is to end, and says how.
    pub async fn left(&self) -> Order {
        self.ordered(|order| *order != Order::Serve).await
    }

    /// Waits until the server is to stop, also when it retires already, and says within what time.
    pub async fn hurried(&self) -> Duration {
        match self.ordered(|order| matches!(order, Order::Stop { .. })).await {
            Order::Stop { within } => within,
            Order::Serve | Order::Retire { .. } => Duration::ZERO,
        }
    }

    async fn ordered(&self, wanted: impl FnMut(&Order) -> bool) -> Order {
        let mut orders = self.orders.clone();
        // Copied at once: the guard must not live while we wait.
        let order = orders.wait_for(wanted).await.map(|order| *order);
        match order {
            Ok(order) => order,
            Err(_) => std::future::pending().await,
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
        let upward =
            Mutex::new(Upward { stream, last, counters: BTreeMap::new(), traffic: Vec::new(), took: None });
        Self { server, plans: watch::Sender::new(None), heeding: Mutex::default(), upward }
    }

    fn hand(&self, given: Given) {
        let (given, heeding) = (Arc::new(given), self.heeding());
        heeding.iter().for_each(|heed| (heed.0)(&given));
        // Still held: whoever asks for it to be heeded meanwhile sees this one.
        self.plans.send_replace(Some(given));
    }

    /// A server that does not adapt is given a plan: what heeds it does, and the agent is told so once.
    fn pass(&self, given: Given) {
        let generation = given.plan.generation;
        self.hand(given);
        let before = self.upward().took.as_ref().map(|taken| taken.generation);
        if before != Some(generation) {
            let did = "nothing in it changes this server".to_owned();
            self.took(Taken { generation, did, refused: false });
        }
    }

    fn heeding(&self) -> MutexGuard<'_, Vec<Heed>> {
        self.heeding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self, taken: Taken) {
        let mut upward = self.upward();
        if taken.refused {
            tracing::error!("generation {}: {}", taken.generation, taken.did);
        } else {
            tracing::info!("generation {}: {}", taken.generation, taken.did);
        }
        upward.send(&Up::Took(taken.clone()));
        upward.took = Some(taken);
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

fn connect(shared: Arc<Shared>) -> (Line, Downward) {
    let (order_sender, orders) = watch::channel(Order::Serve);
    let (admitted_sender, admitted) = watch::channel(false);
    let (site_sender, site) = watch::channel(Arc::new(SiteReport::default()));
    let plans = shared.plans.subscribe();
    let line = Line { shared, orders, admitted, site, plans };
    (line, Downward { orders: order_sender, admitted: admitted_sender, site: site_sender })
}
