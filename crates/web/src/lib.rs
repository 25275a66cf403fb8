//! The web server: a file under the root is served, anything else is the application's.
//!
//! ```text
//! request ── place (which file would that be) ── file (open, beneath the root) ── answer (304, 206, 200)
//!              │ no such file, or another method
//!              └ apps (which app server, or straight which worker) ── relay (there and back)
//! ```
//!
//! Nothing outside the root can be named, whatever a path says or a link points to, and no dotfile is ever served.

mod answer;
mod apps;
mod file;
mod kind;
mod place;
mod range;
mod say;
mod serve;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use link::api::{AuthorityError, Delegate};
use link::board::{Board, Column};
use link::report::State;
use link::{Given, Line, Order, Start};
use plan::{Place, Plan, Server};
use relay::{AccessLog, Alarm, Current, Fleet, Inner, Serving, Settings, Stop, Tuning};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use apps::Apps;
use file::Root;
use serve::{Site, Web};

/// How often counters are published.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How long new settings wait until each app server was checked, so that requests do not meet one of which nothing is
/// known; then they are used as they are.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the plan has no [web] section for {0}")]
    NotPlanned(String),
    #[error("{0} was given no socket to listen on")]
    NoSocket(String),
    #[error("cannot open the folder of static files {folder}: {error}")]
    Root { folder: String, error: std::io::Error },
    #[error("a thread of the web server ended; see the log before this line")]
    Broken,
    #[error(transparent)]
    Keys(#[from] AuthorityError),
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves until the agent says stop, then lets requests finish.
pub fn run(mut start: Start) -> Result<(), Error> {
    let Some(planned) = &start.plan.web else { return Err(Error::NotPlanned(start.me.name)) };
    let listeners = start.sockets.tcp("http");
    if listeners.is_empty() {
        return Err(Error::NoSocket(start.me.name));
    }
    if let Some(board) = &start.board
        && !start.succeeds
    {
        board.reset(Column::Web);
    }
    relay::raise_descriptor_limit();
    let (tune, tuned) = watch::channel(tuning(planned));
    let alarm = Alarm::default();
    let access_log =
        AccessLog::begin(planned.access_log.as_ref(), &start.me.name, &start.folder, listeners.len())?;
    let keys = start.line.delegate(&start.plan, &start.secrets)?;
    // Where there is a balancer, it comes, and nobody else.
    let inner = keys.as_ref().filter(|_| start.plan.balancer.is_some());
    let inner =
        inner.map(|keys| Inner::new(keys.server(), start.me.address, start.plan.encrypted, keys.revoked()));
    let settings = Settings::new(planned.timeouts)
        .within(inner.clone())
        .admitted(start.line.admission())
        .tuned(tuned)
        .alarmed(alarm.clone())
        .logged(Some(access_log.clone()));
    let shared = Shared { me: start.me, board: start.board, alarm, keys, inner };
    let (fleet, site) = shared.site(&start.plan, &start.files, None)?;
    let (publish, published) = watch::channel(Arc::new(site));
    let web = move |_| Web { site: Current::new(published.clone()) };
    let stop = Stop::default();
    let serving = relay::serve(listeners, settings, stop.clone(), web)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = shared.me.listens("http").map(|address| address.to_string()).unwrap_or_default();
        let checks = tokio::spawn(Arc::clone(&fleet).watch());
        let line = start.line;
        let keeper = Keeper { shared, line: line.clone(), address, fleet, checks, publish, tune, access_log };
        match keeper.attend(&serving).await? {
            Order::Retire { within } => serving.retire(&stop, within, line.hurried()).await,
            Order::Stop { within } => {
                stop.drain(within);
                serving.wait();
            }
            Order::Serve => {}
        }
        Ok(())
    })
}

fn tuning(planned: &plan::Web) -> Tuning {
    let connections = relay::connections_within_descriptors(relay::Limits::default().connections);
    Tuning { timeouts: planned.timeouts, connections, proxies: Arc::default(), pages: Arc::default() }
}

