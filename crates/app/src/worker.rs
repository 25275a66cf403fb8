//! Carries out one worker's life: sees what happens, asks [`Life`], does what it says.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::board::Board;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};

use crate::command::{self, Places};
use crate::environment::Environment;
use crate::life::{Act, Event, Exit, Life, Standing, Step, Times};
use crate::output::{self, Tail};
use crate::port::{Port, Ports};
use crate::process::Process;

/// The longest wait for the answer to a health check.
const CHECK: Duration = Duration::from_secs(2);
/// How long the last lines of a worker that ended may take to arrive.
const LAST_LINES: Duration = Duration::from_millis(200);
/// Between two looks whether requests are under way.
const LOOK: Duration = Duration::from_millis(20);

/// What the workers of one server have in common.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) server: String,
    /// The name in the requests of health checks.
    pub(crate) domain: String,
    pub(crate) host: Ipv4Addr,
    pub(crate) app: plan::App,
    pub(crate) files: std::path::PathBuf,
    pub(crate) programs: std::path::PathBuf,
    pub(crate) environment: Environment,
    pub(crate) board: Board,
    /// The first of the slots on the board that these workers use.
    pub(crate) base: usize,
    pub(crate) ports: Arc<Ports>,
    pub(crate) standings: watch::Sender<Vec<Standing>>,
    /// How many processes were started.
    pub(crate) starts: Arc<std::sync::atomic::AtomicU64>,
}

impl Site {
    /// Whether workers of this plan are the same as workers of that one.
    pub(crate) fn is_same_as(&self, other: &Site) -> bool {
        let paths = |site: &Site| (site.files.clone(), site.programs.clone());
        (&self.app, &self.environment, &self.domain) == (&other.app, &other.environment, &other.domain)
            && paths(self) == paths(other)
    }
}

/// How a worker is to leave, see [`Event::Stop`] and [`Event::Retire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    Stop(Duration),
    Retire(Duration),
}

/// One worker: the first has slot 0 and number 1.
pub(crate) struct Worker {
    site: Arc<Site>,
    slot: usize,
    life: Life,
    running: Option<Running>,
    leave: watch::Receiver<Option<Leave>>,
    /// What of it was heard already.
    told: Option<Leave>,
    /// Where the board says that it is ready.
    published: Option<SocketAddrV4>,
    tries: u64,
}

/// What there is only while a process runs.
struct Running {
    process: Process,
    port: Port,
    tail: Tail,
    output: JoinHandle<()>,
    /// Where it answers; not known until it did.
    address: Option<SocketAddrV4>,
    next_check: tokio::time::Instant,
}

impl Worker {
    pub(crate) fn new(site: Arc<Site>, slot: usize, leave: watch::Receiver<Option<Leave>>) -> Self {
        let milliseconds = Duration::from_millis;
        let times = Times { start: milliseconds(site.app.start_ms), stop: milliseconds(site.app.stop_ms) };
        let life = Life::new(times, Instant::now());
        Self { site, slot, life, running: None, leave, told: None, published: None, tries: 0 }
    }

    /// Runs until the worker was told to stop and is gone.
    pub(crate) async fn run(mut self) {
        let mut event = Event::Begin;
        loop {
            let step = self.life.step(event, Instant::now());
            let next = self.carry_out(step);
            self.publish();
            if self.life.is_gone() {
                return;
            }
            event = match next {
                Some(event) => event,
                None => self.next().await,
            };
        }
    }

    fn name(&self) -> String {
        format!("worker {}", self.slot + 1)
    }

    /// Its slot on the board.
    fn place(&self) -> usize {
        self.site.base + self.slot
    }

    fn publish(&self) {
        let standing = self.life.standing();
        self.site.standings.send_if_modified(|all| {
            let changed = all[self.slot] != standing;
            all[self.slot] = standing;
            changed
        });
    }

    /// Does what the table says; an event when that itself had a result.
    fn carry_out(&mut self, step: Step) -> Option<Event> {
        if let Some(because) = &step.because {
            tracing::info!("{} {because}", self.name());
        }
        let mut result = None;
        for act in step.acts {
            match act {
                Act::Spawn => result = self.spawn().err().map(Event::CannotStart),
                Act::Publish => {
                    self.published = self.address();
                    self.site.board.set(self.place(), self.published);
                }
                Act::Withdraw => {
                    if let Some(address) = self.published.take() {
                        self.site.board.withdraw(self.place(), address);
                    }
                }
                Act::Terminate => self.signal(Signal::TERM),
                Act::Kill => self.signal(Signal::KILL),
            }
        }
        result
    }

    fn address(&self) -> Option<SocketAddrV4> {
        self.running.as_ref().and_then(|running| running.address)
    }

    fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            running.process.signal(signal);
        }
    }

    fn spawn(&mut self) -> Result<(), String> {
        self.tries += 1;
        let site = &self.site;
        let path = site.environment.get("PATH").map(std::ffi::OsString::as_os_str).unwrap_or_default();
        let places = Places { files: &site.files, programs: &site.programs, path };
        let command = command::find(&site.app.command, places).map_err(|missing| missing.to_string())?;
        let seed = (site.host, &site.server, std::process::id(), self.place(), self.tries);
        let port =
            site.ports.choose(seed).ok_or("no port from 20000 to 32767 is free: end what holds them")?;
        let environment = site.environment.at(SocketAddr::new(site.host.into(), port.number));
        let (process, pipe) = Process::spawn(&command, &environment, &site.files)
            .map_err(|error| format!("{}: {}", command.program.display(), why_not(&error)))?;
        site.starts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::info!("{} is process {} on port {}", self.name(), process.id(), port.number);
        let tail = Tail::default();
        let output =
            tokio::spawn(output::copy(pipe, format!("{} {}", site.server, self.name()), tail.clone()));
        let next_check = tokio::time::Instant::now();
        self.running = Some(Running { process, port, tail, output, address: None, next_check });
        Ok(())
    }

    /// Waits for whatever comes first.
    async fn next(&mut self) -> Event {
        let wake = self.life.wake().map(tokio::time::Instant::from_std);
        let draining = self.life.is_draining();
        let interval = self.life.check_interval();
        let (site, slot) = (&self.site, self.place());
        let due = self.running.as_ref().filter(|_| interval.is_some());
        let due = due.map(|running| (running.next_check, running.port.number, running.address));
        tokio::select! {
            biased;
            exit = exited(&mut self.running) => {
                self.running = None;
                Event::Exited(exit)
            }
            leave = told_to_leave(&mut self.leave, self.told) => {
                self.told = Some(leave);
                match leave {
                    Leave::Stop(within) => Event::Stop(within),
                    Leave::Retire(within) => Event::Retire(within),
                }
            }
            () = at(wake) => Event::Tick,
            () = idle(&site.board, slot), if draining => Event::Idle,
            (event, address) = checked(site, due) => {
                if let Some(running) = &mut self.running {
                    running.address = address.or(running.address);
                    running.next_check = tokio::time::Instant::now() + interval.unwrap_or(CHECK);
                }
                event
            }
        }
    }
}

/// Waits for the end of the process, if there is one, and for its last lines.
async fn exited(running: &mut Option<Running>) -> Exit {
    let Some(running) = running else { return std::future::pending().await };
    let exit = running.process.end().await.unwrap_or_else(|error| {
        tracing::error!("the end of process {} cannot be seen: {error}", running.process.id());
        Exit::default()
    });
    // A child that left the group may hold the pipe for as long as it likes.
    if timeout(LAST_LINES, &mut running.output).await.is_err() {
        running.output.abort();
    }
    Exit { last_line: running.tail.last(), port_taken: running.tail.port_taken(), ..exit }
}

/// Waits for an order that is another one than the last. One that retires may be told to hurry.
async fn told_to_leave(leave: &mut watch::Receiver<Option<Leave>>, told: Option<Leave>) -> Leave {
    let new = leave.wait_for(|leave| leave.is_some() && *leave != told).await;
    match (new.map(|leave| *leave), told) {
        (Ok(Some(leave)), _) => leave,
        // Nobody is left who could say it: end at once.
        (Ok(None) | Err(_), None) => Leave::Stop(Duration::ZERO),
        (Ok(None) | Err(_), Some(_)) => std::future::pending().await,
    }
}

async fn at(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// Waits until no request is under way. The first look comes late enough for whoever read the board just before
/// the worker was taken off it.
async fn idle(board: &Board, slot: usize) {
    loop {
        sleep(LOOK).await;
        if board.busy(slot) == 0 {
            return;
        }
    }
}

/// The next health check, when its time has come: what it says, and where the worker answered.
async fn checked(
    site: &Site,
    due: Option<(tokio::time::Instant, u16, Option<SocketAddrV4>)>,
) -> (Event, Option<SocketAddrV4>) {
    let Some((time, port, known)) = due else { return std::future::pending().await };
    sleep_until(time).await;
    let own = known.unwrap_or(SocketAddrV4::new(site.host, port));
    let why = match check(site, own).await {
        Ok(()) => return (Event::Well, Some(own)),
        Err(why) => why,
    };
    // A worker that knows nothing of HOST listens on localhost.
    let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    match known {
        None if local != own && check(site, local).await.is_ok() => (Event::Well, Some(local)),
        _ => (Event::Ill(why), None),
    }
}

async fn check(site: &Site, address: SocketAddrV4) -> Result<(), String> {
    let health = &site.app.health;
    match relay::probe(address.into(), None, &site.domain, health, CHECK).await {
        Ok(200..=299) => Ok(()),
        Ok(status) => Err(format!("GET {health} answered {status}, not 2xx")),
        Err(error) => Err(format!("GET {health}: {error}")),
    }
}

/// Why a program that is there did not start (execve(2)).
fn why_not(error: &io::Error) -> String {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT) => "the interpreter in its first line is not there".into(),
        Some(rustix::io::Errno::NOEXEC) => {
            "it is no program of this computer, and has no #! in its first line".into()
        }
        _ => error.to_string(),
    }
}

/// The address that workers listen on: the machine's, or localhost when the board cannot hold that.
pub(crate) fn host(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::LOCALHOST,
    }
}
