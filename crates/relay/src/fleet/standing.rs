//! What a fleet knows of one target.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plan::Target;
use tokio::sync::Notify;

use super::connections::Connections;
use super::ejection::Ejection;
use super::health::Health;
use super::place::Place;

/// What is known of a target. A fleet that follows another one goes on with it, and requests that the other one
/// still has under way speak for or against the target as before.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) place: Place,
    /// Whether it is in rotation, as far as checks and requests go.
    pub(super) up: AtomicBool,
    /// How often checks have taken it out.
    pub(super) losses: AtomicU32,
    /// Since when, where that matters: until its slow start is over. 0: long ago.
    pub(super) up_since_ms: AtomicU64,
    /// Whether a request to it failed since the last one that did not: most requests need not take the lock.
    pub(super) suspect: AtomicBool,
    pub(super) seen: Mutex<Seen>,
    pub(super) hurry: Notify,
    /// How often it came or went.
    pub(super) changes: AtomicU64,
    pub(super) connections: Arc<Connections>,
}

/// What checks and requests say of a target.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) health: Health,
    pub(super) ejection: Ejection,
}

impl Seen {
    pub(super) fn is_in(&self) -> bool {
        self.health.up() == Some(true) && !self.ejection.is_out()
    }
}

impl Standing {
    pub(super) fn of(target: &Target) -> Self {
        Self {
            place: Place::of(target),
            up: AtomicBool::new(false),
            losses: AtomicU32::new(0),
            up_since_ms: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
            seen: Mutex::default(),
            hurry: Notify::new(),
            changes: AtomicU64::new(0),
            connections: Arc::new(Connections::new(target.max_connections)),
        }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