/// What does not change while the server runs.
struct Shared {
    me: Server,
    board: Option<Board>,
    /// Rings whenever an app server comes or goes.
    alarm: Alarm,
    keys: Option<Delegate>,
    /// None: the clients come here themselves.
    inner: Option<Inner>,
}

impl Shared {
    /// What a plan says of the site's files and app servers. `before`: the app servers until now.
    fn site(&self, plan: &Plan, files: &Path, before: Option<&Fleet>) -> Result<(Arc<Fleet>, Site), Error> {
        let planned = plan.web.clone().ok_or_else(|| Error::NotPlanned(self.me.name.clone()))?;
        let open = |root| {
            let folder = files.join(root);
            Root::open(&folder).map_err(|error| Error::Root { folder: folder.display().to_string(), error })
        };
        let root = planned.root.map(open).transpose()?;
        let source = matches!(plan.place, Place::Up { .. }).then_some(self.me.address);
        let mut fleet = Fleet::new(planned.app, planned.check, source)
            .alarming(self.alarm.clone())
            .secured(|target| Delegate::way(self.keys.as_ref(), plan, &self.me, target))?
            .without(&plan.drained);
        if let Some(before) = before {
            fleet = fleet.following(before);
        }
        let fleet = Arc::new(fleet);
        let apps = Apps::new(plan, &self.me, Arc::clone(&fleet), self.board.clone());
        Ok((fleet, Site::new(root, apps)))
    }
}

/// What is done beside the traffic.
struct Keeper {
    shared: Shared,
    line: Line,
    address: String,
    fleet: Arc<Fleet>,
    checks: JoinHandle<()>,
    publish: watch::Sender<Arc<Site>>,
    tune: watch::Sender<Tuning>,
    access_log: AccessLog,
}

impl Keeper {
    /// Watches the app servers and the workers, and says how things are, until the order to leave.
    async fn attend(mut self, serving: &Serving) -> Result<Order, Error> {
        let mut ticks = tokio::time::interval(COUNT_EVERY);
        let mut plans = self.line.plans();
        let mut seen = 0;
        let line = self.line.clone();
        let left = line.left();
        tokio::pin!(left);
        loop {
            // Workers come and go without a word to us: the board is looked at each time.
            self.say();
            tokio::select! {
                order = &mut left => {
                    self.line.report(State::Draining, order.sentence());
                    return Ok(order);
                }
                () = self.fleet.changed(&mut seen) => {}
                given = plans.next() => self.take_on(&given).await,
                _ = ticks.tick() => {
                    self.line.count(serving.totals());
                    if serving.is_broken() {
                        return Err(Error::Broken);
                    }
                }
                ended = &mut self.checks => {
                    tracing::error!("the checks ended: {ended:?}");
                    return Err(Error::Broken);
                }
            }
        }
    }

    fn say(&self) {
        let workers = self.shared.board.as_ref().map_or(0, Board::ready);
        let (state, because) = say::state(&self.address, &self.fleet, workers);
        self.line.report(state, because);
    }

    /// Replaces files and app servers, once new ones among those were checked. Requests under way keep the old ones.
    async fn take_on(&mut self, given: &Given) {
        let made = self.shared.site(&given.plan, &given.files, Some(&self.fleet));
        let (fleet, site) = match made {
            Ok(made) => made,
            Err(error) => return self.line.refused(given, error),
        };
        self.checks.abort();
        self.checks = tokio::spawn(Arc::clone(&fleet).watch());
        let known = async {
            let mut seen = 0;
            while !fleet.is_known() {
                fleet.changed(&mut seen).await;
            }
        };
        if tokio::time::timeout(KNOWN_WITHIN, known).await.is_err() {
            tracing::warn!("not every app server answered its first check within {KNOWN_WITHIN:?}");
        }
        self.publish.send_replace(Arc::new(site));
        if let Some(planned) = &given.plan.web {
            self.tune.send_replace(tuning(planned));
            self.access_log.follow(planned.access_log.as_ref());
        }
        if let (Some(inner), Some(keys)) = (&self.shared.inner, &self.shared.keys) {
            inner.follow(given.plan.encrypted, keys.revoked());
        }
        self.fleet = fleet;
        self.line.took(given, "uses the new settings");
    }
}
