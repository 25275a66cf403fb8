//! What control keeps of a site on several machines: the plan, who belongs to it, and sealed secrets.
//!
//! | key | value |
//! |---|---|
//! | `site/plan` | the plan with its generation, the digest of the application files, the machine that put it there |
//! | `site/machines` | each machine that joined: the fingerprint of its key, and what secrets for it are sealed with |
//! | `site/revoked` | the fingerprints of keys that are nobody's any more |
//! | `vault/…` | one for each machine: what it needs to know, sealed for it alone |
//!
//! Control's log and snapshots are on the disk of every machine; of secrets they hold nothing but what is sealed. Whoever
//! holds any machine's key may bring control into disorder, but nobody believes a record that the authority has not signed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use link::api::{Authority, Fingerprint, Identity, Sealed};
use link::control::{ABSENT, Client, Control, ControlError, Seen};
use link::{Secret, Secrets};
use plan::{Plan, Role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::site::secrets_needed;

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
    /// By the generation of the plan that they belong to: the one in force, and one that may be put in force next.
    pub secrets: BTreeMap<u64, Secrets>,
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

/// Of these secrets, those that a machine needs: all where it keeps the authority, else those of its roles.
pub fn needed(plan: &Plan, machine: &str, secrets: &Secrets) -> Secrets {
    if is_keeper(plan, machine) {
        return secrets.clone();
    }
    let roles: BTreeSet<Role> = plan.on(machine).map(|server| server.role).collect();
    let mut needed = Secrets::default();
    roles.into_iter().for_each(|role| needed.extend(secrets_needed(secrets, role)));
    needed
}

#[derive(Debug, thiserror::Error)]
pub enum AgreedError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the record {key} is not gone by: {error}")]
    Vouch { key: String, error: link::api::VouchError },
    #[error("nothing is sealed for this machine that belongs to that generation")]
    NotSealed,
    #[error(transparent)]
    Seal(#[from] link::api::SealError),
    #[error(transparent)]
    State(#[from] crate::site::StateError),
    #[error(transparent)]
    Authority(#[from] link::api::AuthorityError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What was agreed, as an agent or a command sees it.
#[derive(Clone, Debug)]
pub struct Agreement {
    client: Client,
    identity: Identity,
    site: String,
}

impl Agreement {
    /// For a process on `machine`. Without the operator's identity it only looks.
    pub fn new(identity: Identity, plan: &Plan, machine: &str) -> Self {
        let client = Client::new(identity.clone(), plan, machine);
        Self { client, identity, site: plan.site.clone() }
    }

    /// Asks the control servers of this plan from now on; so do all clones.
    pub fn follow(&self, plan: &Plan) {
        self.client.follow(plan);
    }

    /// A record as it is now, and its version; [`ABSENT`] when there is none.
    pub async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<(u64, Option<T>), AgreedError> {
        match self.client.read(key, WITHIN).await? {
            None => Ok((ABSENT, None)),
            Some(record) => Ok((record.version, Some(self.believe(key, record.value)?))),
        }
    }

    /// What a value of this record says.
    pub fn believe<T: DeserializeOwned>(
        &self,
        key: &str,
        value: serde_json::Value,
    ) -> Result<T, AgreedError> {
        let believed = self.identity.believe(&self.site, key, value);
        believed.map_err(|error| AgreedError::Vouch { key: key.to_owned(), error })
    }

    /// Every value of this record from now on.
    pub fn watch(&self, key: &str) -> watch::Receiver<Option<Seen>> {
        self.client.watch(key)
    }

    /// Replaces the record of this version.
    pub async fn propose(
        &self,
        authority: &Authority,
        key: &str,
        version: u64,
        value: &impl Serialize,
    ) -> Result<u64, AgreedError> {
        let value = authority.vouch(&self.site, key, value);
        let value = value.map_err(|error| AgreedError::Vouch { key: key.to_owned(), error })?;
        Ok(self.client.propose(key, version, value, WITHIN).await?)
    }

    /// The version of a record, whether or not anybody believes what it says.
    pub async fn version(&self, key: &str) -> Result<u64, AgreedError> {
        Ok(self.client.read(key, WITHIN).await?.map_or(ABSENT, |record| record.version))
    }

    /// Puts sealed secrets in their place, whatever was there.
    pub async fn put_vault(
        &self,
        authority: &Authority,
        machine: &str,
        sealed: &Sealed,
    ) -> Result<(), AgreedError> {
        let key = vault(machine);
        loop {
            let version = self.version(&key).await?;
            match self.propose(authority, &key, version, sealed).await {
                // Somebody else was faster, whose word is older than ours: only one proposes for a machine at a time.
                Err(AgreedError::Control(ControlError::Changed(_))) => {}
                other => return other.map(drop),
            }
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
