//! The load balancer: the one place where clients arrive, and a healthy server for each request.
//!
//! ```text
//! request ── gate (who is let in) ── pass (what clients may ask, who they are) ── pool ── relay (there and back)
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
mod say;

use std::sync::Arc;
use std::time::Duration;

use link::report::State;
use plan::Place;
use relay::{Serving, Settings, Stop};

use gate::Gate;
use pass::Pass;
use pool::Pool;

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
pub fn run(mut start: link::Start) -> Result<(), Error> {
    let Some(planned) = start.plan.balancer.clone() else { return Err(Error::NotPlanned(start.me.name)) };
    let listeners = start.sockets.tcp("http");
    if listeners.is_empty() {
        return Err(Error::NoSocket(start.me.name));
    }
    relay::raise_descriptor_limit();
    let source = matches!(start.plan.place, Place::Up { .. }).then_some(start.me.address);
    let seed = choose::key::hash(start.me.name.as_bytes());
    let pool = Arc::new(Pool::new(&planned.pool, source, seed));
    let pass = Pass {
        via: format!("1.1 {}", start.me.name),
        shows_via: planned.shows_via,
        gate: Arc::new(Gate::new(&planned)),
        pool: Arc::clone(&pool),
    };
    let stop = Stop::default();
    let mut settings = Settings::new(planned.timeouts).admitted(start.line.admission());
    if let Some(connections) = planned.limits.connections {
        settings.limits.connections = (connections as usize).div_ceil(listeners.len());
    }
    let serving = relay::serve(listeners, settings, stop.clone(), move |_| pass.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let within = runtime.block_on(attend(&start, &pool, &serving))?;
    start.line.report(State::Draining, format!("finishing requests within {} s", within.as_secs()));
    stop.drain(within);
    serving.wait();
    Ok(())
}

/// Watches the servers and says how things are, until the order to stop; then within what time.
async fn attend(start: &link::Start, pool: &Pool, serving: &Serving) -> Result<Duration, Error> {
    let fleet = &pool.fleet;
    let address = start.me.listens("http").map(|address| address.to_string()).unwrap_or_default();
    let mut checks = tokio::spawn(Arc::clone(fleet).watch());
    let mut ticks = tokio::time::interval(COUNT_EVERY);
    let mut seen = 0;
    let say = || {
        let (state, because) = say::state(fleet, &address);
        start.line.report(state, because);
    };
    say();
    let stopped = start.line.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            within = &mut stopped => return Ok(within),
            () = fleet.changed(&mut seen) => {
                pool.chooser.queue.look_again();
                say();
            }
            _ = ticks.tick() => {
                start.line.count(serving.counters().totals());
                if serving.is_broken() {
                    return Err(Error::Broken);
                }
            }
            ended = &mut checks => {
                tracing::error!("the checks ended: {ended:?}");
                return Err(Error::Broken);
            }
        }
    }
}
