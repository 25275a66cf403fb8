//! Becoming and being the primary.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::run::change;
use super::{ActError, cannot};
use crate::failover::{Names, Stamp};
use crate::group::Lsn;
use crate::manager::Manager;
use crate::session::{STEP, Session, SessionError};
use crate::setup;

/// How long postgres may take to read its settings.
const IN_FORCE: Duration = Duration::from_secs(2);

/// How long a promotion is waited for before the next look: usually it takes some 50 ms.
const PROMOTED: Duration = Duration::from_secs(1);

const LOOK_AGAIN: Duration = Duration::from_millis(3);

/// The commit of an epoch's row, which may take as long as it takes for replicas to have it.
#[derive(Debug, Default)]
pub(crate) struct EpochCommit {
    done: Arc<AtomicU64>,
    under_way: Option<(u64, JoinHandle<()>)>,
}

impl EpochCommit {
    /// By an earlier life of this process.
    pub(crate) fn made(epoch: Option<u64>) -> Self {
        Self { done: Arc::new(AtomicU64::new(epoch.unwrap_or_default())), under_way: None }
    }

    pub(crate) fn done(&self) -> Option<u64> {
        Some(self.done.load(Ordering::Acquire)).filter(|epoch| *epoch > 0)
    }

    pub(crate) fn under_way(&self) -> Option<u64> {
        let (epoch, _) = self.under_way.as_ref().filter(|(_, task)| !task.is_finished())?;
        Some(*epoch)
    }
}

impl Drop for EpochCommit {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.under_way {
            task.abort();
        }
    }
}

/// The lease binds the guard first: from here on postgres is dead when the lease is over.
pub(super) async fn promote(
    manager: &mut Manager,
    names: Names,
    epoch: u64,
    confirmed: u64,
) -> Result<(), ActError> {
    let Some(running) = &manager.postgres else { return Ok(()) };
    if !manager.holder.bind(epoch, running.guard.page()) {
        return Err(ActError::NoLease(epoch));
    }
    let note = |stamp: &mut Stamp| (stamp.confirmed, stamp.following) = (confirmed, epoch);
    manager.kept.mark(note).map_err(cannot("write the stamp of the data"))?;
    force(manager, names).await?;
    let session = manager.session().await?;
    session.ask(session.client.query_one("SELECT pg_promote(false)", &[])).await?;
    let until = Instant::now() + PROMOTED;
    let standby = "SELECT pg_is_in_recovery()";
    while session.ask(session.client.query_one(standby, &[])).await?.get(0) && Instant::now() < until {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    // It waits for replicas, which follow once control knows of the promotion: both at once.
    commit_epoch(manager, epoch);
    Ok(())
}

/// Returns when a session that is begun now sees these names.
async fn force(manager: &mut Manager, names: Names) -> Result<(), ActError> {
    change(manager, |wanted| wanted.names = names.clone())?;
    let until = Instant::now() + IN_FORCE;
    loop {
        manager.forget_session();
        let session = manager.session().await?;
        let shown = "SELECT current_setting('synchronous_standby_names')";
        let shown: String = session.ask(session.client.query_one(shown, &[])).await?.get(0);
        if shown == names.to_string() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(ActError::NotInForce { names, limit: IN_FORCE });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A walsender that has not read its settings yet releases commits by the old ones: those whose name has left are
/// ended. What was written up to then is what the new names must have.
pub(super) async fn set_names(manager: &mut Manager, names: Names) -> Result<(), ActError> {
    force(manager, names.clone()).await?;
    let keep: Vec<String> = names.members.iter().cloned().collect();
    let session = manager.session().await?;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication \
               WHERE application_name LIKE 'database-%' AND state = 'streaming' \
               AND application_name <> ALL ($1::text[])";
    session.ask(session.client.query(end, &[&keep])).await?;
    let since = "SELECT pg_current_wal_flush_lsn()::text";
    let since: String = session.ask(session.client.query_one(since, &[])).await?.get(0);
    let since: Lsn = since.parse().unwrap_or(Lsn(u64::MAX));
    if let Some(running) = &mut manager.postgres {
        running.names_since = Some((names, since));
    }
    Ok(())
}

pub(super) async fn set_up(manager: &mut Manager) -> Result<(), ActError> {
    let session = Session::open(&manager.folder, manager.place.listen.port(), STEP).await?;
    let place = &manager.place;
    setup::run(&session, &place.database, &place.others(), &manager.start.secrets).await?;
    if let Some(running) = &mut manager.postgres {
        running.set_up = true;
    }
    Ok(())
}

pub(super) fn commit_epoch(manager: &mut Manager, epoch: u64) {
    let (folder, port) = (manager.folder.clone(), manager.place.listen.port());
    let server = manager.start.me.name.clone();
    let Some(running) = &mut manager.postgres else { return };
    let commit = &mut running.epoch_commit;
    if commit.under_way() == Some(epoch) || commit.done() == Some(epoch) {
        return;
    }
    let done = Arc::clone(&commit.done);
    let task = tokio::spawn(async move {
        match setup::commit_epoch(&folder, port, epoch, &server).await {
            Ok(()) => done.store(epoch, Ordering::Release),
            Err(error) => tracing::warn!("epoch {epoch} is not committed: {error}"),
        }
    });
    if let Some((_, old)) = commit.under_way.replace((epoch, task)) {
        old.abort();
    }
}

/// So that others can be rewound to this timeline.
pub(super) fn checkpoint(manager: &mut Manager) {
    let (folder, port) = (manager.folder.clone(), manager.place.listen.port());
    let Some(running) = &mut manager.postgres else { return };
    if running.checkpoint.as_ref().is_some_and(|task| !task.is_finished()) {
        return;
    }
    running.checkpoint = Some(tokio::spawn(async move {
        let made = async {
            let session = Session::open(&folder, port, CHECKPOINT).await?;
            session.ask(session.client.batch_execute("CHECKPOINT")).await
        };
        if let Err(error) = made.await as Result<(), SessionError> {
            tracing::warn!("no checkpoint was made: {error}");
        }
    }));
}

/// A large database on a slow disk writes for minutes.
const CHECKPOINT: Duration = Duration::from_secs(1800);

/// How long a handover waits for what its end would have to write otherwise, while clients wait.
const WRITTEN_BEFORE: Duration = Duration::from_secs(5);

/// So that the checkpoint at the end, during which nobody is served, has little to write.
pub(super) async fn write_before_handover(manager: &Manager) {
    let (folder, port) = (manager.folder.clone(), manager.place.listen.port());
    let made = async {
        let session = Session::open(&folder, port, WRITTEN_BEFORE).await?;
        session.ask(session.client.batch_execute("CHECKPOINT")).await
    };
    if let Err(error) = made.await as Result<(), SessionError> {
        tracing::info!("the handover begins without a checkpoint before it: {error}");
    }
}
