//! What a control server does unasked: begin the cluster with the others, take in those that come, and say how
//! it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use link::control::wire::{ControlAnswer, ControlAsk, MemberReport, MembersReport};
use link::report::State;
use openraft::ChangeMembers;
use tokio::time::{Instant, sleep};

use crate::core::Core;
use crate::formation::{Formation, Met, form, to_vote, to_vote_alone};
use crate::peers::Kept;
use crate::types::{Member, Node};

/// How often a member looks, and one that is none yet.
const TURN: Duration = Duration::from_millis(250);
const BEGINNING: Duration = Duration::from_millis(100);

/// How long another control server may take to say who it is.
const MEET: Duration = Duration::from_millis(500);

/// Looks after the cluster until Raft fails; says why.
pub(crate) async fn keep(core: &Core, mut say: impl FnMut(State, String)) -> String {
    let mut silence = Silence::default();
    loop {
        if let Some(because) = failure(core) {
            // A new beginning ends Raft before it is written and before who ordered it has the answer.
            drop(core.recovery.lock().await);
            sleep(TURN).await;
            return because;
        }
        if !core.is_member() {
            let because = begin(core).await;
            say(State::Starting, because);
            sleep(BEGINNING).await;
            continue;
        }
        if core.is_leader()
            && let Err(error) = take_in(core).await
        {
            tracing::warn!("cannot change the members now: {error}");
        }
        if !core.is_in_contact() && !votes(core) {
            // One that learned was perhaps taken out, and may be wanted again.
            meet(core).await;
        }
        silence.tell(core.is_leader().then(|| core.silent()), core.timing.worst_election());
        let (state, because) = condition(core);
        say(state, because);
        sleep(TURN).await;
    }
}

/// Which members the leader does not hear: said when it changes, and not with each message to them.
#[derive(Debug, Default)]
struct Silence {
    /// Since when: who was just taken in, or is led only now, may not have had the time to answer.
    since: BTreeMap<String, Instant>,
    told: BTreeSet<String>,
}

impl Silence {
    fn tell(&mut self, silent: Option<BTreeSet<String>>, patience: Duration) {
        let Some(silent) = silent else {
            *self = Self::default();
            return;
        };
        self.since.retain(|server, _| silent.contains(server));
        for server in &self.told - &silent {
            tracing::info!("{server} answers again");
            self.told.remove(&server);
        }
        for server in silent {
            let since = self.since.entry(server.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= patience && self.told.insert(server.clone()) {
                tracing::warn!("{server} does not answer");
            }
        }
    }
}

fn failure(core: &Core) -> Option<String> {
    use openraft::async_runtime::watch::WatchReceiver;
    core.raft.metrics().borrow_watched().running_state.as_ref().err().map(ToString::to_string)
}

fn votes(core: &Core) -> bool {
    core.members().members.iter().any(|member| member.node == core.node && member.votes)
}

/// Says to the others who this is, and asks them who they are.
async fn meet(core: &Core) -> BTreeMap<String, Met> {
    let mut met = BTreeMap::new();
    for other in core.peers.others(&core.server) {
        let ask = ControlAsk::Meet { server: core.server.clone(), node: core.node };
        if let Ok(ControlAnswer::Met { node, member }) =
            core.peers.ask(&other, &mut Kept::default(), ask, MEET).await
        {
            met.insert(other, Met { node, member });
        }
    }
    met
}

/// Begins with the others if it can. Says what it waits for.
async fn begin(core: &Core) -> String {
    let met = meet(core).await;
    match form((&core.server, core.node), &core.founders, &met) {
        Formation::Wait { because } => because,
        Formation::Begin(members) => match core.raft.initialize(members).await {
            Ok(()) => "begins a new cluster".into(),
            Err(error) => format!("cannot begin a new cluster: {error}"),
        },
    }
}

/// As the leader: takes in those that came, lets go of those that learn and are in the plan no more, and lets a voter
/// of the plan vote that has no vote yet. One that had a vote and lost its disk only learns, until somebody says that
/// the old one is gone for good.
async fn take_in(core: &Core) -> Result<(), String> {
    let members = core.members().members;
    let gone = members.iter().filter(|member| !member.votes && !core.peers.has(&member.server));
    let gone: BTreeSet<Node> = gone.map(|member| member.node).collect();
    if !gone.is_empty() {
        core.change(ChangeMembers::RemoveNodes(gone)).await?;
        // What is known of the members is old now.
        return Ok(());
    }
    let came: Vec<(String, Node)> =
        core.met().iter().map(|(server, met)| (server.clone(), met.node)).collect();
    for (server, node) in came {
        core.met().remove(&server);
        if members.iter().any(|member| member.node == node) {
            continue;
        }
        let gone = members.iter().filter(|member| member.server == server && !member.votes);
        let gone: BTreeSet<Node> = gone.map(|member| member.node).collect();
        if !gone.is_empty() {
            core.change(ChangeMembers::RemoveNodes(gone)).await?;
        }
        let member = Member { server: server.clone() };
        core.change(ChangeMembers::AddNodes([(node, member)].into())).await?;
        tracing::info!("{server} is taken in as node {node}");
    }
    let voters = core.peers.voters();
    let next = to_vote(&voters, &members);
    if !next.is_empty() {
        let names: Vec<&str> =
            members.iter().filter(|m| next.contains(&m.node)).map(|m| m.server.as_str()).collect();
        core.change(ChangeMembers::AddVoterIds(next.clone())).await?;
        tracing::info!("from now on also {} vote", names.join(" and "));
    }
    if let Some(left) = to_vote_alone(&voters, &members) {
        core.change_to(ChangeMembers::ReplaceAllVoters(left), true).await?;
        tracing::info!("from now on only {} vote", voters.join(" and "));
    }
    Ok(())
}

/// How a member is, and the sentence that says it.
fn condition(core: &Core) -> (State, String) {
    let report = core.members();
    let voters = report.members.iter().filter(|member| member.votes).count();
    let mine = report.members.iter().find(|member| member.node == core.node);
    let Some(mine) = mine else {
        return (
            State::Unhealthy,
            "is no member any more: another server was put in its place, or its machine was taken out".into(),
        );
    };
    if !core.is_in_contact() {
        let majority = voters / 2 + 1;
        let because = format!("has no leader: {majority} of {voters} voters must reach each other");
        return (State::Unhealthy, because);
    }
    standing(core, &report, voters, mine.votes)
}

/// The same of one that follows or leads.
fn standing(core: &Core, report: &MembersReport, voters: usize, votes: bool) -> (State, String) {
    let (name, term) = (&core.server, report.term);
    let of = report.leader.as_deref().unwrap_or("nobody");
    if core.is_leader() {
        let text = format!("leads {voters} {} in term {term}", if voters == 1 { "voter" } else { "voters" });
        return (State::Healthy, text);
    }
    if votes {
        return (State::Healthy, format!("follows {of} in term {term}"));
    }
    let another = |member: &MemberReport| member.server == *name && member.node != core.node && member.votes;
    if report.members.iter().any(another) {
        let text = format!(
            "learns from {of} without a vote, since its disk was empty: `dolmen control replace {name}` gives it one"
        );
        return (State::Unhealthy, text);
    }
    // A site that has just begun is not what its file promises before all of them vote.
    let to_vote = core.peers.voters();
    let is_to_vote = voters < to_vote.len() && to_vote.contains(name);
    let state = if is_to_vote { State::Starting } else { State::Healthy };
    (state, format!("learns from {of} in term {term}, without a vote"))
}
