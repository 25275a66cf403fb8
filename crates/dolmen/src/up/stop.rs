//! The orderly end of a site: in the order of a request, so that nothing is taken in that cannot be finished.
//!
//! The databases come last and one after another, the primary first: its stop waits until the replicas have
//! all that was committed. An agent that does not answer is asked once: what it has is killed at the end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use link::api::{Answer, ApiError, Ask, Identity, call};
use link::disk::{self, Access};
use plan::{Machine, Plan, Role};
use rustix::process::{Pid, Signal};

use crate::agent::record;
use crate::failure::Failure;
use crate::out;
use crate::site::{State, StateError};

/// How long the servers of a role may take to finish what is under way.
const TRAFFIC: Duration = Duration::from_secs(10);
const DATABASE: Duration = Duration::from_secs(30);

/// How long agents and killed servers may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// Control ends after the databases, whose last words go to it.
const ROLES: [Role; 8] = [
    Role::Dns,
    Role::Balancer,
    Role::Web,
    Role::App,
    Role::Gate,
    Role::Database,
    Role::Control,
    Role::Monitor,
];

/// Stops a site from a command that has no runtime. The mark keeps an `up` that runs from starting again what
/// this ends; whoever has the site's lock afterwards removes it.
pub fn all(state: &State) -> Result<(), Failure> {
    if let Err(error) = disk::replace(&state.stop_mark(), b"", Access::Everyone) {
        tracing::warn!("{error}; a `dolmen up` that runs may start again what hangs");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(orderly(state))
}

/// Stops all servers, then the agents. What does not answer is killed; at the end nothing is left.
pub async fn orderly(state: &State) -> Result<(), Failure> {
    let plan = match state.plan() {
        // An `up` that failed before it began has started nothing.
        Err(StateError::NoPlan) => return Ok(()),
        plan => plan?,
    };
    let identity = Identity::open(&state.operator())?;
    let mut silent = BTreeSet::new();
    for role in ROLES {
        let servers: Vec<_> = plan.role(role).collect();
        let groups: Vec<Vec<&plan::Server>> = match role {
            Role::Database => servers.into_iter().map(|server| vec![server]).collect(),
            _ => vec![servers],
        };
        let within = if role == Role::Database { DATABASE } else { TRAFFIC };
        for group in groups.into_iter().filter(|group| !group.is_empty()) {
            silent.extend(stop_group(&plan, &identity, &group, within, &silent).await);
        }
    }
    for machine in plan.machines.iter().filter(|machine| !silent.contains(&machine.name)) {
        end_agent(&plan, &identity, machine).await;
    }
    remove_rest(state, &plan).await
}

/// Stops servers of one role at once, each by its own machine's agent; says which of those were silent.
async fn stop_group(
    plan: &Plan,
    identity: &Identity,
    group: &[&plan::Server],
    within: Duration,
    silent: &BTreeSet<String>,
) -> Vec<String> {
    let mut tasks = Vec::new();
    for machine in plan.machines.iter().filter(|machine| !silent.contains(&machine.name)) {
        let on = group.iter().filter(|server| server.machine == machine.name);
        let servers: Vec<String> = on.map(|server| server.name.clone()).collect();
        if servers.is_empty() {
            continue;
        }
        let ask = Ask::Stop { servers: servers.clone(), within_ms: within.as_millis() as u64 };
        let (identity, site, machine) = (identity.clone(), plan.site.clone(), machine.clone());
        let limit = within + GONE;
        tasks.push(tokio::spawn(async move {
            match tokio::time::timeout(limit, order(&identity, &site, &machine, &ask)).await {
                Ok(Ok(())) => {
                    out::line(&out::faint(&format!("  stopped {}", servers.join(", "))));
                    None
                }
                // An agent that is not there is found by its record below.
                Ok(Err(error)) => {
                    tracing::debug!("{} did not stop {}: {error}", machine.name, servers.join(", "));
                    let is_silent = matches!(error, ApiError::Slow(_) | ApiError::Connect { .. });
                    is_silent.then_some(machine.name)
                }
                Err(_) => {
                    tracing::debug!("{} took too long", machine.name);
                    Some(machine.name)
                }
            }
        }));
    }
    let mut silent = Vec::new();
    for task in tasks {
        match task.await {
            Ok(found) => silent.extend(found),
            Err(error) => tracing::debug!("a stop was not finished: {error}"),
        }
    }
    silent
}

/// One order to one agent, and its answer.
pub async fn order(identity: &Identity, site: &str, machine: &Machine, ask: &Ask) -> Result<(), ApiError> {
    let mut conversation = call(identity, site, &machine.name, machine.agent).await?;
    conversation.ask(ask).await?;
    match conversation.answer().await? {
        Answer::Done => Ok(()),
        other => Err(link::frame::FrameError::Unexpected(format!("{other:?}")).into()),
    }
}

async fn end_agent(plan: &Plan, identity: &Identity, machine: &Machine) {
    // It may be gone before its answer is out.
    if let Ok(Err(error)) = tokio::time::timeout(GONE, order(identity, &plan.site, machine, &Ask::End)).await
    {
        tracing::debug!("the agent of {} ended without a word: {error}", machine.name);
    }
}

/// Waits until the agents are gone, and kills what an order did not reach.
async fn remove_rest(state: &State, plan: &Plan) -> Result<(), Failure> {
    let deadline = Instant::now() + GONE;
    for machine in &plan.machines {
        let path = state.machine(&machine.name).record();
        while record::read(&path)?.agent.is_some_and(record::Process::is_alive) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        kill_machine(state, &machine.name)?;
    }
    Ok(())
}

/// Ends an agent and all its servers at once, as the loss of the machine would. Their own children (workers,
/// postgres) end with them.
pub fn kill_machine(state: &State, machine: &str) -> Result<(), Failure> {
    let path = state.machine(machine).record();
    if let Some(agent) = record::read(&path)?.agent {
        kill(agent)?;
    }
    // Read again: the agent may have started something just before it ended.
    for process in record::read(&path)?.servers.values().flat_map(record::Entry::processes) {
        kill(process)?;
    }
    Ok(())
}

fn kill(process: record::Process) -> Result<(), Failure> {
    let Some(pid) = Pid::from_raw(process.pid.cast_signed()) else { return Ok(()) };
    let deadline = Instant::now() + GONE;
    while process.is_alive() {
        match rustix::process::kill_process(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => {
                return Err(Failure::failed(format!("cannot end process {}: {errno}", process.pid)));
            }
        }
        if Instant::now() > deadline {
            return Err(Failure::failed(format!("process {} does not end", process.pid)));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
