//! The record of the database group, as the operator's commands read and change it.
//!
//! A command is only one more proposer: the same guarded changes, by the same compare-and-swap, as the database
//! servers make. What it asks for is carried out by them, so that a command may be interrupted at any moment.

use std::time::Duration;

use database::group::{Command, Group, KEY, Refusal};
use link::control::{Client, Control, ControlError, Record, Seen};
use plan::{Role, Server};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Site, status};
use crate::failure::Failure;

/// How long control may take to answer: longer than an election of its own.
const WITHIN: Duration = Duration::from_secs(5);

/// How long a change is tried again when somebody else was faster: the holder renews twice a second.
const RACES: Duration = Duration::from_secs(10);

/// The record of a site that is up.
pub struct GroupRecord {
    control: Client,
}

impl GroupRecord {
    pub async fn of(site: &Site) -> Result<Self, Failure> {
        servers(site)?;
        // An agent that does not answer either says what is wrong sooner and better.
        status::ask(site).await?;
        Ok(Self { control: Client::new(site.identity.clone(), &site.plan, "") })
    }

    /// The record as it is now.
    pub async fn read(&self) -> Result<(u64, Group), Failure> {
        let record = self.control.read(KEY, WITHIN).await.map_err(|error| unreachable(&error))?;
        let record = record.ok_or_else(|| {
            Failure::failed(
                "control has no record of the database yet: its first server has still to make it\n\
                 hint: `dolmen status` shows how far it is",
            )
        })?;
        Ok((record.version, group(&record)?))
    }

    /// Every change from now on.
    pub fn watch(&self) -> watch::Receiver<Option<Seen>> {
        self.control.watch(KEY)
    }

    /// Carries the command out on the record as it is then. Says the version and the record that it made.
    pub async fn change(&self, what: &str, command: &Command) -> Result<(u64, Group), Failure> {
        let until = Instant::now() + RACES;
        loop {
            let (version, group) = self.read().await?;
            let next = group.apply(command).map_err(|refusal| refused(what, &refusal))?;
            let value = serde_json::to_value(&next).map_err(Failure::failed)?;
            match self.control.propose(KEY, version, value, WITHIN).await {
                Ok(version) => return Ok((version, next)),
                Err(ControlError::Changed(_)) if Instant::now() < until => {}
                Err(error) => return Err(unreachable(&error)),
            }
        }
    }
}

/// What a version of the record says.
pub fn group(record: &Record) -> Result<Group, Failure> {
    serde_json::from_value(record.value.clone())
        .map_err(|error| Failure::failed(format!("the record of the database cannot be read: {error}")))
}

fn refused(what: &str, refusal: &Refusal) -> Failure {
    let message = format!("cannot {what}: {refusal}; nothing was changed");
    match refusal {
        Refusal::IsPrimary { .. } => Failure::mistake(message),
        _ => Failure::failed(message),
    }
}

fn unreachable(error: &ControlError) -> Failure {
    Failure::failed(format!("{error}\nhint: `dolmen control` shows who keeps the machines agreed"))
}

/// The database servers of a site that runs its own database.
pub fn servers(site: &Site) -> Result<Vec<&Server>, Failure> {
    let servers: Vec<&Server> = site.plan.role(Role::Database).collect();
    if !servers.is_empty() {
        return Ok(servers);
    }
    let has = if site.plan.database.is_some() { "a database that somebody else runs" } else { "no database" };
    Err(Failure::mistake(format!(
        "{} has {has}; this command is for PostgreSQL run by dolmen",
        site.plan.site
    )))
}

/// The database server of this name, or the user's mistake.
pub fn server<'a>(site: &'a Site, name: &str) -> Result<&'a Server, Failure> {
    let servers = servers(site)?;
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let (names, is_other) = (names.join(", "), site.plan.server(name).is_some());
    servers.into_iter().find(|server| server.name == name).ok_or_else(|| {
        let site = &site.plan.site;
        let what = if is_other {
            format!("{name} is not a database server")
        } else {
            format!("{site} has no {name}")
        };
        Failure::mistake(format!("{what}\nhint: the database servers are {names}"))
    })
}
