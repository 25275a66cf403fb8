//! What control keeps of a site on several machines: the plan, who belongs to it, and sealed secrets.
//!
//! | key | value |
//! |---|---|
//! | `site/plan` | the plan with its generation, the digest of the application files, the machine that put it there |
//! | `site/machines` | each machine that joined: the fingerprint of its key, and what secrets for it are sealed with |
//! | `site/revoked` | the fingerprints of keys that are nobody's any more |
//! | `vault/…` | one for each machine: what it needs to know, sealed for it alone |
//!
//! Control's log and snapshots are on the disk of every machine; of secrets they hold nothing but what is sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use link::api::{Fingerprint, Sealed};
use link::control::{ABSENT, Client, Control, ControlError};
use link::{Secret, Secrets};
use plan::{Plan, Role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub const PLAN: &str = "site/plan";
pub const MACHINES: &str = "site/machines";

/// How long control may take: longer than an election of its own.
pub const WITHIN: Duration = Duration::from_secs(5);

/// What all machines are to go by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreed {
    pub plan: Plan,
    /// The digest of the application files.
    pub files: String,
    /// The generation that last came from a site file, which a drain does not; and the machine that it came from,
    /// which has those application files.
    pub applied: u64,
    pub by: String,
}

/// The machines that joined.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machines {
    pub machines: BTreeMap<String, Member>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Of the public key in its certificate.
    pub key: Fingerprint,
    /// What secrets for it are sealed with.
    pub sealing_key: String,
}

/// What one machine needs to know.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vault {
    pub secrets: Secrets,
    /// For machines that issue certificates.
    pub authority: Option<Secret>,
}

/// The record of a machine's vault; a name may be longer than a key.
pub fn vault(machine: &str) -> String {
    let name = Fingerprint::of(machine.as_bytes()).to_string();
    format!("vault/{}", &name[..32])
}

/// What a vault is sealed for, so that nobody can put one machine's in the place of another's.
pub fn purpose(site: &str, machine: &str) -> String {
    format!("vault of {machine} of {site}")
}

/// Whether this machine keeps the authority's key and all secrets: those that vote do, so that the loss of any
/// one machine, the first one too, loses neither.
pub fn is_keeper(plan: &Plan, machine: &str) -> bool {
    let voters = plan.control.iter().flat_map(|control| &control.voters);
    voters.filter_map(|voter| plan.server(voter)).any(|server| server.machine == machine)
}

/// The roles whose secrets a machine needs.
pub fn roles(plan: &Plan, machine: &str) -> BTreeSet<Role> {
    plan.on(machine).map(|server| server.role).collect()
}

#[derive(Debug, thiserror::Error)]
pub enum AgreedError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the record {key} cannot be read: {error}")]
    Meaning { key: String, error: serde_json::Error },
    #[error(transparent)]
    Seal(#[from] link::api::SealError),
    #[error(transparent)]
    State(#[from] crate::site::StateError),
    #[error(transparent)]
    Authority(#[from] link::api::AuthorityError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A record as it is now, and its version; [`ABSENT`] when there is none.
pub async fn read<T: DeserializeOwned>(client: &Client, key: &str) -> Result<(u64, Option<T>), AgreedError> {
    match client.read(key, WITHIN).await? {
        None => Ok((ABSENT, None)),
        Some(record) => Ok((record.version, Some(meaning(key, record.value)?))),
    }
}

pub fn meaning<T: DeserializeOwned>(key: &str, value: serde_json::Value) -> Result<T, AgreedError> {
    serde_json::from_value(value).map_err(|error| AgreedError::Meaning { key: key.to_owned(), error })
}

/// Replaces the record of this version.
pub async fn propose(
    client: &Client,
    key: &str,
    version: u64,
    value: &impl Serialize,
) -> Result<u64, AgreedError> {
    let value =
        serde_json::to_value(value).map_err(|error| AgreedError::Meaning { key: key.to_owned(), error })?;
    Ok(client.propose(key, version, value, WITHIN).await?)
}

/// Puts sealed secrets in their place, whatever was there.
pub async fn put_vault(client: &Client, machine: &str, sealed: &Sealed) -> Result<(), AgreedError> {
    let key = vault(machine);
    loop {
        let (version, _) = read::<Sealed>(client, &key).await?;
        match propose(client, &key, version, sealed).await {
            // Somebody else was faster, whose word is older than ours: only one proposes for a machine at a time.
            Err(AgreedError::Control(ControlError::Changed(_))) => {}
            other => return other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_has_a_key_of_its_own_that_is_short_enough() {
        let long = "m".repeat(63);
        assert!(vault(&long).len() <= link::control::KEY_LIMIT);
        assert_ne!(vault("beta"), vault("gamma"));
    }
}
