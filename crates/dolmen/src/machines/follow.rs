//! What an agent on a real machine does about what was agreed: it goes by the plan in control, with the secrets
//! and the files that belong to it.
//!
//! The plan is taken on only when all that it needs is here, so that a machine that lacks something stays with
//! the plan it has and says why. Without control everything stays as it is.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use link::Secrets;
use link::api::{self, Answer, Authority, Fingerprint, Guests, Identity, OPERATOR, Sealed, SealingKey, call};
use link::control::REVOKED;
use plan::{Place, Plan};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::agreed::{self, Agreed, AgreedError, Agreement, MACHINES, Machines, Member, PLAN, Vault};
use super::desk::{self, Desk};
use super::transfer;
use crate::agent::peers::Peers;
use crate::agent::{Happening, Order};
use crate::site::{InForce, Release, State};

/// The pause before what failed is tried again; a newer plan ends it.
const RETRY: Duration = Duration::from_secs(1);

/// One machine that goes by what was agreed.
pub struct Follower {
    pub state: State,
    pub machine: String,
    pub identity: Identity,
    pub agreement: Agreement,
    trouble: Trouble,
}

/// On real machines: begins to go by what they agree on, and opens the desk where others join.
pub fn agree(
    state: &State,
    plan: &Arc<Plan>,
    me: &plan::Machine,
    (identity, guests): (&Identity, Guests),
    (agent, peers): (&mpsc::Sender<Happening>, &Arc<Peers>),
) -> Result<(Option<Desk>, Trouble), AgreedError> {
    if plan.place != Place::Machines || plan.control.is_none() {
        return Ok((None, Trouble::default()));
    }
    let follower = Follower::new(state, &me.name, plan, identity.clone())?;
    tokio::task::spawn_local(follower.revocations().heed(agent.clone()));
    tokio::task::spawn_local(hear_who_joined(follower.agreement.clone(), Arc::clone(peers)));
    let desk = Desk::open(state, me, guests)?;
    let trouble = follower.trouble();
    tokio::task::spawn_local(follower.run(agent.clone()));
    Ok((Some(desk), trouble))
}

/// Why this machine does not go by what was agreed, for as long as it does not. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Rc<RefCell<Option<String>>>);

impl Trouble {
    pub fn sentence(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Says it once in the log, and in every report until it is over.
    fn is(&self, because: String) {
        let told = self.0.replace(Some(because.clone()));
        if told.as_ref() != Some(&because) {
            tracing::warn!("{because}");
        }
    }

    fn is_over(&self) {
        self.0.take();
    }
}

/// Tells the agent which machines have joined, until it ends.
pub async fn hear_who_joined(agreement: Agreement, peers: Arc<Peers>) {
    let mut seen = agreement.watch(MACHINES);
    loop {
        let record = seen.borrow_and_update().as_ref().map(|seen| seen.record.value.clone());
        match record.map(|value| agreement.believe::<Machines>(MACHINES, value)) {
            Some(Ok(Machines { machines })) => peers.have_joined(machines.into_keys()),
            Some(Err(error)) => tracing::error!("{error}"),
            None => {}
        }
        if seen.changed().await.is_err() {
            return;
        }
    }
}

/// The keys that were revoked, on their way from control to this machine's disk, agent and servers.
pub struct Revocations {
    state: State,
    identity: Identity,
    agreement: Agreement,
}

impl Revocations {
    /// Hears until the agent ends. What was heard once is gone by for ever, whoever is out of reach.
    pub async fn heed(self, agent: mpsc::Sender<Happening>) {
        let mut seen = self.agreement.watch(REVOKED);
        loop {
            let record = seen.borrow_and_update().as_ref().map(|seen| seen.record.value.clone());
            match record.map(|value| self.agreement.believe::<Vec<Fingerprint>>(REVOKED, value)) {
                Some(Ok(keys)) => self.take(&keys, &agent).await,
                Some(Err(error)) => tracing::error!("{error}"),
                None => {}
            }
            if seen.changed().await.is_err() {
                return;
            }
        }
    }

