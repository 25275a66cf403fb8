//! Which server takes writes, which ones take reads: a pure function of the plan and the site's reports.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use link::Secrets;
use link::report::{SiteReport, State};
use plan::{Plan, Role};
use tokio_postgres::config::Host;

use super::Error;

/// A replica that is further behind than this takes no reads.
pub(crate) const LAG_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// One server behind the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) address: Address,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Ours(SocketAddr),
    /// A database that somebody else runs; its name is looked up for each connection.
    External {
        host: String,
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ours(address) => address.fmt(f),
            Address::External { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Where connections go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) primary: Target,
    /// May be empty: then the primary takes the reads.
    pub(crate) replicas: Vec<Target>,
    /// Whether the application's role and database are there: from when the primary was told to be more than
    /// starting. Before that a connection would be refused for good, so it is held.
    pub(crate) ready: bool,
    /// What the primary says of itself while it is not healthy.
    pub(crate) primary_says: Option<Says>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Says {
    pub(crate) state: State,
    pub(crate) because: String,
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read-write to {} on {}, read-only ", self.primary.name, self.primary.address)?;
        match self.replicas.len() {
            0 => write!(f, "to the same server"),
            1 => write!(f, "over 1 replica"),
            more => write!(f, "over {more} replicas"),
        }
    }
}

/// Before anything was reported: the plan's first database server, or the one of the URL.
pub(crate) fn first(plan: &Plan, secrets: &Secrets) -> Result<Targets, Error> {
    let database = plan.database.as_ref().ok_or(Error::NoDatabase)?;
    let primary = if database.url.is_some() {
        let url =
            secrets.get("database-url").ok_or(Error::Url("the agent gave no secret database-url".into()))?;
        external(url.reveal())?
    } else {
        servers(plan).next().ok_or(Error::NoServer)?
    };
    Ok(Targets { primary, replicas: Vec::new(), ready: database.url.is_some(), primary_says: None })
}

/// The URL is a secret: an error never repeats it.
fn external(url: &str) -> Result<Target, Error> {
    let config: tokio_postgres::Config = url
        .parse()
        .map_err(|_| Error::Url("it is not of the form postgres://user:password@host:port/name".into()))?;
    let Some(Host::Tcp(host)) = config.get_hosts().first() else {
        return Err(Error::Url("it names no host".into()));
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let address = Address::External { host: host.clone(), port };
    Ok(Target { name: "the database".into(), address })
}

fn servers(plan: &Plan) -> impl Iterator<Item = Target> + '_ {
    plan.role(Role::Database).filter_map(|server| {
        let address = Address::Ours(server.listens("postgres")?);
        Some(Target { name: server.name.clone(), address })
    })
}

/// After a report. What it does not tell stays as it was: a gate that lost its agent goes on.
pub(crate) fn next(plan: &Plan, site: &SiteReport, before: &Targets) -> Targets {
    let told = |name: &str| site.server(name);
    if !servers(plan).any(|server| told(&server.name).is_some()) {
        return before.clone();
    }
    let claims = |server: &Target| {
        let report = told(&server.name)?.database.as_ref()?;
        report.primary.then_some(report.timeline)
    };
    // Of two that call themselves primary the one with the newer history is right.
    let primary = servers(plan).filter(|server| claims(server).is_some()).max_by_key(claims);
    let primary = primary.unwrap_or_else(|| before.primary.clone());
    let state = told(&primary.name).map(|report| report.state);
    let primary_is_away = matches!(state, Some(State::Down));
    let takes_reads = |server: &Target| {
        let Some(report) = told(&server.name) else { return false };
        let Some(database) = report.database.as_ref() else { return false };
        let follows =
            report.state == State::Healthy && database.streaming && database.lag_bytes <= LAG_LIMIT_BYTES;
        // Without a primary there is nobody to follow: a replica that runs still has all it was sent.
        follows || primary_is_away && report.pid.is_some() && report.state != State::Starting
    };
    let replicas = servers(plan).filter(|server| server.name != primary.name).filter(takes_reads).collect();
    let ready = before.ready || matches!(state, Some(State::Healthy | State::Unhealthy));
    let primary_says = told(&primary.name)
        .filter(|report| report.state != State::Healthy)
        .map(|report| Says { state: report.state, because: report.because.clone() });
    Targets { primary, replicas, ready, primary_says }
}

/// How many connections each server has through this gate, and whose turn it is among equals.
#[derive(Debug, Default)]
pub(crate) struct Busy(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: BTreeMap<String, usize>,
    turn: usize,
}

impl Busy {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server with the fewest connections, in turn among equals, and never one that `failed` already.
    pub(crate) fn least<'a>(&self, servers: &'a [Target], failed: &[String]) -> Option<&'a Target> {
        let mut counts = self.counts();
        let left: Vec<&Target> = servers.iter().filter(|server| !failed.contains(&server.name)).collect();
        let open = |server: &&Target| counts.open.get(&server.name).copied().unwrap_or(0);
        let fewest = left.iter().map(open).min()?;
        let equals: Vec<&Target> = left.into_iter().filter(|server| open(server) == fewest).collect();
        let chosen = equals[counts.turn % equals.len()];
        counts.turn = counts.turn.wrapping_add(1);
        Some(chosen)
    }

    /// Counts a connection for as long as the value lives.
    pub(crate) fn count(self: &Arc<Self>, server: &str) -> Counted {
        *self.counts().open.entry(server.to_owned()).or_default() += 1;
        Counted { busy: Arc::clone(self), server: server.to_owned() }
    }
}

#[derive(Debug)]
pub(crate) struct Counted {
    busy: Arc<Busy>,
    server: String,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(open) = self.busy.counts().open.get_mut(&self.server) {
            *open = open.saturating_sub(1);
        }
    }
}
