//! The secrets of a site: made once, kept in one file that only its owner may read.
//!
//! Values that the site file takes from `env:NAME` or `file:PATH` are read when the site starts, by whoever
//! starts it, since servers run under accounts that may not read them.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use link::disk::{self, Access};
use link::{Secret, Secrets};
use plan::{Plan, Role, Value};

use super::StateError;

/// Passwords that are made at random: 192 bits, which nobody guesses.
const GENERATED: [&str; 2] = ["app-password", "replication-password"];
const PASSWORD_BYTES: usize = 24;

const FILE: &str = "secrets.json";

/// A secret in a file is not longer.
const FILE_LIMIT: usize = 64 * 1024;

/// All of them.
pub fn all(root: &Path) -> io::Result<Secrets> {
    Ok(disk::read_json(&root.join(FILE))?.unwrap_or_default())
}

/// Replaces all of them.
pub fn put(root: &Path, secrets: &Secrets) -> io::Result<()> {
    disk::replace_json(&root.join(FILE), secrets, Access::Owner)
}

/// Makes what is missing and reads anew what the plan takes from elsewhere. Nothing is written: whoever puts the plan in
/// force puts these with it. A variable that is not set now may keep its value where `running` is the plan of a site
/// that runs, and wants the same one.
pub fn make(root: &Path, home: &Path, plan: &Plan, running: Option<&Plan>) -> Result<Secrets, StateError> {
    let known = all(root)?;
    let mut secrets = known.only(|name| GENERATED.contains(&name));
    for name in GENERATED {
        if secrets.get(name).is_none() {
            secrets.insert(name, password()?);
        }
    }
    for (name, value) in values(plan) {
        let is_same = |(other, was): (String, &Value)| other == name && was == value;
        let keeps = running.is_some_and(|running| values(running).any(is_same));
        let found = match (outside(&name, value, home), known.get(&name)) {
            (Err(_), Some(known)) if keeps && matches!(value, Value::Env(_)) => Some(known.clone()),
            (found, _) => found?,
        };
        if let Some(secret) = found {
            secrets.insert(name, secret);
        }
    }
    Ok(secrets)
}

/// All values of the plan that may come from elsewhere, by the name of the secret.
fn values(plan: &Plan) -> impl Iterator<Item = (String, &Value)> {
    let environment = plan.app.iter().flat_map(|app| &app.environment);
    let environment = environment.map(|(name, value)| (format!("environment.{name}"), value));
    let url = plan.database.iter().filter_map(|database| database.url.as_ref());
    environment.chain(url.map(|url| ("database-url".to_owned(), url)))
}

/// The environment variables that secrets are read from.
pub fn variables(plan: &Plan) -> Vec<String> {
    let variable = |(_, value): (String, &Value)| match value {
        Value::Env(name) => Some(name.clone()),
        Value::Plain(_) | Value::File(_) => None,
    };
    values(plan).filter_map(variable).collect()
}

fn outside(name: &str, value: &Value, home: &Path) -> Result<Option<Secret>, StateError> {
    let missing = |because: String| StateError::Secret { name: name.to_owned(), because };
    match value {
        Value::Plain(_) => Ok(None),
        Value::Env(variable) => match std::env::var(variable) {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(error) => Err(missing(format!("the environment variable {variable}: {error}"))),
        },
        Value::File(path) => {
            let path = home.join(path);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| missing(format!("{}: {error}", path.display())))?;
            if text.len() > FILE_LIMIT {
                return Err(missing(format!("{} is longer than {FILE_LIMIT} bytes", path.display())));
            }
            Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']))))
        }
    }
}

fn password() -> io::Result<Secret> {
    let mut random = [0_u8; PASSWORD_BYTES];
    let mut filled = 0;
    while filled < random.len() {
        filled += rustix::rand::getrandom(&mut random[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    let mut text = String::new();
    for byte in random {
        write!(text, "{byte:02x}").map_err(io::Error::other)?;
    }
    Ok(Secret::new(text))
}

/// Of these, the secrets that servers of this role need.
pub fn for_role(secrets: &Secrets, role: Role) -> Secrets {
    secrets.only(|name| match role {
        Role::App => name == "app-password" || name == "database-url" || name.starts_with("environment."),
        Role::Database => GENERATED.contains(&name),
        Role::Gate => name == "database-url",
        Role::Dns | Role::Balancer | Role::Web | Role::Control | Role::Monitor => false,
    })
}
