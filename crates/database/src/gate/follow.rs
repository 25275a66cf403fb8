//! Keeps the targets as control and the site's reports say.

use std::sync::Arc;
use std::time::Duration;

use link::control::{self, Control, since_boot};
use link::report::SiteReport;
use plan::Plan;
use tokio::sync::watch;

use super::lead::{Seen, lead};
use super::targets::{self, Targets};
use crate::group::KEY;

/// How long control may take over the first question before it is asked again.
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
) {
    let mut records = control.as_ref().map(|control| control.watch(KEY));
    let mut seen = if control.is_some() { Seen::Nothing } else { Seen::NoControl };
    let mut version = control::ABSENT;
    loop {
        let lead = lead(&seen, since_boot());
        let next = targets::next(plan, &lead, &site.borrow_and_update(), &sender.borrow());
        sender.send_if_modified(|current| adopt(current, next));
        tokio::select! {
            () = changed(&mut site) => {}
            (first, at) = first(control.as_deref()), if seen == Seen::Nothing => {
                version = first.as_ref().map_or(control::ABSENT, |record| record.version);
                seen = first.map_or(Seen::Absent, |record| Seen::of(&record, at));
            }
            newer = newer(records.as_mut(), version), if seen != Seen::Nothing => {
                version = newer.record.version;
                seen = Seen::of(&newer.record, newer.at);
            }
            () = run_out(&seen) => {}
        }
    }
}

/// A record that control server happened to have may be old, so the first one is what a majority has now.
async fn first(control: Option<&dyn Control>) -> (Option<control::Record>, Duration) {
    let Some(control) = control else { return std::future::pending().await };
    loop {
        let at = since_boot();
        match control.read(KEY, PATIENCE).await {
            Ok(record) => return (record, at),
            Err(error) => tracing::debug!("who is the primary? {error}"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
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
