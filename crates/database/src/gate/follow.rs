//! Keeps the targets as control and the site's reports say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use link::control::{self, Control, Record, since_boot};
use link::report::SiteReport;
use plan::Plan;
use tokio::sync::watch;

use super::lead::{Seen, lead};
use super::targets::{self, Targets};
use super::trust::Trust;
use crate::group::{Group, KEY};

/// How long control may take over a question before it is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pause before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// For ever. What cannot be heard leaves the targets as they are, but for the record of control: one that was
/// not renewed for the time of a lease names no primary any more.
pub(crate) async fn follow(
    plan: &Plan,
    mut site: watch::Receiver<Arc<SiteReport>>,
    control: Option<Arc<dyn Control>>,
    sender: &watch::Sender<Arc<Targets>>,
    until: &Until,
) {
    let mut records = control.as_ref().map(|control| control.watch(KEY));
    let mut seen = if control.is_some() { Seen::Nothing } else { Seen::NoControl };
    let mut trust = Trust::default();
    let asked = ask(control.as_deref(), Duration::ZERO);
    tokio::pin!(asked);
    loop {
        until.set(seen.until());
        let lead = lead(&seen, since_boot());
        let next = targets::next(plan, &lead, &site.borrow_and_update(), &sender.borrow());
        sender.send_if_modified(|current| adopt(current, next));
        tokio::select! {
            () = changed(&mut site) => {}
            (sent, record) = &mut asked => {
                seen = answered(seen, &mut trust, sent, record);
                asked.set(ask(control.as_deref(), seen.ask_every()));
            }
            // What the watch brought before the first answer may be older than what control had acknowledged then.
            newer = newer(records.as_mut(), trust.version()), if seen != Seen::Nothing => {
                seen = heard(&mut trust, &newer.record);
            }
            () = run_out(&seen) => {}
        }
    }
}

/// Until when the answers of the primary may be passed on ([`super::trust`]): what every connection to it looks at.
#[derive(Debug)]
pub(crate) struct Until(AtomicU64);

impl Default for Until {
    fn default() -> Self {
        Self(AtomicU64::new(Self::FOR_EVER))
    }
}

impl Until {
    /// Where control has no record.
    const FOR_EVER: u64 = u64::MAX;

    pub(crate) fn set(&self, until: Option<Duration>) {
        let ns = until.map_or(Self::FOR_EVER, |until| until.as_nanos() as u64);
        self.0.store(ns, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        let ns = self.0.load(Ordering::Relaxed);
        ns != Self::FOR_EVER && since_boot().as_nanos() as u64 >= ns
    }
}

/// What a majority has, after a pause, and when it was asked.
async fn ask(control: Option<&dyn Control>, pause: Duration) -> (Duration, Option<Record>) {
    let Some(control) = control else { return std::future::pending().await };
    tokio::time::sleep(pause).await;
    loop {
        let sent = since_boot();
        match control.read(KEY, PATIENCE).await {
            Ok(record) => return (sent, record),
            Err(error) => tracing::debug!("who is the primary? {error}"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn answered(seen: Seen, trust: &mut Trust, sent: Duration, record: Option<Record>) -> Seen {
    let Some(record) = record else {
        trust.answered(sent, None);
        return if seen == Seen::Nothing { Seen::Absent } else { seen };
    };
    match group(&record) {
        Ok(group) if trust.answered(sent, Some((record.version, &group))) => of(group, trust),
        Ok(_) => again(seen, trust),
        Err(why) => Seen::Unreadable(why),
    }
}

fn heard(trust: &mut Trust, record: &Record) -> Seen {
    match group(record) {
        Ok(group) => {
            trust.heard(record.version, &group);
            of(group, trust)
        }
        Err(why) => {
            trust.skip(record.version);
            Seen::Unreadable(why)
        }
    }
}

fn group(record: &Record) -> Result<Box<Group>, String> {
    serde_json::from_value(record.value.clone()).map(Box::new).map_err(|error| error.to_string())
}

fn of(group: Box<Group>, trust: &Trust) -> Seen {
    Seen::Group { until: trust.until(group.lease()), group }
}

/// The record that is known already, of whose holder an answer may have told more.
fn again(seen: Seen, trust: &Trust) -> Seen {
    match seen {
        Seen::Group { group, .. } => of(group, trust),
        other => other,
    }
}

async fn newer(records: Option<&mut watch::Receiver<Option<control::Seen>>>, version: u64) -> control::Seen {
    let Some(records) = records else { return std::future::pending().await };
    let is_newer =
        |seen: &Option<control::Seen>| seen.as_ref().is_some_and(|seen| seen.record.version > version);
    match records.wait_for(is_newer).await.map(|seen| seen.clone()) {
        Ok(Some(seen)) => seen,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Returns when the lease, not renewed, has run out.
async fn run_out(seen: &Seen) {
    match seen.left(since_boot()) {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

/// Tells whether anything changed, so that connections look at it only then.
fn adopt(current: &mut Arc<Targets>, next: Targets) -> bool {
    if current.to_string() != next.to_string() {
        tracing::info!("{next}");
    }
    let changed = **current != next;
    if changed {
        *current = Arc::new(next);
    }
    changed
}
