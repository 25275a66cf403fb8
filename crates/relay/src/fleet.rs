//! A set of targets of which each is up or down: found out by checks, and by requests that failed. Either can take
//! one out of rotation; both must agree that it is in.
//!
//! Shared by all threads of a server: whether a target is up is one atomic read. Which of those that are up comes
//! next is not decided here.

pub(crate) mod connections;
pub mod ejection;
pub mod health;
mod names;
pub mod pace;
mod place;
mod question;
pub mod resolve;
mod standing;
mod tried;

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plan::{Check, Eject, Target};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::alarm::Alarm;
use crate::forward::error::ForwardError;
use crate::forward::way::Way;
use crate::secure::Secured;

use resolve::Resolver;
use standing::{Seen, Standing};

pub use tried::Tried;

/// The most targets that a request can try, and so the most that a fleet may have.
pub const MEMBERS: usize = 128;

/// See the head of this file.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Member>,
    check: Check,
    eject: Eject,
    slow_start_ms: u64,
    resolver: Resolver,
    /// How often names are asked for again.
    resolve_ms: u64,
    /// Where connections to the targets come from, when that matters.
    source: Option<IpAddr>,
    alarm: Alarm,
    common: Arc<Common>,
}

/// What a fleet has in common with the one that it follows.
#[derive(Debug)]
struct Common {
    /// What all times are counted from.
    began: Instant,
    /// Held while a target is ejected, so that no two are where one may be.
    ejecting: Mutex<()>,
    /// Grows with each change of a state.
    changes: AtomicUsize,
    changed: Notify,
}

#[derive(Debug)]
struct Member {
    target: Target,
    /// Whether it was ordered out of rotation.
    drained: bool,
    /// How to connect to it where not without TLS.
    secured: Option<Secured>,
    standing: Arc<Standing>,
}

impl Fleet {
    /// All are down until a first check says otherwise. Targets past [`MEMBERS`] are left out, and the log says so.
    /// `source` is this machine's own address where several machines share one computer.
    pub fn new(mut targets: Vec<Target>, check: Check, source: Option<IpAddr>) -> Self {
        if targets.len() > MEMBERS {
            tracing::warn!("{} servers, of which only the first {MEMBERS} are used", targets.len());
            targets.truncate(MEMBERS);
        }
        let members = targets.into_iter().map(|target| {
            let standing = Arc::new(Standing::of(&target));
            Member { target, drained: false, secured: None, standing }
        });
        let common = Common {
            began: Instant::now(),
            ejecting: Mutex::default(),
            changes: AtomicUsize::new(0),
            changed: Notify::new(),
        };
        Self {
            members: members.collect(),
            check,
            eject: Eject::default(),
            slow_start_ms: 0,
            resolver: Resolver::default(),
            resolve_ms: plan::RESOLVE_MS,
            source,
            alarm: Alarm::default(),
            common: Arc::new(common),
        }
    }

    /// Ejects by this rule, in place of the usual one.
    pub fn ejecting(self, eject: Eject) -> Self {
        Self { eject, ..self }
    }

    /// Lets the weight of a target that came up grow for this long.
    pub fn starting_slowly(self, slow_start_ms: u64) -> Self {
        Self { slow_start_ms, ..self }
    }

    /// Asks for names there, and so often.
    pub fn resolving(self, resolver: Resolver, resolve_ms: u64) -> Self {
        Self { resolver, resolve_ms, ..self }
    }

    /// Rings when a target came or went.
    pub fn alarming(self, alarm: Alarm) -> Self {
        Self { alarm, ..self }
    }

    /// Connects in TLS to the targets for which this says how.
    pub fn secured<S: Into<Secured>, E>(
        mut self,
        how: impl Fn(&Target) -> Result<Option<S>, E>,
    ) -> Result<Self, E> {
        for member in &mut self.members {
            member.secured = how(&member.target)?.map(Into::into);
        }
        Ok(self)
    }

    /// Goes on with what is known of the targets that stay.
    pub fn following(mut self, before: &Fleet) -> Self {
        for member in &mut self.members {
            if let Some(old) = before.index_of(&member.target) {
                member.standing = Arc::clone(&before.members[old].standing);
                member.connections.adjust(member.target.max_connections);
            }
        }
        Self { common: Arc::clone(&before.common), ..self }
    }

    /// The target of this fleet that is the same as one of a later plan.
    pub fn index_of(&self, later: &Target) -> Option<usize> {
        let is_same = |old: &Target| {
            (&old.name, old.address, &old.lookup) == (&later.name, later.address, &later.lookup)
        };
        self.targets().position(is_same)
    }

    /// Takes the targets of these names out of rotation, whatever checks say.
    pub fn without(mut self, drained: &[String]) -> Self {
        for member in &mut self.members {
            member.drained = drained.contains(&member.target.name);
        }
        self
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

    /// The way to this target, as things are now.
    pub fn way(&self, index: usize) -> Way<'_> {
        let member = &self.members[index];
        let (losses, connections) = (self.losses(index), Some(&member.connections));
        let (target, source) = (self.address(index), self.source(index));
        Way { losses, connections, secured: member.secured.as_ref(), ..Way::new(target, source) }
    }

