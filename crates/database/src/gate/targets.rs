//! Which server takes writes, which ones take reads: a pure function of the plan, of what control says and of the
//! site's reports.

use std::fmt;
use std::net::SocketAddr;

use link::Secrets;
use link::report::{ServerReport, SiteReport, State};
use plan::{Plan, Role};
use tokio_postgres::config::Host;

use super::Error;
use super::lead::Lead;

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
    /// Takes writes, or why nobody does.
    pub(crate) primary: Result<Primary, String>,
    /// Replicas that follow the primary closely enough for reads.
    pub(crate) following: Vec<Target>,
    /// Other replicas that run: they have all that they were sent, for when there is nobody to follow.
    pub(crate) standing: Vec<Target>,
    /// Whether the primary's process is known to be gone.
    pub(crate) primary_is_away: bool,
    /// What the primary says of itself while it is not healthy.
    pub(crate) primary_says: Option<Says>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Primary {
    pub(crate) target: Target,
    /// Which promotion made it the primary, where control keeps count. Another epoch is another primary, even
    /// on the same server.
    pub(crate) epoch: Option<u64>,
}

/// How a connection was led, and so what may end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Primary(Primary),
    Replica(Target),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Says {
    pub(crate) state: State,
    pub(crate) because: String,
}

impl Target {
    /// Whether it is one of the site's own servers, whose roles control knows.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.address, Address::Ours(_))
    }
}

impl Route {
    pub(crate) fn target(&self) -> &Target {
        match self {
            Route::Primary(primary) => &primary.target,
            Route::Replica(target) => target,
        }
    }
}

impl Targets {
    /// Whether a connection that was led this way may go on. A replica of which nothing is heard, because its
    /// agent does not answer, keeps its readers: if it is gone they notice. One that was promoted keeps them
    /// too, being as good for reads as ever.
    pub(crate) fn allow(&self, route: &Route) -> bool {
        match route {
            Route::Primary(primary) => self.primary.as_ref() == Ok(primary),
            Route::Replica(target) => self.nobody_to_follow() || !self.standing.contains(target),
        }
    }

    /// Whether replicas that follow nobody are better than nothing.
    fn nobody_to_follow(&self) -> bool {
        self.following.is_empty() && (self.primary.is_err() || self.primary_is_away)
    }

    /// Groups of routes for reads, the best group first.
    pub(crate) fn for_reads(&self) -> [Vec<Route>; 3] {
        let routes = |targets: &[Target]| targets.iter().cloned().map(Route::Replica).collect();
        let primary = self.primary.iter().cloned().map(Route::Primary).collect();
        let (following, standing) = (routes(&self.following), routes(&self.standing));
        if self.nobody_to_follow() { [standing, primary, Vec::new()] } else { [following, primary, standing] }
    }

    /// Every server that may take connections now.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Target> {
        let primary = self.primary.iter().map(|primary| &primary.target);
        primary.chain(&self.following).chain(&self.standing)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.name, self.address)
    }
}

impl fmt::Display for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target)?;
        match self.epoch {
            Some(epoch) => write!(f, " (epoch {epoch})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.primary {
            Ok(primary) => write!(f, "read-write to {primary}, read-only ")?,
            Err(why) => write!(f, "no primary: {why}; read-only ")?,
        }
        let replicas = if self.nobody_to_follow() { self.standing.len() } else { self.following.len() };
        match (replicas, &self.primary) {
            (0, Ok(_)) => write!(f, "to the same server"),
            (0, Err(_)) => write!(f, "to nobody either"),
            (1, _) => write!(f, "over 1 replica"),
            (more, _) => write!(f, "over {more} replicas"),
        }
    }
}

