//! The load balancer: the one place where clients arrive, and a healthy server for each request.
//!
//! ```text
//! request ── gate (who is let in) ── pass (routes, who clients are) ── pool ── relay (there and back)
//!                                                                                  │
//!                                       choose (which server), queue (not yet), budget (how often)
//!                                          ▲
//!                       fleet (who is up): checks, requests that failed
//! ```
//!
//! It keeps no state that a restart would lose, and never answers for the site itself: when no server is up
//! it says 503 at once, and when all are busy after the queue's time.

pub mod budget;
pub mod choose;
mod gate;
mod pass;
mod pool;
pub mod queue;
pub mod rates;
mod reserved;
mod routes;
mod say;
mod setup;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use link::api::AuthorityError;
use link::report::State;
use link::{Given, Line, Order, Start};
use relay::{AccessLog, Current, Resolver, Serving, Settings, Stop, Tuning};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use pass::Pass;
use pool::{Around, Pools};
use setup::Setup;

/// How often counters are published.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How long new settings wait until each of their servers was checked, so that requests do not meet a pool of which
/// nothing is known; then they are used as they are.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the plan has no [balancer] section for {0}")]
    NotPlanned(String),
    #[error("{0} was given no socket to listen on")]
    NoSocket(String),
    #[error("a thread of the balancer ended; see the log before this line")]
    Broken,
    #[error(transparent)]
    Keys(#[from] AuthorityError),
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves until the agent says stop, then lets requests finish.
pub fn run(start: Start) -> Result<(), Error> {
    run_with(start, Resolver::default())
}

/// The same, with the names of servers asked for there.
pub fn run_with(mut start: Start, resolver: Resolver) -> Result<(), Error> {
    let not_planned = || Error::NotPlanned(start.me.name.clone());
    let planned = start.plan.balancer.as_ref().ok_or_else(not_planned)?;
    let listeners = start.sockets.tcp("http");
    if listeners.is_empty() {
        return Err(Error::NoSocket(start.me.name));
    }
    relay::raise_descriptor_limit();
    let threads = listeners.len();
    let keys = start.line.delegate(&start.plan, &start.secrets)?;
    let around = Around::of(&start.plan, &start.me, keys, resolver, threads);
    let setup = Arc::new(Setup::new(&start.plan, &around, None)?.ok_or_else(not_planned)?);
    let access_log = AccessLog::begin(planned.access_log.as_ref(), &start.me.name, &start.folder, threads)?;
    let (tune, tuned) = watch::channel(setup::tuning(planned, &start.files));
    let settings = Settings::new(planned.timeouts)
        .admitted(start.line.admission())
        .tuned(tuned)
        .alarmed(around.alarm.clone())
        .logged(Some(access_log.clone()));
    let (publish, published) = watch::channel(Arc::clone(&setup));
    let via: Arc<str> = format!("1.1 {}", start.me.name).into();
    let pass = move |_| Pass { via: Arc::clone(&via), setup: Current::new(published.clone()) };
    let stop = Stop::default();
    let serving = relay::serve(listeners, settings, stop.clone(), pass)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = start.me.listens("http").map(|address| address.to_string()).unwrap_or_default();
        let watched = Watched::over(&setup.pools);
        let line = start.line.clone();
        let balancer =
            Balancer { line: start.line, address, around, setup, watched, publish, tune, access_log };
        match balancer.attend(&serving).await? {
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

/// What is done beside the traffic.
struct Balancer {
    line: Line,
    address: String,
    around: Around,
    setup: Arc<Setup>,
    watched: Watched,
    publish: watch::Sender<Arc<Setup>>,
    tune: watch::Sender<Tuning>,
    access_log: AccessLog,
}

impl Balancer {
    /// Watches the servers and says how things are, until the order to leave.
    async fn attend(mut self, serving: &Serving) -> Result<Order, Error> {
        let mut plans = self.line.plans();
        let mut ticks = tokio::time::interval(COUNT_EVERY);
        let line = self.line.clone();
        let left = line.left();
        tokio::pin!(left);
        loop {
            self.say();
            tokio::select! {
                order = &mut left => {
                    self.line.report(State::Draining, order.sentence());
                    return Ok(order);
                }
                () = self.watched.changed.notified() => {}
                _ = ticks.tick() => {
                    self.line.count(serving.totals());
                    self.line.traffic(traffic::report(&self.setup.pools));
                    if serving.is_broken() {
                        return Err(Error::Broken);
                    }
                }
                given = plans.next() => self.take_on(&given).await,
                ended = self.watched.tasks.join_next() => {
                    tracing::error!("the checks ended: {ended:?}");
                    return Err(Error::Broken);
                }
            }
        }
    }

    fn say(&self) {
        let (state, because) = say::state(&self.setup.pools, &self.address);
        self.line.report(state, because);
    }

    /// Replaces all settings, once the new servers among them were checked. Requests under way keep the old ones.
    async fn take_on(&mut self, given: &Given) {
        let setup = match Setup::new(&given.plan, &self.around, Some(&self.setup)) {
            Ok(Some(setup)) => setup,
            Ok(None) => return,
            Err(error) => return self.line.refused(given, error),
        };
        let setup = Arc::new(setup);
        let watched = Watched::over(&setup.pools);
        let known = async {
            while !setup.pools.are_known() {
                watched.changed.notified().await;
            }
        };
        if tokio::time::timeout(KNOWN_WITHIN, known).await.is_err() {
            tracing::warn!("not every server answered its first check within {KNOWN_WITHIN:?}");
        }
        self.publish.send_replace(Arc::clone(&setup));
        if let Some(planned) = &given.plan.balancer {
            self.tune.send_replace(setup::tuning(planned, &given.files));
            self.access_log.follow(planned.access_log.as_ref());
        }
        // Who waits for a server waits for one of the new settings.
        self.setup.pools.iter().for_each(|pool| pool.chooser.queue.turn_away());
        (self.setup, self.watched) = (setup, watched);
        self.line.took(given, "uses the new settings");
    }
}

/// The tasks that check the servers of all pools.
struct Watched {
    tasks: JoinSet<()>,
    changed: Arc<Notify>,
}

impl Watched {
    fn over(pools: &Arc<Pools>) -> Self {
        let (mut tasks, changed) = (JoinSet::new(), Arc::new(Notify::new()));
        for (index, pool) in pools.iter().enumerate() {
            tasks.spawn(Arc::clone(&pool.fleet).watch());
            tasks.spawn(pass_on(Arc::clone(pools), index, Arc::clone(&changed)));
        }
        Self { tasks, changed }
    }
}

/// Tells of each change in a pool: those that wait in its queue, and whoever says how things are.
async fn pass_on(pools: Arc<Pools>, index: usize, changed: Arc<Notify>) {
    let Some(pool) = pools.iter().nth(index) else { return };
    let mut seen = 0;
    loop {
        pool.fleet.changed(&mut seen).await;
        pool.chooser.queue.look_again();
        changed.notify_one();
    }
}