    async fn take(&self, keys: &[Fingerprint], agent: &mpsc::Sender<Happening>) {
        self.identity.revoke(keys.iter().copied());
        match self.state.note_revoked(keys) {
            Ok(false) => {}
            Ok(true) => drop(agent.send(Happening::NewKeys).await),
            Err(error) => tracing::error!("after a restart a revoked key may be good again: {error}"),
        }
    }
}

impl Follower {
    pub fn new(state: &State, machine: &str, plan: &Plan, identity: Identity) -> Result<Self, AgreedError> {
        let agreement = Agreement::new(identity.clone(), plan, machine);
        Ok(Self {
            state: state.clone(),
            machine: machine.to_owned(),
            identity,
            agreement,
            trouble: Trouble::default(),
        })
    }

    /// What is wrong, now and later.
    pub fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// Follows until the agent ends.
    pub async fn run(self, agent: mpsc::Sender<Happening>) {
        while self.state.about().founder
            && let Err(error) = self.begin().await
        {
            self.trouble.is(format!("the site is not agreed on yet: {error}"));
            sleep(RETRY).await;
        }
        self.trouble.is_over();
        let mut seen = self.agreement.watch(PLAN);
        loop {
            let record = seen.borrow_and_update().as_ref().map(|seen| seen.record.value.clone());
            let followed = match record {
                Some(value) => self.follow(value, &agent).await,
                None => Ok(()),
            };
            if let Err(because) = followed {
                self.trouble.is(because);
                drop(timeout(RETRY, seen.changed()).await);
                continue;
            }
            self.trouble.is_over();
            if seen.changed().await.is_err() {
                return;
            }
        }
    }

    /// What this machine hears of keys that are revoked.
    pub fn revocations(&self) -> Revocations {
        let (state, identity) = (self.state.clone(), self.identity.clone());
        Revocations { state, identity, agreement: self.agreement.clone() }
    }

    /// As the machine that began the site: puts what it made where others find it, once.
    async fn begin(&self) -> Result<(), AgreedError> {
        let plan = self.state.plan()?;
        let folder = self.state.machine(&self.machine);
        let sealing = SealingKey::open(folder.path())?;
        let authority = Authority::open(&self.state.authority())?;
        let operator = Identity::open(&self.state.operator())?.heeding(self.identity.guests());
        let agreement = Agreement::new(operator, &plan, &self.machine);
        let (version, machines) = agreement.read::<Machines>(MACHINES).await?;
        let mut machines = machines.unwrap_or_default();
        if !machines.machines.contains_key(&self.machine) {
            let key = api::requested_key(&api::request(folder.path(), &self.machine)?)?;
            let member = Member { key, sealing_key: sealing.public().to_owned() };
            machines.machines.insert(self.machine.clone(), member);
            agreement.propose(&authority, MACHINES, version, &machines).await?;
        }
        let (version, vault) = agreement.read::<Sealed>(&agreed::vault(&self.machine)).await?;
        if vault.is_none() {
            let secrets = self.state.all_secrets()?;
            let sealed = desk::seal(&self.state, &[(&plan, &secrets)], &self.machine, sealing.public())?;
            agreement.propose(&authority, &agreed::vault(&self.machine), version, &sealed).await?;
        }
        let (version, agreed) = agreement.read::<Agreed>(PLAN).await?;
        if agreed.is_none() {
            let InForce { plan, release } = self.state.in_force()?;
            let files = self.state.releases().digest_of(&release)?;
            let agreed = Agreed { applied: plan.generation, plan, files, by: self.machine.clone() };
            agreement.propose(&authority, PLAN, version, &agreed).await?;
            tracing::info!("the plan is agreed on: generation {}", agreed.plan.generation);
        }
        Ok(())
    }

    /// Goes by this version of the record, if it is later than what is in force.
    async fn follow(&self, value: serde_json::Value, agent: &mpsc::Sender<Happening>) -> Result<(), String> {
        let agreed: Agreed = self.agreement.believe(PLAN, value).map_err(|error| error.to_string())?;
        let generation = agreed.plan.generation;
        if agreed.plan.machine(&self.machine).is_none() {
            return Err(taken_out(&self.machine, &agreed.plan));
        }
        if let Ok(plan) = self.state.plan()
            && plan.generation >= generation
        {
            return if plan == agreed.plan { Ok(()) } else { self.is_forgotten(&plan).await };
        }
        self.take_on(&agreed).await?;
        let (reply, answer) = oneshot::channel();
        let order = Happening::Order { order: Order::Reload { generation }, reply };
        if agent.send(order).await.is_err() {
            return Ok(());
        }
        if let Ok(Answer::Refused { because }) = answer.await {
            return Err(because);
        }
        self.agreement.follow(&agreed.plan);
        Ok(())
    }

