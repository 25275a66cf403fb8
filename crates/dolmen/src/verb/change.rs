//! What `reload`, `drain` and `ready` share: something else is put in force on a site that runs, and carried out by
//! every machine.
//!
//! The state folder is changed first, in one step. A command killed before it has changed nothing; one killed after
//! it leaves a change that the agents find by themselves, also those that were not there.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use link::Secrets;
use link::api::{Answer, ApiError, Ask};
use link::report::{MachineReport, ServerReport};
use plan::{Machine, Plan};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Site, status, wait};
use crate::agent::peers;
use crate::failure::Failure;
use crate::machines::publish::Publisher;
use crate::out;
use crate::site::{Home, InForce, Lock};

/// How long the servers of one machine may take: workers that are replaced one after another need a while.
const LIMIT: Duration = Duration::from_secs(600);

/// How long a machine may be out of reach meanwhile.
const UNREACHED: Duration = Duration::from_secs(10);

/// An agent that is asked or watched says something within this time.
const SILENCE: Duration = Duration::from_secs(5);

const RETRY: Duration = Duration::from_millis(100);

/// A site that is up, and that no other command changes meanwhile.
pub struct Change {
    pub site: Site,
    pub old: InForce,
    /// What is to be put in force with the new plan: the secrets that are, unless there are others.
    pub secrets: Secrets,
    _lock: Lock,
}

impl Change {
    pub fn begin(home: &Home) -> Result<Self, Failure> {
        let site = Site::open(home)?;
        let lock = site.state.lock_changes()?.ok_or_else(|| {
            Failure::failed(format!(
                "another `dolmen reload`, `drain`, `ready` or `upgrade` changes {} right now; nothing was changed\n\
                 hint: try again when it is done",
                site.plan.site
            ))
        })?;
        wait(status::ask(&site))?;
        let old = site.state.in_force()?;
        let secrets = site.state.all_secrets()?;
        Ok(Self { site, old, secrets, _lock: lock })
    }

    /// On real machines: where the change is agreed on.
    pub fn publisher(&self) -> Option<Publisher> {
        let Site { state, identity, .. } = &self.site;
        self.site.here().filter(|_| self.old.plan.control.is_some())?;
        let me = state.about().machine.as_deref()?;
        Some(Publisher::new(state, identity, &self.old, me))
    }

    /// Puts this in force, tells all machines, and waits until all of them are at it.
    pub fn carry_out(self, new: &InForce) -> Result<ExitCode, Failure> {
        let changes = *new != self.old;
        match self.publisher() {
            Some(publisher) if changes || wait(publisher.has_forgotten(&self.old))? => {
                wait(publisher.publish((&self.old, new), &self.secrets))?;
            }
            None if changes => self.site.state.put_in_force(new, &self.secrets)?,
            _ => {}
        }
        let generation = new.plan.generation;
        let joined = self.publisher().map(|publisher| wait(publisher.joined(new))).transpose()?;
        let site = Arc::new(self.site);
        let fine = wait(async {
            let mut machines = JoinSet::new();
            for machine in new.plan.machines.clone() {
                if joined.as_ref().is_none_or(|joined| joined.contains(&machine.name)) {
                    machines.spawn(follow(Arc::clone(&site), machine, generation));
                }
            }
            Ok(machines.join_all().await.into_iter().all(|fine| fine))
        })?;
        joined.iter().for_each(|joined| say_who_comes_and_goes(&site.plan, &new.plan, joined));
        if fine {
            out::line(&format!("{} is at generation {generation}", site.plan.site));
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::failed(format!(
            "generation {generation} is in force, but not everything could follow it\nhint: `dolmen status`"
        )))
    }
}

/// Machines come and go by commands of their own.
fn say_who_comes_and_goes(old: &Plan, new: &Plan, joined: &BTreeSet<String>) {
    for machine in new.machines.iter().filter(|machine| !joined.contains(&machine.name)) {
        let name = &machine.name;
        out::line(&format!("  {name} {}", peers::not_joined(name, "here")));
    }
    for machine in old.machines.iter().filter(|machine| new.machine(&machine.name).is_none()) {
        let name = &machine.name;
        out::line(&format!(
            "  {name} is out: nobody sends to it any more; what runs there goes on until it is switched off\n  \
             `dolmen leave {name}` revokes its key"
        ));
    }
}

/// Has one machine carry it out, and says how each of its servers does. False when something could not.
async fn follow(site: Arc<Site>, machine: Machine, generation: u64) -> bool {
    if site.state.machine(&machine.name).down_mark().exists() {
        out::line(&format!("  {} was killed; it follows when `dolmen start` brings it back", machine.name));
        return true;
    }
    let mut seen = Seen { generation, done: BTreeSet::new(), fine: true };
    let deadline = Instant::now() + LIMIT;
    let mut reached = Instant::now();
    while Instant::now() < deadline {
        let error = match watch(&site, &machine, &mut seen, &mut reached).await {
            Ok(()) => return seen.fine,
            Err(ApiError::Refused(because)) => {
                out::line(&format!("  {} cannot follow: {because}", machine.name));
                return false;
            }
            Err(error) => error,
        };
        if reached.elapsed() > UNREACHED {
            out::line(&format!("  {} cannot be told: {error}; it follows when it is back", machine.name));
            return false;
        }
        sleep(RETRY).await;
    }
    out::line(&format!("  {} has not followed within {} s", machine.name, LIMIT.as_secs()));
    false
}

/// Tells one agent, and watches its servers until all are at it.
async fn watch(
    site: &Site,
    machine: &Machine,
    seen: &mut Seen,
    reached: &mut Instant,
) -> Result<(), ApiError> {
    let slow = |_| ApiError::Slow(machine.agent);
    if site.here().is_none() {
        let mut order = site.agent(machine).await?;
        order.ask(&Ask::Reload { generation: seen.generation }).await?;
        timeout(SILENCE, order.answer()).await.map_err(slow)??;
    }
    let mut conversation = site.agent(machine).await?;
    conversation.ask(&Ask::Watch).await?;
    loop {
        let answer = timeout(SILENCE, conversation.answer()).await.map_err(slow)??;
        *reached = Instant::now();
        if let Answer::Machine(report) = answer {
            if seen.all_done(&report) {
                return Ok(());
            }
            if report.because != crate::agent::ANSWERS {
                return Err(ApiError::Refused(report.because));
            }
        }
    }
}

/// What was said of the servers of one machine.
struct Seen {
    generation: u64,
    done: BTreeSet<String>,
    fine: bool,
}

impl Seen {
    /// Says which servers are done now and were not before; whether all are.
    fn all_done(&mut self, report: &MachineReport) -> bool {
        for server in &report.servers {
            if server.generation >= self.generation && self.done.insert(server.name.clone()) {
                self.fine &= !server.refused;
                out::line(&format!("  {:<12} {:<8} {}", server.name, server.machine, did(server)));
            }
        }
        report.servers.iter().all(|server| self.done.contains(&server.name))
    }
}

fn did(server: &ServerReport) -> String {
    match (server.pid, server.did.as_str()) {
        (None, _) => format!("is {}; it follows when it starts", server.state),
        (Some(_), "") => "has started with it".to_owned(),
        (Some(_), did) => did.to_owned(),
    }
}