    fn address(&self, index: usize) -> SocketAddr {
        let member = &self.members[index];
        member.place.now().unwrap_or(member.target.address)
    }

    /// Whether this target has a name that leads to no address for it.
    pub fn is_vacant(&self, index: usize) -> bool {
        self.members[index].place.now().is_none()
    }

    /// How often its checks have taken this target out of rotation.
    pub fn losses(&self, index: usize) -> u32 {
        self.members[index].losses.load(Ordering::Relaxed)
    }

    /// The source address for connections to this target: none where it could not lead there.
    pub fn source(&self, index: usize) -> Option<IpAddr> {
        self.source_to(self.address(index).ip())
    }

    fn source_to(&self, target: IpAddr) -> Option<IpAddr> {
        self.source.filter(|source| {
            source.is_ipv4() == target.is_ipv4() && (!source.is_loopback() || target.is_loopback())
        })
    }

    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.members.iter().map(|member| &member.target)
    }

    /// Whether it is in rotation.
    pub fn is_up(&self, index: usize) -> bool {
        let member = &self.members[index];
        !member.drained && member.up.load(Ordering::Relaxed)
    }

    /// Whether it was ordered out of rotation.
    pub fn is_drained(&self, index: usize) -> bool {
        self.members[index].drained
    }

    /// Its weight at this time. Only weights of one fleet at one time can be compared.
    pub fn weight(&self, index: usize, now: Instant) -> u32 {
        let member = &self.members[index];
        if self.slow_start_ms == 0 {
            return member.target.weight;
        }
        let percent = match member.up_since_ms.load(Ordering::Relaxed) {
            0 => 100,
            since_ms => pace::ramp(self.ms(now).saturating_sub(since_ms), self.slow_start_ms),
        };
        member.target.weight * percent
    }

    /// How many are up.
    pub fn up(&self) -> usize {
        (0..self.len()).filter(|index| self.is_up(*index)).count()
    }

    /// How often this target came or went.
    pub fn changes_of(&self, index: usize) -> u64 {
        self.members[index].changes.load(Ordering::Relaxed)
    }

    /// Whether every target was checked at least once.
    pub fn is_known(&self) -> bool {
        self.members.iter().all(|member| member.seen().health.is_known())
    }

    /// Waits until a state changes after those that were seen: `seen` starts at 0.
    pub async fn changed(&self, seen: &mut usize) {
        loop {
            let changed = self.common.changed.notified();
            let changes = self.common.changes.load(Ordering::Acquire);
            if changes != *seen {
                *seen = changes;
                return;
            }
            changed.await;
        }
    }

    /// A request to this target failed. Enough that failed in a row take it out for a while.
    pub fn failed(&self, index: usize, error: &ForwardError) {
        if !error.is_of_target() {
            return;
        }
        tracing::debug!("{}: {error}", self.members[index].target.name);
        let counts = match error {
            // Its checks have spoken already.
            ForwardError::Lost => false,
            // That may be of the one request, as an answer of 500 may.
            ForwardError::BadResponse(_) | ForwardError::Truncated | ForwardError::BodyLate => {
                self.eject.statuses
            }
            _ => true,
        };
        if counts {
            self.speak_against(index, &error.to_string());
        }
    }

    /// A request to this target was answered, with this status.
    pub fn answered(&self, index: usize, status: u16) {
        if status >= 500 && self.eject.statuses {
            self.speak_against(index, &format!("answered {status}"));
        } else {
            self.served(index);
        }
    }

    /// A request to this target was answered.
    pub fn served(&self, index: usize) {
        let member = &self.members[index];
        if member.suspect.load(Ordering::Relaxed) {
            member.suspect.store(false, Ordering::Relaxed);
            member.seen().ejection.worked();
        }
    }

    fn speak_against(&self, index: usize, text: &str) {
        let member = &self.members[index];
        member.suspect.store(true, Ordering::Relaxed);
        let one_at_a_time = self.common.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let all = (0..self.len()).filter(|index| !self.is_vacant(*index)).count();
        let room = ejection::has_room(&self.eject, all, all.saturating_sub(self.up()));
        let now_ms = self.ms(Instant::now());
        let mut seen = member.seen();
        // What its checks have taken out need not be ejected, too.
        let room = room && seen.health.up() == Some(true);
        let because = seen.ejection.failed(&self.eject, now_ms, room, text);
        if let Some(because) = because {
            self.apply(member, &seen, &because, false);
        }
        drop((seen, one_at_a_time));
        member.hurry.notify_one();
    }

    /// Checks all targets for ever. Ends only by being dropped.
    pub async fn watch(self: Arc<Self>) {
        let mut checks = JoinSet::new();
        for index in 0..self.len() {
            let fleet = Arc::clone(&self);
            checks.spawn(async move { fleet.watch_one(index).await });
        }
        for name in self.names() {
            let fleet = Arc::clone(&self);
            checks.spawn(async move { fleet.follow(&name).await });
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
        for number in 0_u64.. {
            let good = self.check_one(member).await;
            let steady = good && member.up.load(Ordering::Relaxed);
            let interval_ms = if steady { self.check.interval_ms } else { self.check.fast_interval_ms };
            let lot = crate::thread::mix(number ^ (index as u64) << 48);
            self.wait(member, pace::pause(interval_ms, lot)).await;
        }
    }

    /// Checks it where it is, or where it is to go. Whether that was good.
    async fn check_one(&self, member: &Member) -> bool {
        if let Some(next) = member.place.next() {
            let Some(asked) = self.ask_at(member, next).await else { return false };
            if asked.is_ok() || !member.up.load(Ordering::Relaxed) {
                tracing::info!("{} is now at {next}", member.target.name);
                member.place.arrive();
                self.checked(member, asked.as_deref());
                return asked.is_ok();
            }
        }
        let Some(now) = member.place.now() else { return false };
        let Some(asked) = self.ask_at(member, now).await else { return false };
        self.checked(member, asked.as_deref());
        asked.is_ok()
    }

    /// None: it could not be asked, for which it can do nothing.
    async fn ask_at(&self, member: &Member, address: SocketAddr) -> Option<Result<String, String>> {
        let name = member.target.lookup.as_deref();
        let _held = member.connections.hold();
        let source = self.source_to(address.ip());
        question::check(address, source, member.secured.as_ref(), name, &self.check).await
    }

    /// Until the next check: sooner when a request failed, and with an eye on the end of an ejection.
    async fn wait(&self, member: &Member, pause: Duration) {
        let mut end = tokio::time::Instant::now() + pause;
        let fast = Duration::from_millis(self.check.fast_interval_ms);
        loop {
            let out_until_ms = member.seen().ejection.until_ms();
            let back = out_until_ms
                .map(|ms| tokio::time::Instant::from_std(self.common.began) + Duration::from_millis(ms));
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                () = tokio::time::sleep_until(back.unwrap_or(end)), if back.is_some() => self.bring_back(member),
                () = member.hurry.notified() => end = end.min(tokio::time::Instant::now() + fast),
            }
        }
    }

    fn bring_back(&self, member: &Member) {
        let mut seen = member.seen();
        let because = seen.ejection.due(&self.eject, self.ms(Instant::now()));
        if let Some(because) = because {
            // The first answer must be seen, to end the trial.
            member.suspect.store(true, Ordering::Relaxed);
            self.apply(member, &seen, &because, false);
        }
    }

    fn checked(&self, member: &Member, asked: Result<&str, &String>) {
        let text = asked.unwrap_or_else(|why| why);
        let mut seen = member.seen();
        let change = seen.health.checked(asked.is_ok(), text, self.check.rise, self.check.fall);
        if let Some(change) = change {
            if !change.up {
                member.losses.fetch_add(1, Ordering::Relaxed);
                seen.ejection.superseded();
            }
            self.apply(member, &seen, &change.because, change.first);
        }
    }

    /// Makes known what was decided, and why.
    fn apply(&self, member: &Member, seen: &Seen, because: &str, first: bool) {
        let is_in = seen.is_in();
        if is_in && !member.up.load(Ordering::Relaxed) {
            let since_ms = if first { 0 } else { self.ms(Instant::now()).max(1) };
            member.up_since_ms.store(since_ms, Ordering::Relaxed);
        }
        member.up.store(is_in, Ordering::Relaxed);
        member.changes.fetch_add(1, Ordering::Relaxed);
        self.common.changes.fetch_add(1, Ordering::AcqRel);
        let (name, state) = (&member.target.name, if is_in { "up" } else { "down" });
        if is_in || first {
            tracing::info!("{name} is {state}: {because}");
        } else {
            tracing::warn!("{name} is {state}: {because}");
        }
        self.common.changed.notify_waiters();
        self.alarm.ring();
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.common.began).as_millis() as u64
    }
}

impl Deref for Member {
    type Target = Standing;

    fn deref(&self) -> &Standing {
        &self.standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the checks of one pool saw must not cost another its idle connections.
    #[test]
    fn one_server_in_two_fleets_has_connections_of_each() {
        let fleet = || Fleet::new(vec![target()], planned(), None);
        let (web, api) = (fleet(), fleet());
        assert_ne!(web.way(0).route(), api.way(0).route());
        let next = fleet().following(&web);
        assert_eq!(web.way(0).route(), next.way(0).route());
    }

    fn target() -> Target {
        Target {
            name: "a".to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            lookup: None,
            machine: None,
            weight: 1,
            backup: false,
            max_connections: None,
        }
    }

    pub(super) fn planned() -> Check {
        let text = r#"{"path":"/","interval_ms":2000,"timeout_ms":1000,"rise":2,"fall":3}"#;
        serde_json::from_str(text).unwrap()
    }
}
