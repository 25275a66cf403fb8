//! The plan: what a site file means once it is checked, with nothing left to guess.
//!
//! It is plain data. It travels whole over the link (agent to server) and the agent API (agent to agent),
//! so a key may be added with a default, never given another meaning. Units stand last in names.

mod access_log;
mod balancer;
mod check;
mod control;
mod lease;
mod limit;
mod network;
mod route;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use access_log::*;
pub use balancer::*;
pub use check::*;
pub use control::*;
pub use lease::*;
pub use limit::*;
pub use network::*;
pub use route::*;

/// The shape of this structure on disk and on the wire. A reader refuses a format it does not know.
pub const FORMAT: u32 = 1;

/// What one site file means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub format: u32,
    /// Grows by one whenever the meaning changes; the first plan of a site is 1.
    pub generation: u64,
    /// The site's name: its domain, or else the name of its folder. Used in messages and for the state folder.
    pub site: String,
    pub domain: Option<String>,
    pub place: Place,
    pub machines: Vec<Machine>,
    /// All servers in the order of a request, which is also the order in which they are listed.
    pub servers: Vec<Server>,
    pub dns: Option<Dns>,
    pub balancer: Option<Balancer>,
    pub web: Option<Web>,
    pub app: Option<App>,
    pub database: Option<Database>,
    /// The servers that `dolmen drain` took out of rotation. They are no part of the site file: a plan goes on with
    /// those of the one before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<String>,
    /// Whether requests from one machine to another go in TLS.
    #[serde(default)]
    pub encrypted: bool,
    /// Who keeps the machines agreed; None when nothing needs it.
    #[serde(default)]
    pub control: Option<Control>,
    /// One sentence for each part that is written and checked but not yet served by this version.
    pub not_served: Vec<String>,
}

/// Where the site runs: on loopback addresses of this computer, or on the machines' own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// `dolmen up`: every machine is an address `127.0.N.1`, `127.0.N.2`, … where N is the block.
    Up { block: u8 },
    /// `dolmen agent MACHINE`: the addresses of the file, low ports in front.
    Machines,
}

/// One computer, or on `up` one loopback address that stands for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub name: String,
    /// Where servers talk to each other.
    pub address: IpAddr,
    /// What DNS answers for this machine; empty means `address`.
    pub public: Vec<IpAddr>,
    /// Where this machine's agent answers the agent API.
    pub agent: SocketAddr,
}

/// One process with one role on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `role-number`, for example `web-2`; the number counts over the whole site in the order of `on`.
    pub name: String,
    pub role: Role,
    pub machine: String,
    pub address: IpAddr,
    pub listen: Vec<Listen>,
}

impl Server {
    /// The address that it listens on under this name, if it does.
    pub fn listens(&self, name: &str) -> Option<SocketAddr> {
        self.listen.iter().find(|listen| listen.name == name).map(|listen| listen.address)
    }
}

/// The roles, in the order of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Dns,
    Balancer,
    Web,
    App,
    Gate,
    Database,
    Control,
    Monitor,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Dns => "dns",
            Role::Balancer => "balancer",
            Role::Web => "web",
            Role::App => "app",
            Role::Gate => "gate",
            Role::Database => "database",
            Role::Control => "control",
            Role::Monitor => "monitor",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One address that a server answers on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// What it is for: `http`, `dns` (datagrams), `dns-tcp`, `read-write`, `read-only`, `control`,
    /// `postgres`.
    pub name: String,
    pub kind: SocketKind,
    pub address: SocketAddr,
    /// Whether the agent opens and holds the socket. PostgreSQL opens its own.
    pub held: bool,
    /// How many sockets share the address (SO_REUSEPORT), one for each thread of the server.
    /// Fixed while the server lives, because closing one resets what waits on it. 0: one per core.
    pub sockets: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketKind {
    Tcp,
    Udp,
}

/// A server that another one sends requests to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The name of one of our servers, or the address as it was written.
    pub name: String,
    /// Where it answers. With `lookup` only its port counts.
    pub address: SocketAddr,
    /// The host name to ask for its address. Targets that share one each have an address of their own.
    #[serde(default)]
    pub lookup: Option<String>,
    /// The machine it runs on, when it is one of ours.
    pub machine: Option<String>,
    /// Its part of the traffic; 0: none, not even of clients that were there before.
    pub weight: u32,
    /// Used only when no server without this mark is healthy.
    pub backup: bool,
    /// Requests that it may have under way at one time from one balancer.
    #[serde(default)]
    pub max_connections: Option<u32>,
}

