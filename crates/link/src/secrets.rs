//! Secrets on their way from the agent to the one server that needs them.
//!
//! They travel over the link and live in memory: never in an argument list, a plan, a report or a log.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A text that prints as `(secret)`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Name the one place that needs it beside each call.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Secrets by name: `app-password`, `replication-password`, `environment.NAME`, `database-url`; and the
/// certificates and key of an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    pub fn insert(&mut self, name: impl Into<String>, secret: Secret) {
        self.0.insert(name.into(), secret);
    }

    /// Those of these names.
    pub fn only(&self, needed: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| needed(name)).map(|(n, s)| (n.clone(), s.clone())).collect())
    }

    /// Adds all of the others.
    pub fn extend(&mut self, others: Secrets) {
        self.0.extend(others.0);
    }
}
