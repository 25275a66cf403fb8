//! One control server's part of the cluster: openraft, and what is asked of it from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use link::control::wire::{ControlAnswer, ControlAsk, MemberReport, MembersReport, RaftKind};
use link::control::{Change, Outcome, is_of_the_operator};
use link::disk::{self, Access};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::raft::AppendEntriesResponse;
use openraft::{ChangeMembers, Instant as _, ReadPolicy, ServerState, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::Error;
use crate::formation::Met;
use crate::machine::Machine;
use crate::network::{Network, Sent};
use crate::peers::{Kept, Peers};
use crate::recover;
use crate::store::Store;
use crate::timing::Timing;
use crate::types::{Member, Node, Raft, Snapshot};

/// A snapshot is made after this many entries, and this many before it are kept for members that lag.
const ENTRIES_PER_SNAPSHOT: u64 = 512;
const ENTRIES_KEPT: u64 = 128;

/// Entries in one message: with the largest values they fit in one frame of the agent API.
const ENTRIES_TOGETHER: u64 = 32;

/// How long a snapshot may take to be sent and written.
const SNAPSHOT: Duration = Duration::from_secs(5);

/// Messages that wait inside openraft.
const QUEUE: u64 = 1024;

/// How long another one may take to say what it knows.
const MEMBERS: Duration = Duration::from_secs(1);

/// How long a change of the members may take.
const MEMBERSHIP: Duration = Duration::from_secs(5);

pub(crate) struct Core {
    pub(crate) server: String,
    pub(crate) node: Node,
    /// Those that must be there before the cluster begins.
    pub(crate) founders: Vec<String>,
    pub(crate) raft: Raft,
    pub(crate) machine: Machine,
    pub(crate) peers: Arc<Peers>,
    pub(crate) timing: Timing,
    /// How long a sync of the log took at the start.
    pub(crate) sync: Duration,
    folder: PathBuf,
    store: Store,
    /// Held while a new beginning is being prepared, which ends Raft, and must not end the process before.
    pub(crate) recovery: tokio::sync::Mutex<()>,
    met: Mutex<BTreeMap<String, Met>>,
    /// When a leader was last heard.
    heard: Mutex<Option<Instant>>,
}

/// `node.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) node: Node,
}

impl Core {
    /// Opens the folder and starts Raft on what is there.
    pub(crate) async fn open(
        folder: &Path,
        server: &str,
        peers: Arc<Peers>,
        timing: Timing,
    ) -> Result<Self, Error> {
        recover::carry_out(folder)?;
        let node = node(folder)?;
        let store = Store::open(&folder.join("log"))?;
        let machine = Machine::open(&folder.join("snapshot.json"))?;
        let sync = store.measure().await?;
        let alone = folder.join(crate::BEGINS_ALONE).exists();
        let founders = if alone { vec![server.to_owned()] } else { peers.voters() };
        let config = Arc::new(config(timing).validate().map_err(|error| Error::Raft(error.to_string()))?);
        let network = Network { peers: Arc::clone(&peers) };
        let raft = Raft::new(node, config, network, store.clone(), machine.clone()).await;
        Ok(Self {
            server: server.to_owned(),
            node,
            founders,
            raft: raft.map_err(|error| Error::Raft(error.to_string()))?,
            machine,
            peers,
            timing,
            sync,
            folder: folder.to_owned(),
            store,
            recovery: tokio::sync::Mutex::default(),
            met: Mutex::default(),
            heard: Mutex::default(),
        })
    }

    /// Answers one ask of a conversation; a refusal is an error. Watching is not one of them.
    pub(crate) async fn answer(&self, ask: ControlAsk) -> Result<ControlAnswer, String> {
        match ask {
            ControlAsk::Propose { change, within_ms, forwarded } => {
                Ok(self.propose(change, Duration::from_millis(within_ms), forwarded).await)
            }
            ControlAsk::Read { key, within_ms, forwarded } => {
                Ok(self.read(key, Duration::from_millis(within_ms), forwarded).await)
            }
            ControlAsk::Raft { to, kind, body } => {
                self.message(to, kind, body).await.map(ControlAnswer::Raft)
            }
            ControlAsk::Meet { server, node } => self.meet(server, node),
            ControlAsk::Members => Ok(ControlAnswer::Members(self.members())),
            ControlAsk::Replace { old, new } => self.replace(old, new).await,
            ControlAsk::Recover => self.recover().await,
            ControlAsk::Forget => self.forget().await,
            ControlAsk::Watch { .. } => Err("watching begins a conversation of its own".into()),
        }
    }