/// How long each step of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the first byte of a request until its head is complete.
    pub header_ms: u64,
    /// A connection with no request on it.
    pub idle_ms: u64,
    pub connect_ms: u64,
    /// From the request sent until the first byte of the answer.
    pub first_byte_ms: u64,
    /// Without any byte of a body in either direction.
    pub body_ms: u64,
    /// Without any byte through an upgraded connection.
    pub tunnel_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dns {
    /// The zone that we answer for, without the last dot: the domain unless `zone` says more.
    pub zone: String,
    /// The names that answer with the balancers' addresses (the domain itself).
    pub site: String,
    pub ttl_s: u32,
    /// The mail address of the zone's keeper, `hostmaster@ZONE` unless the file says another.
    pub mailbox: String,
    pub records: Vec<Record>,
}

/// An extra record from the file, already checked by the plan for name and type; the value is in
/// presentation format (RFC 1035 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Fully qualified, without the last dot.
    pub name: String,
    pub kind: String,
    pub value: String,
    pub ttl_s: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Web {
    /// The folder of static files, relative to the application files. None: nothing is served from disk.
    pub root: Option<PathBuf>,
    /// The app servers; empty for a static site.
    pub app: Vec<Target>,
    /// The health check of the app servers, when there are any.
    pub check: Check,
    pub timeouts: Timeouts,
    #[serde(default)]
    pub access_log: Option<AccessLog>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// A shell-like command line; its first word is sought in the application files, beside the dolmen
    /// binary, then on PATH.
    pub command: String,
    pub workers: u16,
    /// The path that answers 2xx when a worker can serve.
    pub health: String,
    pub environment: BTreeMap<String, Value>,
    /// How long a worker may take until it is healthy for the first time.
    pub start_ms: u64,
    /// How long a worker may go on with its requests after it was asked to end.
    pub stop_ms: u64,
    pub timeouts: Timeouts,
}

/// A value of the site file that may be secret. Only its source is in the plan, never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    Plain(String),
    /// `env:NAME`, read from the environment of whoever runs `up` or the agent.
    Env(String),
    /// `file:PATH`, relative to the site file.
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// A database that somebody else runs, in place of ours. Then there are gates, but no database servers.
    pub url: Option<Value>,
    /// Whether a commit waits for a replica. False as well when there is only one database server.
    pub synchronous: bool,
    /// Whether it waits even when no replica is left, rather than go on with the primary alone.
    #[serde(default)]
    pub strict: bool,
    /// For how long a primary that is not heard of may still be one.
    #[serde(default = "lease_default_ms")]
    pub lease_ms: u64,
    /// The name of the application's database, and of the role that owns it.
    pub name: String,
    /// `[database.settings]`: PostgreSQL settings, as written.
    pub settings: BTreeMap<String, String>,
}

fn lease_default_ms() -> u64 {
    LEASE_DEFAULT_MS
}

impl Database {
    pub fn lease(&self) -> Lease {
        Lease::of(std::time::Duration::from_millis(self.lease_ms))
    }
}

impl Plan {
    /// The machine that `me` reaches in TLS when it asks this target; None: it asks without.
    pub fn reached_in_tls<'t>(&self, me: &Server, target: &'t Target) -> Option<&'t str> {
        target.machine.as_deref().filter(|machine| self.encrypted && *machine != me.machine)
    }

    pub fn machine(&self, name: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.name == name)
    }

    pub fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// The servers of a role, in the order of their numbers.
    pub fn role(&self, role: Role) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(move |server| server.role == role)
    }

    /// What one should know of this site besides what it serves.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        let control = self.control.iter().filter_map(|control| control.note.as_deref());
        self.not_served.iter().map(String::as_str).chain(control)
    }

    /// The servers of a machine, in the order of a request.
    pub fn on<'a>(&'a self, machine: &'a str) -> impl Iterator<Item = &'a Server> {
        self.servers.iter().filter(move |server| server.machine == machine)
    }
}
