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
mod database_url;
mod environment;
mod front;
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

use link::board::{Board, SLOTS};
use link::report::State;
use link::{Line, Start};
use relay::{Serving, Settings, Stop};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use environment::EnvironmentError;

use environment::Environment;
use front::Front;
use life::Standing;
use worker::{Site, Worker};

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
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
}

/// Serves until the agent says stop. Workers are started from the calling thread and end with it.
pub fn run(mut start: Start) -> Result<(), Error> {
    let app = start.plan.app.clone().ok_or(Error::NoApp)?;
    if usize::from(app.workers) > SLOTS {
        return Err(Error::TooMany(app.workers));
    }
    let board = start.board.take().ok_or(Error::NoBoard)?;
    board.clear();
    let left = leftover::end(&start.folder);
    if left > 0 {
        tracing::warn!("ended {left} processes that a killed {} had left", start.me.name);
    }
    let listeners = start.sockets.tcp("http");
    if listeners.is_empty() {
        return Err(Error::NoSocket);
    }
    let settings = Settings::new(app.timeouts).admitted(start.line.admission());
    let stop = Stop::default();
    let site = Arc::new(site(&start, app, board.clone())?);
    let via = format!("1.1 {}", start.me.name);
    let front = move |_thread| Front { board: board.clone(), via: via.clone() };
    let serving = relay::serve(listeners, settings, stop.clone(), front)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(Supervisor { site, serving, stop, line: start.line, folder: start.folder }.run())
}

fn site(start: &Start, app: plan::App, board: Board) -> Result<Site, Error> {
    let standings = vec![Standing::Starting; app.workers.into()];
    Ok(Site {
        server: start.me.name.clone(),
        domain: start.plan.domain.clone().unwrap_or_else(|| start.me.address.to_string()),
        host: worker::host(start.me.address),
        app,
        files: start.files.clone(),
        programs: start.programs.clone(),
        environment: Environment::of(start, std::env::vars_os())?,
        board,
        ports: port::Ports::default(),
        standings: watch::Sender::new(standings),
        starts: AtomicU64::new(0),
    })
}

struct Supervisor {
    site: Arc<Site>,
    serving: Serving,
    stop: Stop,
    line: Line,
    folder: PathBuf,
}

impl Supervisor {
    async fn run(self) -> Result<(), Error> {
        let end = watch::Sender::new(None);
        let mut workers = JoinSet::new();
        for slot in 0..self.site.app.workers.into() {
            workers.spawn(Worker::new(Arc::clone(&self.site), slot, end.subscribe()).run());
        }
        let within = self.serve().await?;
        self.end(within - RESERVE.min(within / 10), &end, workers).await
    }

    /// Reports until the stop.
    async fn serve(&self) -> Result<Duration, Error> {
        let mut standings = self.site.standings.subscribe();
        let (mut tick, mut once) = (tokio::time::interval(TICK), false);
        loop {
            let (state, because) = summary::of(&standings.borrow_and_update(), once);
            once |= state == State::Healthy;
            self.line.report(state, because);
            tokio::select! {
                within = self.line.stopped() => return Ok(within),
                _ = standings.changed() => {}
                _ = tick.tick() => self.count()?,
            }
        }
    }

    fn count(&self) -> Result<(), Error> {
        let mut counters = self.serving.totals();
        counters.insert("workers_ready".into(), self.site.board.ready() as u64);
        counters.insert("worker_starts".into(), self.site.starts.load(Ordering::Relaxed));
        self.line.count(counters);
        if self.serving.is_broken() { Err(Error::Broken) } else { Ok(()) }
    }

    /// First nothing new comes in, then the workers leave the board, finish what they have, and end.
    async fn end(
        self,
        within: Duration,
        end: &watch::Sender<Option<Duration>>,
        mut workers: JoinSet<()>,
    ) -> Result<(), Error> {
        let begin = Instant::now();
        self.line.report(State::Draining, "finishing the requests that are under way");
        self.stop.drain(within);
        let mut front = tokio::task::spawn_blocking(move || self.serving.wait());
        let last_requests = LAST_REQUESTS.min(within / 4);
        let mut ended = tokio::time::timeout(last_requests, &mut front).await.is_ok();
        end.send_replace(Some(within.saturating_sub(begin.elapsed())));
        while let Some(worker) = workers.join_next().await {
            if let Err(error) = worker {
                tracing::error!("the task of a worker ended in a panic: {error}");
            }
        }
        if !ended {
            let rest = within.saturating_sub(begin.elapsed());
            ended = tokio::time::timeout(rest, &mut front).await.is_ok();
        }
        if !ended {
            tracing::debug!("some connections were still open at the end");
        }
        self.site.board.clear();
        // Children that left the group of their worker.
        let left = leftover::end(&self.folder);
        if left > 0 {
            tracing::warn!("ended {left} processes that the workers had left");
        }
        Ok(())
    }
}