    async fn propose(&self, change: Change, within: Duration, forwarded: bool) -> ControlAnswer {
        if let Some(because) = change.is_too_large() {
            return ControlAnswer::Outcome(Outcome::Refused { because });
        }
        let unknown = |because: String| ControlAnswer::Unavailable { because, maybe_made: true };
        let error = match timeout(within, self.raft.client_write(change.clone())).await {
            Err(_) => return unknown("no majority took the change in time".into()),
            Ok(Ok(written)) => {
                let Some(outcome) = written.data else { return unknown("the change has no outcome".into()) };
                return ControlAnswer::Outcome(outcome);
            }
            Ok(Err(error)) => error,
        };
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) if is_of_the_operator(&change.key) => {
                ask_the_leader(to.leader_node.map(|leader| leader.server))
            }
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                let ask =
                    ControlAsk::Propose { change, within_ms: within.as_millis() as u64, forwarded: true };
                self.forward(to.leader_node, ask, within, forwarded).await
            }
            other => unknown(other.to_string()),
        }
    }

    async fn read(&self, key: String, within: Duration, forwarded: bool) -> ControlAnswer {
        let no = |because: String| ControlAnswer::Unavailable { because, maybe_made: false };
        match timeout(within, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Err(_) => no("no majority confirmed the leader in time".into()),
            Ok(Ok(_)) => ControlAnswer::Record(self.machine.get(&key)),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                let ask = ControlAsk::Read { key, within_ms: within.as_millis() as u64, forwarded: true };
                self.forward(to.leader_node, ask, within, forwarded).await
            }
            Ok(Err(other)) => no(other.to_string()),
        }
    }

    /// Passes an ask on to the leader, once: a leader that is none any more says so.
    async fn forward(
        &self,
        leader: Option<Member>,
        ask: ControlAsk,
        within: Duration,
        forwarded: bool,
    ) -> ControlAnswer {
        let no = |because: String, maybe_made| ControlAnswer::Unavailable { because, maybe_made };
        let Some(leader) = leader.filter(|leader| !forwarded && leader.server != self.server) else {
            return no("there is no leader now".into(), false);
        };
        match self.peers.pass_on(&leader.server, ask, within).await {
            Ok(answer) => answer,
            Err(link::api::ApiError::Connect { error, .. }) => {
                no(format!("{}: {error}", leader.server), false)
            }
            Err(error) => no(format!("{}: {error}", leader.server), true),
        }
    }

    /// A message of another node's Raft.
    async fn message(&self, to: Node, kind: RaftKind, body: Value) -> Result<Value, String> {
        if to != self.node {
            return Err(format!("{} is not the node {to} any more", self.server));
        }
        let text = |error: &dyn std::error::Error| error.to_string();
        let answer = match kind {
            RaftKind::Append => {
                let answer = self.raft.append_entries(parse(body)?).await.map_err(|error| text(&error))?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    *self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                        Some(Instant::now());
                }
                serde_json::to_value(answer)
            }
            RaftKind::Vote => {
                serde_json::to_value(self.raft.vote(parse(body)?).await.map_err(|error| text(&error))?)
            }
            RaftKind::PreVote => {
                serde_json::to_value(self.raft.pre_vote(parse(body)?).await.map_err(|error| text(&error))?)
            }
            RaftKind::Snapshot => {
                let Sent { vote, meta, records } = parse(body)?;
                let snapshot = Snapshot { meta, snapshot: records };
                let answer = self.raft.install_full_snapshot(vote, snapshot).await;
                serde_json::to_value(answer.map_err(|error| text(&error))?)
            }
            RaftKind::TransferLeader => {
                let answer = self.raft.handle_transfer_leader(parse(body)?).await;
                serde_json::to_value(answer.map_err(|error| text(&error))?)
            }
        };
        answer.map_err(|error| text(&error))
    }

    fn meet(&self, server: String, node: Node) -> Result<ControlAnswer, String> {
        if !self.peers.has(&server) {
            return Err(format!("the plan has no {server}"));
        }
        self.met().insert(server, Met { node, member: false });
        Ok(ControlAnswer::Met { node: self.node, member: self.is_member() })
    }

    /// Others that said who they are; one entry for each control server of the plan.
    pub(crate) fn met(&self) -> MutexGuard<'_, BTreeMap<String, Met>> {
        self.met.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether it belongs to a cluster: its log or its snapshot names members.
    pub(crate) fn is_member(&self) -> bool {
        self.raft.metrics().borrow_watched().membership_config.nodes().next().is_some()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    /// Whether this server knows of a leader that a majority follows.
    pub(crate) fn is_in_contact(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let window = self.timing.worst_election();
        if metrics.state == ServerState::Leader {
            let alone = metrics.membership_config.voter_ids().count() == 1;
            return alone || metrics.last_quorum_acked.is_some_and(|acked| acked.elapsed() < window);
        }
        let heard = *self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        metrics.current_leader.is_some() && heard.is_some_and(|heard| heard.elapsed() < window)
    }

    /// As the leader: the other members of which nothing was heard for longer than an election takes.
    pub(crate) fn silent(&self) -> BTreeSet<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let window = self.timing.worst_election();
        let Some(heard) = &metrics.heartbeat else { return BTreeSet::new() };
        let is_silent = |node: &Node| {
            let last = heard.get(node).and_then(|last| *last);
            *node != self.node && last.is_none_or(|last| last.elapsed() > window)
        };
        let members = metrics.membership_config.nodes().filter(|(node, _)| is_silent(node));
        members.map(|(_, member)| member.server.clone()).collect()
    }

    pub(crate) fn members(&self) -> MembersReport {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        // In the middle of a change only those that vote before and after it: until it has ended, the others are
        // needed as well, and a leader that finds a change unfinished makes it again.
        let configs = membership.membership().get_joint_config();
        let votes = |node: &Node| configs.iter().all(|voters| voters.contains(node));
        let replication = metrics.replication.as_ref();
        let log = |node: &Node| replication?.get(node)?.as_ref().map(|matched| matched.index);
        let members = membership.nodes().map(|(node, member)| MemberReport {
            server: member.server.clone(),
            node: *node,
            votes: votes(node),
            log: log(node),
        });
        MembersReport {
            server: self.server.clone(),
            node: self.node,
            term: metrics.current_term,
            leader: metrics
                .current_leader
                .and_then(|leader| Some(membership.get_node(&leader)?.server.clone())),
            log: metrics.last_log_index.unwrap_or_default(),
            log_term: self.store.last().map(|last| last.leader_id.term).unwrap_or_default(),
            applied: metrics.last_applied.map(|applied| applied.index).unwrap_or_default(),
            members: members.collect(),
            voters: configs.clone(),
        }
    }

    async fn replace(&self, old: String, new: String) -> Result<ControlAnswer, String> {
        if !self.is_leader() {
            return Ok(ask_the_leader(self.members().leader));
        }
        let members = self.members().members;
        let of =
            |name: &str, votes| members.iter().find(|member| member.server == name && member.votes == votes);
        let Some(gone) = of(&old, true) else { return Err(format!("{old} has no vote to be replaced")) };
        let Some(next) = of(&new, false) else {
            return Err(format!(
                "{new} does not learn yet: start it, and wait until `dolmen control` shows it"
            ));
        };
        let voters = members.iter().filter(|member| member.votes && member.node != gone.node);
        let voters = voters.map(|member| member.node).chain([next.node]).collect();
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await?;
        Ok(ControlAnswer::Done)
    }

    /// Prepares a new beginning of this server as the only voter, and ends Raft; the process ends after it.
    async fn recover(&self) -> Result<ControlAnswer, String> {
        let _until_prepared = self.recovery.lock().await;
        self.may_recover().await?;
        // A majority may have been there until a moment ago, and have renewed a lease.
        sleep(self.timing.fenced_after).await;
        self.may_recover().await?;
        self.raft.shutdown().await.map_err(|error| error.to_string())?;
        let (folder, server) = (self.folder.clone(), self.server.clone());
        let (content, state) = (self.store.copy(), self.machine.whole());
        let prepare = move || recover::prepare(&folder, &server, content, state);
        let prepared = tokio::task::spawn_blocking(prepare).await.map_err(|error| error.to_string())?;
        prepared.map_err(|error| format!("cannot write the new state: {error}; the old one is as it was"))?;
        Ok(ControlAnswer::Done)
    }

    async fn may_recover(&self) -> Result<(), String> {
        let others = self.others().await;
        recover::refuse(&self.members(), self.is_in_contact(), &others).map_or(Ok(()), Err)
    }

    /// What the other control servers that answer say.
    async fn others(&self) -> Vec<MembersReport> {
        let mut others = Vec::new();
        for other in self.peers.others(&self.server) {
            let asked = self.peers.ask(&other, &mut Kept::default(), ControlAsk::Members, MEMBERS).await;
            if let Ok(ControlAnswer::Members(report)) = asked {
                others.push(report);
            }
        }
        others
    }

    /// Sets the state aside, because another one began anew without this server, and ends Raft.
    async fn forget(&self) -> Result<ControlAnswer, String> {
        let _until_forgotten = self.recovery.lock().await;
        let others = self.others().await;
        if let Some(because) = recover::keeps(&self.members(), self.is_in_contact(), &others) {
            return Err(because);
        }
        self.raft.shutdown().await.map_err(|error| error.to_string())?;
        let folder = self.folder.clone();
        let set_aside = move || recover::set_aside(&folder);
        let set_aside = tokio::task::spawn_blocking(set_aside).await.map_err(|error| error.to_string())?;
        set_aside.map_err(|error| format!("cannot set the state aside: {error}"))?;
        Ok(ControlAnswer::Done)
    }

    /// Changes the members, as the leader.
    pub(crate) async fn change(&self, change: ChangeMembers<Node, Member>) -> Result<(), String> {
        self.change_to(change, false).await
    }

    /// The same; `retain`: whether those that lose their vote go on as members that learn.
    pub(crate) async fn change_to(
        &self,
        change: ChangeMembers<Node, Member>,
        retain: bool,
    ) -> Result<(), String> {
        let changed = timeout(MEMBERSHIP, self.raft.change_membership(change, retain)).await;
        let slow = |_| "no majority took the change of the members in time".to_owned();
        changed.map_err(slow)?.map(drop).map_err(|error| error.to_string())
    }
}

