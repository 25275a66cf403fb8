//! The app server: request to program. It keeps the workers of the application alive, publishes on the
//! [board](link::board) which of them are ready, and forwards requests to them for web servers on other machines.
//!
//! ```text
//! lib ── starts one worker task for each worker, and the front
//!   worker ── sees what happens to one process ── life: what to do about it, and why
//!   │  ├ command, environment, port   what to start
//!   │  └ process, output              the process and what it writes
//!   summary ── from all workers to one state and one sentence
//!   front ── requests to the least busy ready worker
//! ```

mod command;
mod crew;
mod database_url;
mod environment;
mod front;
mod handover;
mod leftover;
mod life;
mod output;
mod port;
mod process;
mod summary;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use link::api::{AuthorityError, Delegate};
use link::board::{Board, SLOTS};
use link::report::State;
use link::{Given, Line, Order, Start};
use plan::Server;
use relay::{Inner, Serving, Settings, Stop, Tuning};
use tokio::sync::watch;

pub use environment::EnvironmentError;

use crew::{Crew, HALF};
use environment::Environment;
use front::Front;
use leftover::Whose;
use life::Standing;
use port::Ports;
use worker::Site;

/// How often counters are published.
const TICK: Duration = Duration::from_secs(1);
/// How long the front may take to read requests that were sent before the end began; only then do workers leave
/// the board, so that each of those requests still finds one.
const LAST_REQUESTS: Duration = Duration::from_millis(600);
/// Kept back from the time to end, so that we end by ourselves and are not killed: a tenth, at most this.
const RESERVE: Duration = Duration::from_millis(500);

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the plan has no [app]")]
    NoApp,
    #[error("the agent handed over no board")]
    NoBoard,
    #[error("the agent handed over no socket \"http\"")]
    NoSocket,
    #[error("[app] workers is {0}, and one server can have at most {SLOTS}")]
    TooMany(u16),
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error("a thread that serves requests ended by itself, see the log")]
    Broken,
    #[error(transparent)]
    Keys(#[from] AuthorityError),
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
}

/// Serves until the agent says stop. Workers are started from the calling thread and end with it.
pub fn run(mut start: Start) -> Result<(), Error> {
    let board = start.board.take().ok_or(Error::NoBoard)?;
    let given = Given {
        plan: start.plan.as_ref().clone(),
        files: start.files,
        programs: start.programs,
        secrets: start.secrets,
    };
    let around = Around {
        me: start.me,
        folder: start.folder,
        board: board.clone(),
        ports: Arc::default(),
        starts: Arc::default(),
    };
    let (base, whose) =
        if start.succeeds { (handover::free_half(&board), Whose::OfTheDead) } else { (0, Whose::All) };
    let site = around.site(&given, base)?;
    if !start.succeeds {
        board.clear();
    }
    let left = leftover::end(&around.folder, whose);
    if left > 0 {
        tracing::warn!("ended {left} processes that a killed {} had left", around.me.name);
    }
    let listeners = start.sockets.tcp("http");
    if listeners.is_empty() {
        return Err(Error::NoSocket);
    }
    let (tune, tuned) = watch::channel(tuning(&site.app));
    let keys = start.line.delegate(&given.plan, &given.secrets)?;
    // Where there is a tier before it, that comes, and nobody else.
    let is_behind = given.plan.balancer.is_some() || given.plan.web.is_some();
    let inner = keys.as_ref().filter(|_| is_behind);
    let inner =
        inner.map(|keys| Inner::new(keys.server(), around.me.address, given.plan.encrypted, keys.revoked()));
    let settings =
        Settings::new(site.app.timeouts).within(inner.clone()).admitted(start.line.admission()).tuned(tuned);
    let stop = Stop::default();
    let via = format!("1.1 {}", around.me.name);
    let front = move |_thread| Front { board: board.clone(), via: via.clone() };
    let serving = relay::serve(listeners, settings, stop.clone(), front)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let line = start.line;
    runtime.block_on(async {
        let mut crew = Crew::of(site);
        if !start.succeeds {
            crew.start_all();
        }
        let mut supervisor = Supervisor {
            around,
            crew,
            leaving: Vec::new(),
            serving,
            stop,
            line,
            tune,
            inner: inner.zip(keys),
        };
        match supervisor.serve().await? {
            Order::Retire { within } => supervisor.retire(less_reserve(within)).await,
            Order::Stop { within } => supervisor.end(less_reserve(within)).await,
            Order::Serve => Ok(()),
        }
    })
}

fn less_reserve(within: Duration) -> Duration {
    within - RESERVE.min(within / 10)
}

fn tuning(app: &plan::App) -> Tuning {
    let connections = relay::Limits::default().connections;
    Tuning { timeouts: app.timeouts, connections, proxies: Arc::default(), pages: Arc::default() }
}

/// What does not change while the server runs.
struct Around {
    me: Server,
    folder: PathBuf,
    board: Board,
    ports: Arc<Ports>,
    starts: Arc<AtomicU64>,
}

