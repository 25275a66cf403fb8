//! What servers, machines and the site say about themselves.
//!
//! These are the words of `dolmen status --json`, which scripts rely on: keys may be added, not changed.

mod traffic;

use std::collections::BTreeMap;

use plan::Role;
use serde::{Deserialize, Serialize};

pub use traffic::{PoolTraffic, SERVERS, ServerTraffic, TrafficCounts, TrafficTimes};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Starting,
    Healthy,
    Unhealthy,
    Draining,
    Down,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
            State::Draining => "draining",
            State::Down => "down",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What a server says of itself; the agent passes it on unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub state: State,
    /// One plain sentence, the same as in the log.
    pub because: String,
    /// Present in the reports of database servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseReport>,
    /// Whether its sockets may take connections although it is only starting: a gate holds who comes early.
    #[serde(default)]
    pub takes_connections: bool,
}

/// What a database server knows of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseReport {
    /// Whether this server is the one that takes writes.
    pub primary: bool,
    pub timeline: u32,
    /// On the primary: the replicas as it sees them.
    pub replicas: Vec<ReplicaReport>,
    /// On a replica: whether it is connected to the primary, and how far it is behind, in bytes of WAL.
    pub streaming: bool,
    pub lag_bytes: u64,
    /// What keeps processes of postgres from outliving their guard: `pid-namespace`, `cgroup` or
    /// `parent-death-signal`. Empty while no postgres runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fence: String,
    /// What the machines have agreed on; absent until it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Box<AgreedReport>>,
}

/// The record of the database group, as a database server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreedReport {
    pub epoch: u64,
    /// The server that is the primary, or becomes it.
    pub holder: String,
    /// Whether clients are led to it.
    pub open: bool,
    /// How long its lease lasts after each renewal.
    pub lease_ms: u64,
    /// How long the holder may still go on by it, when this was said; only the holder knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_left_ms: Option<u64>,
    /// Who may be promoted, because every acknowledged commit is on enough of them.
    pub synchronous: Vec<String>,
    /// The operator wants no automatic action.
    pub paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<FailoverReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverReport {
    pub epoch: u64,
    /// The new primary.
    pub server: String,
    /// Milliseconds since 1970, by that server's clock.
    pub when_ms: u64,
    pub because: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// The name of the server, for example `database-2`.
    pub name: String,
    /// `streaming`, `catchup`, `startup`, `backup`, as PostgreSQL says it, or `disconnected`.
    pub state: String,
    pub synchronous: bool,
    pub lag_bytes: u64,
}

/// One server as its agent sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    pub name: String,
    pub role: Role,
    pub machine: String,
    /// Absent while no process runs.
    pub pid: Option<u32>,
    pub state: State,
    pub because: String,
    /// The generation of the plan that it carries out.
    #[serde(default)]
    pub generation: u64,
    /// What it did last to carry out a later plan; empty before that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub did: String,
    /// Whether it could not, and goes on as before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// URLs: `http://127.0.1.1:8080`, `dns://…`, `postgres://…`.
    pub listen: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    /// Of a balancer: its pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<PoolTraffic>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseReport>,
    /// Whether it runs another build of dolmen than its agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_build: bool,
    /// The processes that this one has taken over from, and that finish what they began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finishing: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    Up,
    Down,
}

/// One machine as its own agent sees it, or as a peer says when that agent does not answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineReport {
    pub name: String,
    pub address: String,
    pub state: MachineState,
    #[serde(default)]
    pub because: String,
    /// What its operator should know, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    pub servers: Vec<ServerReport>,
}

/// The whole site as one agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    pub machines: Vec<MachineReport>,
}

impl SiteReport {
    pub fn servers(&self) -> impl Iterator<Item = &ServerReport> {
        self.machines.iter().flat_map(|machine| &machine.servers)
    }

    /// How the site is, without what its servers counted: that changes all the time, and is nothing to act on.
    pub fn without_counts(mut self) -> Self {
        for server in self.machines.iter_mut().flat_map(|machine| &mut machine.servers) {
            server.counters.clear();
            server.traffic.clear();
        }
        self
    }

    pub fn server(&self, name: &str) -> Option<&ServerReport> {
        self.servers().find(|server| server.name == name)
    }
}
