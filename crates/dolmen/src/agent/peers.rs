//! What the other machines report, kept by one task for each.
//!
//! Every agent watches every other one, so that any of them can answer for the whole site. A machine whose
//! agent says nothing for [`SILENCE`] is reported as down, with the reason; that is an observation, and
//! nothing is decided from it here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Identity, call};
use link::report::{MachineReport, MachineState, ServerReport, State};
use plan::{Machine, Plan};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::machines::agreed;
use crate::machines::desk::clock_note;

/// An agent speaks at least once a second; after this long without a word it is not there.
const SILENCE: Duration = Duration::from_secs(3);

const RETRY: Duration = Duration::from_millis(250);

/// The last word of each other machine.
#[derive(Debug)]
pub struct Peers {
    plan: Mutex<Arc<Plan>>,
    me: String,
    identity: Identity,
    /// Those that are watched, and the task that does it.
    watched: Mutex<BTreeMap<String, AbortHandle>>,
    reports: Mutex<BTreeMap<String, MachineReport>>,
    /// The machines that have joined, where they do and as soon as it was heard.
    joined: Mutex<Option<BTreeSet<String>>>,
    changed: Notify,
}

impl Peers {
    /// Begins to watch all machines of the plan but `me`. Must be called on a `LocalSet`.
    pub fn watch(plan: &Arc<Plan>, me: &str, identity: &Identity) -> Arc<Self> {
        let peers = Arc::new(Self {
            plan: Mutex::new(Arc::clone(plan)),
            me: me.to_owned(),
            identity: identity.clone(),
            watched: Mutex::default(),
            reports: Mutex::default(),
            joined: Mutex::default(),
            changed: Notify::new(),
        });
        peers.follow_plan(plan);
        peers
    }

    /// Watches the machines of this plan from now on. Must be called on the same `LocalSet`.
    pub fn follow_plan(self: &Arc<Self>, plan: &Arc<Plan>) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(plan);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|name, task| {
            let stays = plan.machine(name).is_some();
            if !stays {
                task.abort();
                self.lock().remove(name);
            }
            stays
        });
        for machine in plan.machines.iter().filter(|machine| machine.name != self.me) {
            watched.entry(machine.name.clone()).or_insert_with(|| {
                let because = self.not_joined(&machine.name);
                let because = because.unwrap_or_else(|| "its agent was not reached yet".to_owned());
                self.put(self.absent(machine, &because));
                let (peers, machine) = (Arc::clone(self), machine.clone());
                tokio::task::spawn_local(async move { peers.follow(&machine).await }).abort_handle()
            });
        }
    }

    /// Whoever has not joined needs something else than a look at its agent.
    pub fn have_joined(&self, machines: impl IntoIterator<Item = String>) {
        let joined = machines.into_iter().collect();
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
        for machine in self.plan().machines.iter().filter(|machine| machine.name != self.me) {
            if self.get(&machine.name).is_some_and(|report| report.state == MachineState::Down)
                && let Some(because) = self.not_joined(&machine.name)
            {
                self.put(self.absent(machine, &because));
            }
        }
        self.changed.notify_one();
    }

    fn not_joined(&self, machine: &str) -> Option<String> {
        let joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        joined.as_ref().filter(|joined| !joined.contains(machine))?;
        let plan = self.plan();
        let keeper = plan.machines.iter().find(|other| agreed::is_keeper(&plan, &other.name));
        let keeper = keeper.map_or("a machine that votes", |keeper| &keeper.name);
        Some(not_joined(machine, &format!("on {keeper}")))
    }

    /// What is to be done about machines that have joined and are in the plan no more.
    pub fn left_over(&self) -> Vec<String> {
        let (plan, joined) = (self.plan(), self.joined.lock().unwrap_or_else(PoisonError::into_inner));
        let gone = joined.iter().flatten().filter(|machine| plan.machine(machine).is_none());
        gone.map(|machine| {
            format!("{machine} is in the site file no more, but its key is good: `dolmen leave {machine}` revokes it")
        })
        .collect()
    }

    pub fn get(&self, machine: &str) -> Option<MachineReport> {
        self.lock().get(machine).cloned()
    }

    /// Waits for the next change of any report.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn follow(&self, machine: &Machine) {
        let mut told = String::new();
        loop {
            let Err(error) = self.listen(machine).await;
            let because = self.not_joined(&machine.name);
            let because = because.unwrap_or_else(|| format!("its agent does not answer: {error}"));
            if because != told {
                tracing::info!("{} is out of sight: {because}", machine.name);
                told.clone_from(&because);
            }
            self.put(self.absent(machine, &because));
            sleep(RETRY).await;
        }
    }

    /// Takes reports until the connection ends, which is always an error.
    async fn listen(&self, machine: &Machine) -> Result<std::convert::Infallible, ApiError> {
        let site = self.plan().site.clone();
        let mut conversation = call(&self.identity, &site, &machine.name, machine.agent).await?;
        let note = conversation.ahead_s().and_then(|ahead_s| clock_note(&machine.name, ahead_s, &self.me));
        note.iter().for_each(|note| tracing::warn!("{note}"));
        conversation.ask(&Ask::Watch).await?;
        loop {
            let answer = timeout(SILENCE, conversation.answer()).await;
            if let Answer::Machine(mut report) = answer.map_err(|_| ApiError::Slow(machine.agent))?? {
                report.notes.extend(note.clone());
                self.put(report);
            }
        }
    }

    fn put(&self, report: MachineReport) {
        let before = self.lock().insert(report.name.clone(), report.clone());
        if before.as_ref() != Some(&report) {
            self.changed.notify_one();
        }
    }

    /// All of a machine's servers, none of which anything is known of.
    fn absent(&self, machine: &Machine, because: &str) -> MachineReport {
        unreachable(&self.plan(), machine, because)
    }

    fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, MachineReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said of a machine that has not joined, and where the token for it is to be had.
pub fn not_joined(machine: &str, wherever: &str) -> String {
    format!("has not joined yet: `dolmen token {machine}` {wherever}, then `dolmen join TOKEN` on {machine}")
}

/// What is said of a machine that cannot be asked.
pub fn unreachable(plan: &Plan, machine: &Machine, because: &str) -> MachineReport {
    let servers = plan.on(&machine.name).map(|server| ServerReport {
        name: server.name.clone(),
        role: server.role,
        machine: machine.name.clone(),
        pid: None,
        state: State::Down,
        because: format!("machine {} is down: {because}", machine.name),
        generation: 0,
        did: String::new(),
        refused: false,
        listen: super::urls(server),
        counters: BTreeMap::new(),
        traffic: Vec::new(),
        database: None,
        other_build: false,
        finishing: Vec::new(),
    });
    MachineReport {
        name: machine.name.clone(),
        address: machine.address.to_string(),
        state: MachineState::Down,
        because: because.to_owned(),
        notes: Vec::new(),
        servers: servers.collect(),
    }
}
