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
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use link::report::State;
use plan::Place;
use relay::page::Pages;
use relay::{AccessLog, Alarm, Resolver, Serving, Settings, Stop};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use gate::Gate;
use pass::Pass;
use pool::{Around, Pools};

/// How often counters are published.
const COUNT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the plan has no [balancer] section for {0}")]
    NotPlanned(String),
    #[error("{0} was given no socket to listen on")]
    NoSocket(String),
    #[error("a thread of the balancer ended; see the log before this line")]
    Broken,
    #[error("cannot serve: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves until the agent says stop, then lets requests finish.
pub fn run(start: link::Start) -> Result<(), Error> {
    run_with(start, Resolver::default())
}

/// The same, with the names of servers asked for there.
pub fn run_with(mut start: link::Start, resolver: Resolver) -> Result<(), Error> {
    let Some(planned) = start.plan.balancer.clone() else { return Err(Error::NotPlanned(start.me.name)) };
    let listeners = start.sockets.tcp("http");
    if listeners.is_empty() {
        return Err(Error::NoSocket(start.me.name));
    }
    relay::raise_descriptor_limit();
    let around = Around {
        source: matches!(start.plan.place, Place::Up { .. }).then_some(start.me.address),
        seed: choose::key::hash(start.me.name.as_bytes()),
        alarm: Alarm::default(),
        resolver,
        threads: listeners.len(),
    };
    let pools = Arc::new(Pools::new(&planned, &around));
    let access_log = match &planned.access_log {
        Some(planned) => Some(AccessLog::begin(planned, &start.me.name, &start.folder, listeners.len())?),
        None => None,
    };
    let pages = pages(planned.error_pages.as_deref(), &start.files);
    let pass = Pass {
        via: format!("1.1 {}", start.me.name),
        shows_via: planned.shows_via,
        trusted: planned.trusted.clone().into(),
        gate: Arc::new(Gate::new(&planned)),
        routes: Arc::new(planned.routes),
        pools: Arc::clone(&pools),
    };
    let stop = Stop::default();
    let mut settings = Settings::new(planned.timeouts)
        .admitted(start.line.admission())
        .alarmed(around.alarm.clone())
        .logged(access_log)
        .paged(pages);
    if planned.proxy_protocol {
        settings = settings.introduced_by(&planned.trusted);
    }
    if let Some(connections) = planned.limits.connections {
        settings.limits.connections = (connections as usize).div_ceil(listeners.len());
    }
    let serving = relay::serve(listeners, settings, stop.clone(), move |_| pass.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let within = runtime.block_on(attend(&start, &pools, &serving))?;
    start.line.report(State::Draining, format!("finishing requests within {} s", within.as_secs()));
    stop.drain(within);
    serving.wait();
    Ok(())
}

/// The site's own error pages. Without them ours will do: trouble with them must not keep the site down.
fn pages(folder: Option<&Path>, files: &Path) -> Pages {
    let Some(folder) = folder else { return Pages::default() };
    Pages::read(&files.join(folder)).unwrap_or_else(|error| {
        tracing::warn!("{error}; clients see our own");
        Pages::default()
    })
}

/// Watches the servers and says how things are, until the order to stop; then within what time.
async fn attend(start: &link::Start, pools: &Arc<Pools>, serving: &Serving) -> Result<Duration, Error> {
    let address = start.me.listens("http").map(|address| address.to_string()).unwrap_or_default();
    let changed = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    for (index, pool) in pools.iter().enumerate() {
        watches.spawn(Arc::clone(&pool.fleet).watch());
        watches.spawn(pass_on(Arc::clone(pools), index, Arc::clone(&changed)));
    }
    let mut ticks = tokio::time::interval(COUNT_EVERY);
    let say = || {
        let (state, because) = say::state(pools, &address);
        start.line.report(state, because);
    };
    say();
    let stopped = start.line.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            within = &mut stopped => return Ok(within),
            () = changed.notified() => say(),
            _ = ticks.tick() => {
                start.line.count(serving.totals());
                start.line.traffic(traffic::report(pools));
                if serving.is_broken() {
                    return Err(Error::Broken);
                }
            }
            Some(ended) = watches.join_next() => {
                tracing::error!("the checks ended: {ended:?}");
                return Err(Error::Broken);
            }
        }
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
