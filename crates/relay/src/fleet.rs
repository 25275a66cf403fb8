//! A set of targets of which each is up or down: found out by checks, and by requests that failed.
//!
//! Shared by all threads of a server: whether a target is up is one atomic read. Which of those that are up comes
//! next is not decided here.

pub mod health;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plan::{Check, Target};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::forward::error::ForwardError;
use crate::probe::probe;

use health::{Change, Health};

/// The most targets that a request can try, and so the most that a fleet may have.
pub const MEMBERS: usize = 128;

/// How often a target is checked while it is not known to be up, at most: it should come back soon.
const FAST_CHECK: Duration = Duration::from_millis(250);

/// See the head of this file.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Member>,
    check: Check,
    /// Where connections to the targets come from, when that matters.
    source: Option<IpAddr>,
    /// Grows with each change of a state.
    changes: AtomicUsize,
    changed: Notify,
}

#[derive(Debug)]
struct Member {
    target: Target,
    up: AtomicBool,
    /// Whether a connection to it failed since the last one that did not: most requests need not take the lock.
    suspect: AtomicBool,
    health: Mutex<Health>,
    hurry: Notify,
}

/// The targets that a request has tried, by index. Each is tried at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried(u128);

impl Tried {
    pub fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub fn has(&self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl Fleet {
    /// All are down until a first check says otherwise. Targets past [`MEMBERS`] are left out, and the log says so.
    /// `source` is this machine's own address where several machines share one computer.
    pub fn new(mut targets: Vec<Target>, check: Check, source: Option<IpAddr>) -> Self {
        if targets.len() > MEMBERS {
            tracing::warn!("{} servers, of which only the first {MEMBERS} are used", targets.len());
            targets.truncate(MEMBERS);
        }
        let members = targets.into_iter().map(|target| Member {
            target,
            up: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            health: Mutex::default(),
            hurry: Notify::new(),
        });
        Self {
            members: members.collect(),
            check,
            source,
            changes: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn target(&self, index: usize) -> &Target {
        &self.members[index].target
    }

    /// The source address for connections to this target: none where it could not lead there.
    pub fn source(&self, index: usize) -> Option<IpAddr> {
        let target = self.members[index].target.address.ip();
        self.source.filter(|source| {
            source.is_ipv4() == target.is_ipv4() && (!source.is_loopback() || target.is_loopback())
        })
    }

    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.members.iter().map(|member| &member.target)
    }

    pub fn is_up(&self, index: usize) -> bool {
        self.members[index].up.load(Ordering::Relaxed)
    }

    /// How many are up.
    pub fn up(&self) -> usize {
        (0..self.len()).filter(|index| self.is_up(*index)).count()
    }

    /// Whether every target was checked at least once.
    pub fn is_known(&self) -> bool {
        self.members.iter().all(|member| member.health().is_known())
    }

    /// Waits until a state changes after those that were seen: `seen` starts at 0.
    pub async fn changed(&self, seen: &mut usize) {
        loop {
            let changed = self.changed.notified();
            let changes = self.changes.load(Ordering::Acquire);
            if changes != *seen {
                *seen = changes;
                return;
            }
            changed.await;
        }
    }

    /// A request to this target failed. Enough failed connections in a row take it out until a check is good.
    pub fn failed(&self, index: usize, error: &ForwardError) {
        if !error.is_of_target() {
            return;
        }
        let member = &self.members[index];
        tracing::debug!("{}: {error}", member.target.name);
        if error.elsewhere() || matches!(error, ForwardError::FirstByteLate | ForwardError::Died { .. }) {
            member.suspect.store(true, Ordering::Relaxed);
            let change = member.health().connection_failed(&error.to_string());
            self.apply(member, change);
            member.hurry.notify_one();
        }
    }

    /// A request to this target was answered.
    pub fn served(&self, index: usize) {
        let member = &self.members[index];
        if member.suspect.load(Ordering::Relaxed) {
            member.suspect.store(false, Ordering::Relaxed);
            member.health().connection_worked();
        }
    }

    /// Checks all targets for ever. Ends only by being dropped.
    pub async fn watch(self: std::sync::Arc<Self>) {
        let mut checks = JoinSet::new();
        for index in 0..self.len() {
            let fleet = std::sync::Arc::clone(&self);
            checks.spawn(async move { fleet.watch_one(index).await });
        }
        while let Some(ended) = checks.join_next().await {
            if let Err(error) = ended {
                tracing::error!("the checks of a server ended: {error}");
            }
        }
        std::future::pending().await
    }

    async fn watch_one(&self, index: usize) {
        let member = &self.members[index];
        let within = Duration::from_millis(self.check.timeout_ms);
        let interval = Duration::from_millis(self.check.interval_ms);
        let address: SocketAddr = member.target.address;
        let host = address.to_string();
        loop {
            let (good, text) = match probe(address, self.source(index), &host, &self.check.path, within).await
            {
                Ok(status) => ((200..400).contains(&status), format!("answered {status}")),
                Err(error) => (false, error.to_string()),
            };
            let change = member.health().checked(good, &text, self.check.rise, self.check.fall);
            self.apply(member, change);
            let steady = member.up.load(Ordering::Relaxed) && good;
            let pause = if steady { interval } else { interval.min(FAST_CHECK) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = member.hurry.notified() => tokio::time::sleep(pause.min(FAST_CHECK)).await,
            }
        }
    }

    fn apply(&self, member: &Member, change: Option<Change>) {
        let Some(change) = change else { return };
        member.up.store(change.up, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::AcqRel);
        let state = if change.up { "up" } else { "down" };
        if change.up || change.first {
            tracing::info!("{} is {state}: {}", member.target.name, change.because);
        } else {
            tracing::warn!("{} is {state}: {}", member.target.name, change.because);
        }
        self.changed.notify_waiters();
    }
}

impl Member {
    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
