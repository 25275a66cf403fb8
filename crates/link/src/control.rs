//! What the machines agreed on: small records that change by compare-and-swap, held by the control servers.
//!
//! A record is a key, a version that grows by one with every change, and a JSON value. Control knows nothing
//! of what a record means. Which changes are allowed is a pure function of the part that owns the record: it
//! makes the next value from the one at version v and proposes it for v; when somebody else was faster the
//! proposal is refused and comes back with the newer record. Nothing on the path of a request waits for this.
//!
//! [`Control`] is the interface; [`Client`] is what servers use, [`Memory`] what their tests use. Both stand on
//! [`Records`], the state machine that Raft replicates, so that a test sees the rules of the real thing.

mod client;
mod memory;
mod records;
pub mod wire;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

pub use client::Client;
pub use memory::{Fault, Memory};
pub use records::{Change, KEY_LIMIT, Outcome, RECORDS_LIMIT, Records, TOTAL_LIMIT, VALUE_LIMIT};

/// The one record whose meaning control knows: the fingerprints of keys that are nobody's any more, as a list.
pub const REVOKED: &str = "site/revoked";

/// How the keys of records begin that say what the site is: only the operator changes them. All others belong to servers,
/// which hold the keys of their machines.
const OF_THE_OPERATOR: [&str; 2] = ["site/", "vault/"];

/// Whether only the operator may change the record of this key.
pub fn is_of_the_operator(key: &str) -> bool {
    OF_THE_OPERATOR.iter().any(|begin| key.starts_with(begin))
}

/// The version that stands for "there is no such record yet".
pub const ABSENT: u64 = 0;

/// By this the versions of all records jump when control begins anew from the state of one voter, so that nobody who
/// has seen a later one than the recovered one takes it for old news. Renewals of a lease alone make some 200,000
/// versions a day.
pub const LIFT: u64 = 1 << 40;

/// How often control had begun anew when a record got this version.
pub fn beginnings(version: u64) -> u64 {
    version / LIFT
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 1 for the first value, then one more with every change.
    pub version: u64,
    pub value: Value,
}

/// A record, and when this process heard of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub record: Record,
    /// The moment on [`since_boot`] at which this version, not a repetition of it, arrived.
    pub at: Duration,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ControlError {
    /// The record is not at the version that the proposal was made for. Certainly nothing was changed.
    #[error("the record is at version {}: somebody else was faster", version(.0.as_ref()))]
    Changed(Option<Record>),
    /// Certainly nothing was changed, and trying again cannot help.
    #[error("refused: {0}")]
    Refused(String),
    /// Certainly nothing was changed; it may work later.
    #[error("control cannot be asked: {0}")]
    Unavailable(String),
    /// The proposal may have been made, or may still be. Only a later version of the record tells.
    #[error("it is unknown whether the change was made: {0}")]
    Unknown(String),
}

fn version(record: Option<&Record>) -> u64 {
    record.map_or(ABSENT, |record| record.version)
}

/// What comes later, from an interface that can be a trait object.
pub type Soon<'a, T> = Pin<Box<dyn Future<Output = Result<T, ControlError>> + Send + 'a>>;

/// Control as the other parts see it.
pub trait Control: Send + Sync {
    /// Changes the record from `expected_version` ([`ABSENT`] creates it) to `value`, and says the new version.
    /// Returns when the change is on the disks of a majority, or after `within`.
    fn propose<'a>(
        &'a self,
        key: &'a str,
        expected_version: u64,
        value: Value,
        within: Duration,
    ) -> Soon<'a, u64>;

    /// The record as it is now: every change that was acknowledged before this call is seen.
    fn read<'a>(&'a self, key: &'a str, within: Duration) -> Soon<'a, Option<Record>>;

    /// The latest version that this process heard of; None until there is one. It never goes back, and may be
    /// old when control cannot be reached: judge its age by what the owner of the record writes into it. Call
    /// it once for each key, on a runtime, and clone the receiver.
    fn watch(&self, key: &str) -> watch::Receiver<Option<Seen>>;
}

/// CLOCK_BOOTTIME: it goes on while the machine is suspended, and nobody sets it.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // The kernel's clock begins at zero.
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// Takes a record in, unless what is there is as new.
fn take_in(seen: &watch::Sender<Option<Seen>>, record: Record) {
    seen.send_if_modified(|last| {
        let is_newer = last.as_ref().is_none_or(|last| record.version > last.record.version);
        if is_newer {
            *last = Some(Seen { record, at: since_boot() });
        }
        is_newer
    });
}