/// Before anything was said: a database of somebody else is where its URL says; ours must say who is what.
pub(crate) fn first(plan: &Plan, secrets: &Secrets) -> Result<Targets, Error> {
    let database = plan.database.as_ref().ok_or(Error::NoDatabase)?;
    let primary = if database.url.is_some() {
        let url =
            secrets.get("database-url").ok_or(Error::Url("the agent gave no secret database-url".into()))?;
        Ok(Primary { target: external(url.reveal())?, epoch: None })
    } else {
        let expected = servers(plan).next().ok_or(Error::NoServer)?;
        Err(format!("waiting for {} on {}", expected.name, expected.address))
    };
    let (following, standing) = (Vec::new(), Vec::new());
    Ok(Targets { primary, following, standing, primary_is_away: false, primary_says: None })
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

/// After a change of the record or a report. What the reports do not tell stays as it was: a gate that lost its
/// agent goes on.
pub(crate) fn next(plan: &Plan, lead: &Lead, site: &SiteReport, before: &Targets) -> Targets {
    let Some(servers) = known(plan) else { return before.clone() };
    let told = |server: &Target| site.server(&server.name);
    let unreported = !servers.iter().any(|server| told(server).is_some());
    let primary = match lead {
        Lead::Unrecorded if unreported => return before.clone(),
        Lead::Unrecorded => reported(&servers, site, before),
        Lead::Nobody(why) => Err(why.clone()),
        Lead::Open { server, epoch } => {
            let target = servers.iter().find(|target| target.name == *server).cloned();
            let primary = target.map(|target| Primary { target, epoch: Some(*epoch) });
            primary.ok_or_else(|| format!("{server} is the primary, but not in the plan of this gate"))
        }
    };
    if unreported {
        return Targets { primary, ..before.clone() };
    }
    let of_primary = primary.as_ref().ok().and_then(|primary| told(&primary.target));
    let says = of_primary.filter(|report| report.state != State::Healthy);
    let is_primary = |server: &Target| primary.as_ref().is_ok_and(|primary| primary.target == *server);
    let replicas = servers.iter().filter(|server| !is_primary(server));
    let (following, others): (Vec<_>, Vec<_>) =
        replicas.cloned().partition(|server| told(server).is_some_and(follows));
    let standing = others.into_iter().filter(|server| told(server).is_some_and(stands)).collect();
    Targets {
        following,
        standing,
        primary_is_away: of_primary.is_some_and(|report| report.state == State::Down),
        primary_says: says.map(|report| Says { state: report.state, because: report.because.clone() }),
        primary,
    }
}

/// The database servers, where we run them.
fn known(plan: &Plan) -> Option<Vec<Target>> {
    let ours = plan.database.as_ref().is_some_and(|database| database.url.is_none());
    ours.then(|| servers(plan).collect())
}

/// The primary as the servers themselves report it. Whoever called itself that last stays it while it is away;
/// one that is only starting yet would refuse the application for good, as its role is not made.
fn reported(servers: &[Target], site: &SiteReport, before: &Targets) -> Result<Primary, String> {
    let claims = |server: &&Target| {
        let report = site.server(&server.name)?.database.as_ref()?;
        report.primary.then_some(report.timeline)
    };
    let was = before.primary.as_ref().ok();
    // Of two that call themselves primary the one with the newer history is right.
    let claimant = servers.iter().filter(|server| claims(server).is_some()).max_by_key(claims);
    let target = match (claimant, was) {
        (Some(claimant), _) => claimant,
        (None, Some(was)) => &was.target,
        (None, None) => return expected(servers, site, before),
    };
    let is_new = was.is_none_or(|was| was.target != *target);
    match site.server(&target.name) {
        Some(report) if is_new && !matches!(report.state, State::Healthy | State::Unhealthy) => {
            Err(format!("{} is {}: {}", target.name, report.state, report.because))
        }
        _ => Ok(Primary { target: target.clone(), epoch: None }),
    }
}

/// Nobody has called itself primary yet: what the first of the plan says of itself.
fn expected(servers: &[Target], site: &SiteReport, before: &Targets) -> Result<Primary, String> {
    let report = servers.first().and_then(|first| site.server(&first.name));
    match (report, &before.primary) {
        (Some(report), _) => Err(format!("{} is {}: {}", report.name, report.state, report.because)),
        (None, before) => before.clone(),
    }
}

fn follows(report: &ServerReport) -> bool {
    let Some(database) = &report.database else { return false };
    report.state == State::Healthy
        && !database.primary
        && database.streaming
        && database.lag_bytes <= LAG_LIMIT_BYTES
}

fn stands(report: &ServerReport) -> bool {
    let is_replica = report.database.as_ref().is_some_and(|database| !database.primary);
    is_replica && report.pid.is_some() && report.state != State::Starting
}
