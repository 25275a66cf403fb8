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
use tokio::time::{sleep, timeout};

use crate::machines::agreed;
use crate::machines::desk::clock_note;

/// An agent speaks at least once a second; after this long without a word it is not there.
const SILENCE: Duration = Duration::from_secs(3);

const RETRY: Duration = Duration::from_millis(250);

/// The last word of each other machine.
#[derive(Debug)]
pub struct Peers {
    plan: Arc<Plan>,
    me: String,
    reports: Mutex<BTreeMap<String, MachineReport>>,
    /// The machines that have joined, where they do and as soon as it was heard.
    joined: Mutex<Option<BTreeSet<String>>>,
    changed: Notify,
}

impl Peers {
    /// Begins to watch all machines of the plan but `me`. Must be called on a `LocalSet`.
    pub fn watch(plan: &Arc<Plan>, me: &str, identity: &Identity) -> Arc<Self> {
        let peers = Arc::new(Self {
            plan: Arc::clone(plan),
            me: me.to_owned(),
            reports: Mutex::default(),
            joined: Mutex::default(),
            changed: Notify::new(),
        });
        for machine in plan.machines.iter().filter(|machine| machine.name != me) {
            peers.put(peers.absent(machine, "its agent was not reached yet"));
            let (peers, machine, identity) = (Arc::clone(&peers), machine.clone(), identity.clone());
            tokio::task::spawn_local(async move { peers.follow(&machine, &identity).await });
        }
        peers
    }

    /// Whoever has not joined needs something else than a look at its agent.
    pub fn have_joined(&self, machines: impl IntoIterator<Item = String>) {
        let joined = machines.into_iter().collect();
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
        for machine in self.plan.machines.iter().filter(|machine| machine.name != self.me) {
            if self.get(&machine.name).is_some_and(|report| report.state == MachineState::Down)
                && let Some(because) = self.not_joined(&machine.name)
            {
                self.put(self.absent(machine, &because));
            }
        }
    }

    fn not_joined(&self, machine: &str) -> Option<String> {
        let joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        joined.as_ref().filter(|joined| !joined.contains(machine))?;
        let keeper = self.plan.machines.iter().find(|other| agreed::is_keeper(&self.plan, &other.name));
        let keeper = keeper.map_or("a machine that votes", |keeper| &keeper.name);
        Some(format!(
            "has not joined yet: `dolmen token {machine}` on {keeper}, then `dolmen join TOKEN` on {machine}"
        ))
    }

    pub fn get(&self, machine: &str) -> Option<MachineReport> {
        self.lock().get(machine).cloned()
    }

    /// Waits for the next change of any report.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn follow(&self, machine: &Machine, identity: &Identity) {
        let mut told = String::new();
        loop {
            let Err(error) = self.listen(machine, identity).await;
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
    async fn listen(
        &self,
        machine: &Machine,
        identity: &Identity,
    ) -> Result<std::convert::Infallible, ApiError> {
        let mut conversation = call(identity, &self.plan.site, &machine.name, machine.agent).await?;
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
        unreachable(&self.plan, machine, because)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, MachineReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