    /// The plan in force here is not, or no longer, the one that was agreed on: either what the watch brought is old,
    /// or control began anew without it.
    async fn is_forgotten(&self, plan: &Plan) -> Result<(), String> {
        let (_, now) = self.agreement.read::<Agreed>(PLAN).await.map_err(|error| error.to_string())?;
        let Some(now) = now.filter(|now| now.plan != *plan && now.plan.generation <= plan.generation) else {
            return Ok(());
        };
        Err(forgotten(plan.generation, now.plan.generation))
    }

    /// Gets all that the plan needs, and puts it in force on this machine.
    pub async fn take_on(&self, agreed: &Agreed) -> Result<(), String> {
        let late = |what: &str, because: &dyn std::fmt::Display| {
            format!("cannot go by generation {}: {what}: {because}", agreed.plan.generation)
        };
        if agreed.plan.format != plan::FORMAT {
            let because =
                format!("it has format {}, and this dolmen reads {}", agreed.plan.format, plan::FORMAT);
            return Err(late("its plan", &because));
        }
        let release = self.fetch(agreed).await.map_err(|because| late("its files", &because))?;
        let secrets = self.open_vault(&agreed.plan).await.map_err(|error| late("its secrets", &error))?;
        let in_force = InForce { plan: agreed.plan.clone(), release };
        self.state.put_in_force(&in_force, &secrets).map_err(|error| late("this disk", &error))
    }

    /// Takes out what this machine is to know with this plan.
    async fn open_vault(&self, plan: &Plan) -> Result<Secrets, AgreedError> {
        let (_, sealed) = self.agreement.read::<Sealed>(&agreed::vault(&self.machine)).await?;
        let sealed = sealed.ok_or(AgreedError::NotSealed)?;
        let folder = self.state.machine(&self.machine);
        let key = SealingKey::open(folder.path())?;
        let mut vault: Vault = key.open_sealed(&agreed::purpose(&plan.site, &self.machine), &sealed)?;
        let secrets = vault.secrets.remove(&plan.generation).ok_or(AgreedError::NotSealed)?;
        if let Some(key) = vault.authority
            && Authority::key(&self.state.authority())?.is_none()
        {
            let certificate = std::fs::read_to_string(folder.path().join("ca.crt"))?;
            let authority = Authority::adopt(&self.state.make_authority()?, &key, &certificate)?;
            authority.issue_beside(OPERATOR, folder.path(), &self.state.make_operator()?)?;
        }
        Ok(secrets)
    }

    /// The application files of the plan: from here, from the machine that has put them there, or from any other.
    async fn fetch(&self, agreed: &Agreed) -> Result<Release, String> {
        let store = self.state.releases();
        if let Some(release) = store.find(&agreed.files) {
            return Ok(release);
        }
        let mut because = Vec::new();
        let (first, others): (Vec<_>, Vec<_>) =
            agreed.plan.machines.iter().partition(|machine| machine.name == agreed.by);
        for machine in first.into_iter().chain(others).filter(|machine| machine.name != self.machine) {
            let received = async {
                let conversation =
                    call(&self.identity, &agreed.plan.site, &machine.name, machine.agent).await?;
                transfer::receive(conversation, &store, &agreed.files).await
            };
            match received.await {
                Ok(release) => return Ok(release),
                Err(error) => because.push(format!("{}: {error}", machine.name)),
            }
        }
        Err(if because.is_empty() { "no other machine has them".into() } else { because.join("; ") })
    }
}

/// What it serves is in nobody's choice any more but in that of its own servers and of those who have its address.
fn taken_out(machine: &str, plan: &Plan) -> String {
    format!(
        "{machine} was taken out of the site with generation {}, which it does not go by; its servers go on until \
         they are stopped: `systemctl disable --now dolmen@{}`",
        plan.generation, plan.site
    )
}

fn forgotten(here: u64, agreed: u64) -> String {
    if here > agreed {
        return format!(
            "goes by generation {here}, and control knows of none after {agreed}: it began anew and has forgotten that; \
             `dolmen reload` on this machine puts it in force everywhere, one on another machine replaces it"
        );
    }
    format!(
        "goes by another generation {here} than the other machines, which control has forgotten: the next `dolmen \
         reload` on one of those replaces it"
    )
}
