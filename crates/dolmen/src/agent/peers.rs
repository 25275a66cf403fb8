//! What the other machines report, kept by one task for each.
//!
//! Every agent watches every other one, so that any of them can answer for the whole site. A machine whose
//! agent says nothing for [`SILENCE`] is reported as down, with the reason; that is an observation, and
//! nothing is decided from it here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Identity, call};
use link::report::{MachineReport, MachineState, ServerReport, State};
use plan::{Machine, Plan};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// An agent speaks at least once a second; after this long without a word it is not there.
const SILENCE: Duration = Duration::from_secs(3);

const RETRY: Duration = Duration::from_millis(250);

/// The last word of each other machine.
#[derive(Debug)]
pub struct Peers {
    plan: Arc<Plan>,
    reports: Mutex<BTreeMap<String, MachineReport>>,
    changed: Notify,
}

impl Peers {
    /// Begins to watch all machines of the plan but `me`. Must be called on a `LocalSet`.
    pub fn watch(plan: &Arc<Plan>, me: &str, identity: &Identity) -> Arc<Self> {
        let peers = Arc::new(Self {
            plan: Arc::clone(plan),
            reports: Mutex::new(BTreeMap::new()),
            changed: Notify::new(),
        });
        for machine in plan.machines.iter().filter(|machine| machine.name != me) {
            peers.put(peers.absent(machine, "its agent was not reached yet"));
            let (peers, machine, identity) = (Arc::clone(&peers), machine.clone(), identity.clone());
            tokio::task::spawn_local(async move { peers.follow(&machine, &identity).await });
        }
        peers
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
            let because = format!("its agent does not answer: {error}");
            if because != told {
                tracing::info!("{} is out of sight: {error}", machine.name);
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
        conversation.ask(&Ask::Watch).await?;
        loop {
            let answer = timeout(SILENCE, conversation.answer()).await;
            if let Answer::Machine(report) = answer.map_err(|_| ApiError::Slow(machine.agent))?? {
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
        self.reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