impl Around {
    /// What the workers of this plan have in common, with slots on the board from `base` on.
    fn site(&self, given: &Given, base: usize) -> Result<Site, Error> {
        let app = given.plan.app.clone().ok_or(Error::NoApp)?;
        if usize::from(app.workers) > SLOTS {
            return Err(Error::TooMany(app.workers));
        }
        let standings = vec![Standing::Starting; app.workers.into()];
        Ok(Site {
            server: self.me.name.clone(),
            domain: given.plan.domain.clone().unwrap_or_else(|| self.me.address.to_string()),
            host: worker::host(self.me.address),
            app,
            files: given.files.clone(),
            programs: given.programs.clone(),
            environment: Environment::of(given, &self.me, &self.folder, std::env::vars_os())?,
            board: self.board.clone(),
            base,
            ports: Arc::clone(&self.ports),
            standings: watch::Sender::new(standings),
            starts: Arc::clone(&self.starts),
        })
    }

    /// Ends children that left the group of their worker.
    fn end_leftover(&self) {
        let left = leftover::end(&self.folder, Whose::Mine);
        if left > 0 {
            tracing::warn!("ended {left} processes that the workers had left");
        }
    }
}

struct Supervisor {
    around: Around,
    crew: Crew,
    /// Those that were replaced and finish their requests.
    leaving: Vec<Crew>,
    serving: Serving,
    stop: Stop,
    line: Line,
    tune: watch::Sender<Tuning>,
    /// None: the clients come here themselves.
    inner: Option<(Inner, Delegate)>,
}

impl Supervisor {
    /// Reports, and follows later plans, until the order to leave.
    async fn serve(&mut self) -> Result<Order, Error> {
        let (mut tick, mut once) = (tokio::time::interval(TICK), false);
        let mut plans = self.line.plans();
        loop {
            let mut standings = self.crew.site.standings.subscribe();
            // One that takes over begins without workers; this starts them one after another.
            self.crew.grow();
            if standings.borrow().contains(&Standing::Ready) {
                self.line.take_connections();
            }
            let (state, because) = summary::of(&standings.borrow_and_update(), once);
            once |= state == State::Healthy;
            self.line.report(state, because);
            tokio::select! {
                order = self.line.left() => return Ok(order),
                _ = standings.changed() => {}
                given = plans.next() => {
                    let line = self.line.clone();
                    tokio::select! {
                        order = line.left() => return Ok(order),
                        () = self.take_on(&given) => {}
                    }
                }
                _ = tick.tick() => {
                    self.leaving.retain_mut(|crew| !crew.is_gone());
                    self.tidy_board();
                    self.count()?;
                }
            }
        }
    }

    fn count(&self) -> Result<(), Error> {
        let mut counters = self.serving.totals();
        counters.insert("workers_ready".into(), self.around.board.ready() as u64);
        counters.insert("worker_starts".into(), self.around.starts.load(Ordering::Relaxed));
        self.line.count(counters);
        if self.serving.is_broken() { Err(Error::Broken) } else { Ok(()) }
    }

    /// Replaces the workers one after another if the plan changes anything about them. May be dropped at any time:
    /// the workers that it has begun to start are then among those that are ended.
    async fn take_on(&mut self, given: &Given) {
        let base = HALF - self.crew.site.base;
        let site = match self.around.site(given, base) {
            Ok(site) => site,
            Err(error) => return self.line.refused(given, error),
        };
        if let Some((inner, keys)) = &self.inner {
            inner.follow(given.plan.encrypted, keys.revoked());
        }
        if site.is_same_as(&self.crew.site) {
            return self.line.took(given, "goes on with its workers");
        }
        let most = site.app.workers.max(self.crew.site.app.workers);
        if usize::from(most) > HALF {
            return self.line.refused(given, format!("only {HALF} workers can be replaced while they serve"));
        }
        self.tune.send_replace(tuning(&site.app));
        for crew in self.leaving.iter_mut().filter(|crew| crew.site.base == base) {
            crew.gone().await;
        }
        self.leaving.push(Crew::of(site));
        let Some(new) = self.leaving.last_mut() else { return };
        let replaced = new.replace(&self.crew).await;
        if let Err(because) = replaced {
            new.end_all(Duration::from_millis(new.site.app.stop_ms));
            return self.line.refused(given, because);
        }
        std::mem::swap(new, &mut self.crew);
        let count = self.crew.site.app.workers;
        let workers = if count == 1 { "its worker" } else { "its workers, one after another" };
        self.line.took(given, format!("has replaced {workers}"));
    }

    /// First nothing new comes in, then the workers leave the board, finish what they have, and end.
    async fn end(mut self, within: Duration) -> Result<(), Error> {
        let begin = Instant::now();
        self.line.report(State::Draining, "finishing the requests that are under way");
        self.stop.drain(within);
        let serving = self.serving;
        let mut front = tokio::task::spawn_blocking(move || serving.wait());
        let last_requests = LAST_REQUESTS.min(within / 4);
        let mut ended = tokio::time::timeout(last_requests, &mut front).await.is_ok();
        let rest = within.saturating_sub(begin.elapsed());
        self.leaving.push(self.crew);
        self.leaving.iter().for_each(|crew| crew.end_all(rest));
        for crew in &mut self.leaving {
            crew.gone().await;
        }
        if !ended {
            let rest = within.saturating_sub(begin.elapsed());
            ended = tokio::time::timeout(rest, &mut front).await.is_ok();
        }
        if !ended {
            tracing::debug!("some connections were still open at the end");
        }
        self.around.board.clear();
        self.around.end_leftover();
        Ok(())
    }
}
