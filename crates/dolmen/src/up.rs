//! The whole site on this computer: prepared, started, watched, and stopped in order.

pub mod agents;
mod inherit;
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
use link::disk::{self, Access};
use link::report::MachineReport;
use plan::Plan;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::agent::peers::Peers;
use crate::agent::record::Process;
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
    let inherited = inherit::take()?;
    let goes_on = inherited.is_some();
    let prepared = match inherited {
        Some(locks) => prepare::Prepared::inherited(&options.home, locks)?,
        None => prepare::prepare(&options.home, options.block)?,
    };
    let prepared = ManuallyDrop::new(prepared);
    let limit = background.then_some(options.within);
    let site = Running { prepared: &prepared, plan: Arc::clone(&prepared.plan), began, limit, goes_on };
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
    /// None when it was ignored when we began, as nohup(1) has it.
    hang_up: Option<Signal>,
    /// The order to become the program that lies on disk now.
    upgrade: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    async fn any(&mut self) -> Told {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Told::End,
            _ = self.terminate.recv() => Told::End,
            _ = hang_up => Told::End,
            _ = self.upgrade.recv() => Told::Upgrade,
        }
    }
}

/// What a signal asks for.
enum Told {
    End,
    Upgrade,
}

/// Whether SIGHUP is ignored: the lowest bit of the mask in proc_pid_status(5).
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Why a site ends.
enum End {
    /// A signal asked for it.
    Asked,
    /// `dolmen stop` has ended all of it.
    Stopped,
}

struct Running<'a> {
    prepared: &'a prepare::Prepared,
    plan: Arc<Plan>,
    began: Instant,
    limit: Option<Duration>,
    /// Whether an earlier program ran the site in this very process.
    goes_on: bool,
}

impl Running<'_> {
    fn state(&self) -> &State {
        &self.prepared.state
    }

    /// Whatever ends it, nothing is left running.
    async fn run(&self) -> Result<(), Failure> {
        let mut agents = Agents::new(self.state(), &self.plan);
        let ended = self.watch(&mut agents).await;
        if !matches!(ended, Ok(End::Stopped)) {
            agents.end_unrecorded().await?;
            stop::orderly(self.state()).await?;
        }
        ended.map(drop)
    }

    async fn watch(&self, agents: &mut Agents) -> Result<End, Failure> {
        let identity = Identity::open(&self.state().operator())?;
        let mut signals = Signals::new()?;
        agents.tend()?;
        let record = self.state().up_record();
        disk::replace_json(&record, &Process::living(std::process::id()), Access::Owner)?;
        let peers = Peers::watch(&self.plan, "", &identity);
        let mut progress = Progress::new(&self.plan, self.began, self.goes_on);
        let mut ready = self.goes_on;
        loop {
            let reports = self.reports(&peers);
            if progress.show(&reports) && !ready {
                ready = true;
                self.is_ready()?;
            }
            if !ready && self.limit.is_some_and(|limit| self.began.elapsed() > limit) {
                if !progress.waits_for_others(&reports) {
                    return Err(self.give_up(&progress, &reports));
                }
                ready = true;
                progress.wrong(&reports).iter().for_each(|wrong| out::line(&format!("  warning: {wrong}")));
                self.is_ready()?;
            }
            tokio::select! {
                () = peers.changed() => {}
                () = tokio::time::sleep(TICK) => {}
                Some(ended) = agents.ended.recv() => agents.take(&ended),
                told = signals.any() => match told {
                    Told::Upgrade => inherit::upgrade(self.prepared).await,
                    Told::End => {
                        out::line("stopping");
                        return Ok(End::Asked);
                    }
                },
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
            let log: File = link::log::open(&self.state().root().join("up.log"))?;
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
