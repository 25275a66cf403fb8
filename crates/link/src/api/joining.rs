//! What is said when a machine joins, and when application files go from one machine to another.

use std::path::PathBuf;

use plan::Plan;
use serde::{Deserialize, Serialize};

use super::Fingerprint;

/// What a machine with a token asks for. Its name stands in the token, so that nobody can choose one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Join {
    /// A certificate signing request (RFC 2986, PEM): the key itself never leaves the machine.
    pub request: String,
    /// What secrets for this machine are to be sealed with.
    pub sealing_key: String,
    /// The time of its clock, in seconds since 1970.
    pub clock_s: u64,
    /// The version of its dolmen.
    pub version: String,
}

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    pub machine: String,
    /// PEM.
    pub certificate: String,
    pub authority: String,
    pub plan: Plan,
    /// Keys that are nobody's any more.
    #[serde(default)]
    pub revoked: Vec<Fingerprint>,
}

/// One file, folder or link of a release, folders before what is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the release's folder.
    pub path: PathBuf,
    /// Whether it is a program that stood beside the dolmen binary, and no file of the site.
    #[serde(default)]
    pub program: bool,
    pub mode: u32,
    pub modified_ns: u64,
    pub kind: EntryKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    Folder,
    File { bytes: u64 },
    Link { to: PathBuf },
}
