//! The agents of a site on one computer: started, and started again when they die.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plan::Plan;
use tokio::sync::mpsc;

use crate::agent::{record, spawn};
use crate::site::{State, secret_variables};

/// The wait before an agent that died is started again, doubled each time it dies soon after.
const BACK_OFF: Duration = Duration::from_millis(20);
const BACK_OFF_LIMIT: Duration = Duration::from_secs(5);

/// An agent that lived this long was well.
const STABLE: Duration = Duration::from_secs(10);

/// One machine's agent, as `up` sees it.
enum Agent {
    Running {
        since: Instant,
        process: Arc<OwnedFd>,
    },
    Due {
        at: Instant,
    },
    /// `dolmen kill MACHINE`; `dolmen start` brings it back.
    Killed,
}

/// The end of an agent's process.
pub struct Ended {
    machine: String,
    how: String,
}

pub struct Agents {
    state: State,
    /// The environment variables that hold secrets: nobody but `up` keeps them, which has put them away.
    secret: Vec<String>,
    agents: BTreeMap<String, Agent>,
    waits: BTreeMap<String, Duration>,
    sender: mpsc::UnboundedSender<Ended>,
    /// One event for each process, so it holds no more than there are machines.
    pub ended: mpsc::UnboundedReceiver<Ended>,
}

impl Agents {
    pub fn new(state: &State, plan: &Plan) -> Self {
        let (sender, ended) = mpsc::unbounded_channel();
        let now = Instant::now();
        let due = |machine: &plan::Machine| (machine.name.clone(), Agent::Due { at: now });
        Self {
            state: state.clone(),
            secret: secret_variables(plan),
            agents: plan.machines.iter().map(due).collect(),
            waits: BTreeMap::new(),
            sender,
            ended,
        }
    }

    fn stopping(&self) -> bool {
        self.state.stop_mark().exists()
    }

    /// Whether none is left, and none is to come, since `dolmen stop` ends the site.
    pub fn all_over(&self) -> bool {
        self.stopping() && !self.agents.values().any(|agent| matches!(agent, Agent::Running { .. }))
    }

    /// Starts what is due, and heeds the marks that `kill`, `start` and `stop` leave.
    pub fn tend(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let stopping = self.stopping();
        for (machine, agent) in &mut self.agents {
            let down = self.state.machine(machine).down_mark().exists();
            match agent {
                Agent::Due { .. } if down => *agent = Agent::Killed,
                Agent::Killed if !down => *agent = Agent::Due { at: now },
                _ => {}
            }
            if let Agent::Due { at } = agent
                && *at <= now
                && !stopping
            {
                let process = Arc::new(start(&self.state, machine, &self.secret)?);
                watch(machine.clone(), Arc::clone(&process), self.sender.clone());
                *agent = Agent::Running { since: now, process };
            }
        }
        Ok(())
    }

    /// Ends the agents that are so young that their record does not name them yet: an orderly stop, which goes
    /// by the record, would not find them.
    pub async fn end_unrecorded(&self) -> io::Result<()> {
        for (machine, agent) in &self.agents {
            let Agent::Running { process, .. } = agent else { continue };
            let recorded = record::read(&self.state.machine(machine).record())?.agent;
            if recorded.is_none_or(|recorded| !recorded.is_alive()) {
                spawn::kill(process);
                spawn::end(Arc::clone(process)).await?;
            }
        }
        Ok(())
    }

    pub fn take(&mut self, ended: &Ended) {
        let Ended { machine, how } = ended;
        let Some(agent) = self.agents.get_mut(machine) else { return };
        let lived = if let Agent::Running { since, .. } = agent { since.elapsed() } else { Duration::ZERO };
        let wait = self.waits.entry(machine.clone()).or_insert(BACK_OFF);
        *wait = if lived > STABLE { BACK_OFF } else { (*wait * 2).min(BACK_OFF_LIMIT) };
        *agent = Agent::Due { at: Instant::now() + *wait };
        if !self.stopping() {
            tracing::warn!("the agent of {machine} {how}; starting it again");
        }
    }
}

/// Starts the machine's agent, or takes over the one that an earlier `up` left.
fn start(state: &State, machine: &str, secret: &[String]) -> io::Result<OwnedFd> {
    let folder = state.machine(machine);
    if let Some(living) = record::read(&folder.record())?.agent.filter(|agent| agent.is_alive()) {
        return spawn::watch(living.pid);
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0("dolmen").args(["agent", machine, "--state"]).arg(state.root());
    spawn::name_program(&mut command)?;
    command.env_remove(super::inherit::VARIABLE);
    for name in secret {
        command.env_remove(name);
    }
    spawn::detach(&mut command, link::log::open(&folder.log(&format!("agent-{machine}")))?)?;
    spawn::watch(command.spawn()?.id())
}

fn watch(machine: String, handle: Arc<OwnedFd>, sender: mpsc::UnboundedSender<Ended>) {
    tokio::task::spawn_local(async move {
        if let Err(error) = spawn::end(Arc::clone(&handle)).await {
            tracing::error!("cannot watch the agent of {machine}: {error}");
        }
        let how = spawn::how_it_ended(&handle);
        if sender.send(Ended { machine, how }).is_err() {
            tracing::debug!("an agent ended after `up`");
        }
    });
}
