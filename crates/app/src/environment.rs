//! The environment of a worker: what the plan says, where the database is, and of ours only what every program
//! needs. Nothing else that dolmen was started with reaches the application, since it may be secret.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use link::{Given, Secrets};
use plan::{Plan, Role, Server, Value};
use rustix::process::geteuid;

use crate::database_url;

/// What a worker keeps of our own environment, and all that begins with `LC_`.
const KEPT: [&str; 10] =
    ["PATH", "HOME", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// When PATH is not set, what login(1) would set.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Says to which app server a process belongs, for [`crate::leftover`].
pub(crate) const MARK: &str = "DOLMEN_FOLDER";
/// And to which process of that server.
pub(crate) const OWNER: &str = "DOLMEN_APP_PROCESS";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    #[error("the agent gave no secret {0}, which the environment of the workers needs")]
    NoSecret(String),
    #[error("the plan has no gate on {0}, which the workers there need to reach the database")]
    NoGate(String),
}

/// Names and values. It holds secrets, so it prints only the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// What all workers of this server have in common. `ours` is the environment of this process.
    pub(crate) fn of(
        given: &Given,
        me: &Server,
        folder: &Path,
        ours: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, EnvironmentError> {
        let mut environment = Self::default();
        environment.set("PATH", PATH);
        environment.0.extend(ours.filter(|(name, _)| is_kept(&name.to_string_lossy())));
        environment.settle(folder);
        environment.add_database(&given.plan, me, &given.secrets)?;
        environment.add_written(&given.plan, &given.secrets)?;
        environment.set("DOLMEN_SERVER", &me.name);
        environment.set("DOLMEN_SITE", &given.plan.site);
        environment.set(MARK, folder.as_os_str());
        environment.set(OWNER, std::process::id().to_string());
        Ok(environment)
    }

    /// The same with a worker's own address.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        let mut environment = self.clone();
        environment.set("HOST", address.ip().to_string());
        environment.set("PORT", address.port().to_string());
        environment
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(&OsString::from(name))
    }

    fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }

    /// Servers run under accounts made for them, but in the environment of whoever started the agent: somebody
    /// else's home is replaced by the server's own folder, where programs may put their caches.
    fn settle(&mut self, folder: &Path) {
        let home = self.get("HOME").map(std::fs::metadata);
        if !home.is_some_and(|home| home.is_ok_and(|about| about.uid() == geteuid().as_raw())) {
            self.set("HOME", folder);
            for name in ["USER", "LOGNAME"] {
                self.0.remove(&OsString::from(name));
            }
        }
    }

    fn add_database(&mut self, plan: &Plan, me: &Server, secrets: &Secrets) -> Result<(), EnvironmentError> {
        let Some(database) = &plan.database else { return Ok(()) };
        let gate = plan.role(Role::Gate).find(|gate| gate.machine == me.machine);
        let write = gate.and_then(|gate| gate.listens("read-write"));
        let write = write.ok_or_else(|| EnvironmentError::NoGate(me.machine.clone()))?;
        let read = gate.and_then(|gate| gate.listens("read-only")).unwrap_or(write);
        for (name, gate) in [("DATABASE_URL", write), ("DATABASE_REPLICA_URL", read)] {
            // Revealed into the environment of the worker, which is the one that needs it.
            let url = match &database.url {
                Some(_) => database_url::theirs(secret(secrets, "database-url")?, gate),
                None => database_url::ours(&database.name, secret(secrets, "app-password")?, gate),
            };
            self.set(name, url);
        }
        Ok(())
    }

    /// What the site file says wins over all but the names that tell a worker where it is.
    fn add_written(&mut self, plan: &Plan, secrets: &Secrets) -> Result<(), EnvironmentError> {
        for (name, value) in plan.app.iter().flat_map(|app| &app.environment) {
            let value = match value {
                Value::Plain(value) => value,
                Value::Env(_) | Value::File(_) => secret(secrets, &format!("environment.{name}"))?,
            };
            self.set(name, value);
        }
        Ok(())
    }
}

fn secret<'a>(secrets: &'a Secrets, name: &str) -> Result<&'a str, EnvironmentError> {
    let secret = secrets.get(name).ok_or_else(|| EnvironmentError::NoSecret(name.to_owned()))?;
    Ok(secret.reveal())
}

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name) || name.starts_with("LC_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_another_account_is_replaced() {
        let ours = std::env::temp_dir();
        let uid = std::fs::metadata(&ours).unwrap().uid();
        for (home, kept) in
            [(Some(ours), uid == geteuid().as_raw()), (Some("/nonexistent".into()), false), (None, false)]
        {
            let mut environment = Environment::default();
            environment.set("USER", "somebody");
            home.iter().for_each(|home| environment.set("HOME", home));
            environment.settle(Path::new("/folder"));
            let expect = home.filter(|_| kept).unwrap_or("/folder".into());
            assert_eq!(environment.get("HOME"), Some(&expect.into_os_string()));
            assert_eq!(environment.get("USER").is_some(), kept);
        }
    }

    #[test]
    fn values_are_not_printed() {
        let mut environment = Environment::default();
        environment.set("TOKEN", "hidden");
        assert_eq!(format!("{environment:?}"), "{\"TOKEN\"}");
    }
}
