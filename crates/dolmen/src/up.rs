//! The whole site on this computer: prepared, started, watched, and stopped in order.

pub mod agents;
pub mod prepare;
pub mod probe;
pub mod progress;
pub mod stop;

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::api::Identity;
use link::report::MachineReport;
use plan::Plan;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::agent::peers::Peers;
use crate::failure::Failure;
use crate::out;
use crate::site::{Home, State};
use agents::Agents;
use progress::Progress;

/// How often marks on disk and sentences that stand long are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What the process in the background says when all is healthy, before it lets go of its output.
const READY: u8 = 0;

/// Marks the process that `up --detach` leaves in the background.
const BACKGROUND: &str = "DOLMEN_BACKGROUND";

/// How the site is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    pub home: Home,
    pub block: Option<u8>,
    /// How long until everything must be healthy, in the background; without it, for ever.
    pub within: Duration,
}

/// Runs the site until Ctrl-C, SIGTERM, SIGHUP or `dolmen stop`.
pub fn run(options: &Options) -> Result<(), Failure> {
    let began = Instant::now();
    let background = std::env::var_os(BACKGROUND).is_some();
    // Its locks end with the process and not before: `stop` takes them for the sign that nothing is left.
    let prepared = ManuallyDrop::new(prepare::prepare(&options.home, options.block)?);
    let limit = background.then_some(options.within);
    let site = Running { state: prepared.state.clone(), plan: Arc::clone(&prepared.plan), began, limit };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, site.run())
}

/// Runs the site in the background; returns when all is healthy, or with the failure of the one behind.
pub fn detach() -> Result<(), Failure> {
    let (mut reader, writer) = io::pipe()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("dolmen");
    command.args(std::env::args_os().skip(1).filter(|argument| argument != "--detach"));
    command.env(BACKGROUND, "1").stdin(Stdio::null()).stdout(writer);
    if out::has_colour() {
        command.env(out::COLOUR, "1");
    }
    command.process_group(0);
    let mut child = command.spawn()?;
    // The writing ends go with it, so that the pipe ends when the child lets go of its own.
    drop(command);
    let mut buffer = [0; 4096];
    let mut ready = false;
    loop {
        let text = match reader.read(&mut buffer)? {
            0 => break,
            count => &buffer[..count],
        };
        ready |= text.contains(&READY);
        for part in text.split(|byte| *byte == READY) {
            io::stdout().write_all(part)?;
        }
    }
    if ready {
        return Ok(());
    }
    // The pipe ended before all was well: so does the process.
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(Failure::Said(status.code().unwrap_or(1))) }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Why a site ends.
enum End {
    /// A signal asked for it.
    Asked,
    /// `dolmen stop` has ended all of it.
    Stopped,
}

struct Running {
    state: State,
    plan: Arc<Plan>,
    began: Instant,
    limit: Option<Duration>,
}

impl Running {
    /// Whatever ends it, nothing is left running.
    async fn run(&self) -> Result<(), Failure> {
        let mut agents = Agents::new(&self.state, &self.plan);
        let ended = self.watch(&mut agents).await;
        if !matches!(ended, Ok(End::Stopped)) {
            agents.end_unrecorded().await?;
            stop::orderly(&self.state).await?;
        }
        ended.map(drop)
    }

    async fn watch(&self, agents: &mut Agents) -> Result<End, Failure> {
        let identity = Identity::open(&self.state.operator())?;
        let mut signals = Signals::new()?;
        agents.tend()?;
        let peers = Peers::watch(&self.plan, "", &identity);
        let mut progress = Progress::new(&self.plan, self.began);
        let mut ready = false;
        loop {
            let reports = self.reports(&peers);
            if progress.show(&reports) {
                ready = true;
                self.is_ready()?;
            }
            if !ready && self.limit.is_some_and(|limit| self.began.elapsed() > limit) {
                return Err(self.give_up(&progress, &reports));
            }
            tokio::select! {
                () = peers.changed() => {}
                () = tokio::time::sleep(TICK) => {}
                Some(ended) = agents.ended.recv() => agents.take(&ended),
                () = signals.any() => {
                    out::line("stopping");
                    return Ok(End::Asked);
                }
            }
            if agents.all_over() {
                out::line("stopped by `dolmen stop`");
                return Ok(End::Stopped);
            }
            agents.tend()?;
        }
    }

    fn reports(&self, peers: &Peers) -> Vec<MachineReport> {
        self.plan.machines.iter().filter_map(|machine| peers.get(&machine.name)).collect()
    }

    fn is_ready(&self) -> Result<(), Failure> {
        progress::addresses(&self.plan, self.began);
        if self.limit.is_some() {
            out::line(&format!("running in the background; `dolmen stop` ends it ({})", self.plan.site));
            io::stdout().write_all(&[READY])?;
            io::stdout().flush()?;
            let log: File = link::log::open(&self.state.root().join("up.log"))?;
            rustix::stdio::dup2_stdout(&log).map_err(io::Error::from)?;
            rustix::stdio::dup2_stderr(&log).map_err(io::Error::from)?;
        } else {
            out::line("Ctrl-C stops it; `dolmen status` in another terminal shows how it is");
        }
        Ok(())
    }

    /// In the background nobody would see what is wrong.
    fn give_up(&self, progress: &Progress, reports: &[MachineReport]) -> Failure {
        let wrong = progress.wrong(reports).join("\n  ");
        let waited = self.began.elapsed().as_secs();
        out::error(&format!("after {waited} s not everything is healthy; stopping\n  {wrong}"));
        Failure::Said(1)
    }
}