/// What the operator orders is not passed on: the leader must see who orders it.
fn ask_the_leader(leader: Option<String>) -> ControlAnswer {
    let because = match leader {
        Some(leader) => format!("{leader} leads, and is to be asked itself"),
        None => "there is no leader now".into(),
    };
    ControlAnswer::Unavailable { because, maybe_made: false }
}

fn parse<M: serde::de::DeserializeOwned>(body: Value) -> Result<M, String> {
    serde_json::from_value(body).map_err(|error| format!("a message of Raft cannot be read: {error}"))
}

/// The node of this folder, drawn at its first start. It is on disk before the log is.
fn node(folder: &Path) -> Result<Node, Error> {
    let file = folder.join("node.json");
    if let Some(Named { node }) = disk::read_json(&file)? {
        return Ok(node);
    }
    if folder.join("log").exists() {
        return Err(Error::NoNode(file));
    }
    let node = draw()?;
    disk::replace_json(&file, &Named { node }, Access::Owner)?;
    Ok(node)
}

/// A number that no other node has.
pub(crate) fn draw() -> std::io::Result<Node> {
    let mut bytes = [0; 8];
    // The kernel gives so few at once.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(Node::from_ne_bytes(bytes))
}

fn config(timing: Timing) -> openraft::Config {
    openraft::Config {
        cluster_name: "control".into(),
        heartbeat_interval: timing.heartbeat.as_millis() as u64,
        election_timeout_min: timing.election_min.as_millis() as u64,
        election_timeout_max: timing.election_max.as_millis() as u64,
        enable_pre_vote: Some(true),
        // A leader that a part of the others still hears must not keep the rest from electing another.
        quorum_loss_probe_interval: Some(timing.worst_election().as_millis() as u64),
        max_payload_entries: ENTRIES_TOGETHER,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_PER_SNAPSHOT),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        purge_batch_size: ENTRIES_KEPT,
        replication_lag_threshold: ENTRIES_PER_SNAPSHOT * 2,
        install_snapshot_timeout: SNAPSHOT.as_millis() as u64,
        api_channel_size: Some(QUEUE),
        notification_channel_size: Some(QUEUE),
        ..openraft::Config::default()
    }
}
