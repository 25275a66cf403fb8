//! Starting and ending postgres, and whom it follows: its settings, always written before it reads them.

use std::time::{Duration, Instant};

use link::disk::{Access, replace_for_now};

use super::create::mark_as_standby;
use super::{ActError, bin, cannot};
use crate::failover::{Data, Stamp};
use crate::guard::{Guard, NEVER, Order};
use crate::manager::{Manager, Running};
use crate::settings::{self, Settings};
use crate::{access, leftover, log_file, tool};

/// How long a WAL receiver may take to go before the next look is asked.
const SEAL: Duration = Duration::from_secs(1);

const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How often a postgres that cannot answer yet is asked.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How long a rewound server may take to fetch and replay what it lacks to be consistent.
const CONSISTENT: Duration = Duration::from_secs(600);

/// How long killed processes may take to go before the guard itself is killed.
const KILL: Duration = Duration::from_secs(2);

/// As a standby, whatever it was: sealed, unless somebody is named to follow.
pub(super) async fn start(
    manager: &mut Manager,
    major: u32,
    follows: Option<String>,
) -> Result<(), ActError> {
    if let Some(Data::Present { system_identifier, .. }) = manager.data {
        manager.kept.remember(system_identifier).map_err(cannot("remember whose data this is"))?;
    }
    let folder = manager.folder.clone();
    // Only now that no process of this data directory lives; a number in there may be somebody else's by now.
    leftover::remove_locks(&folder.data(), &folder.socket_folder()).map_err(cannot("remove stale locks"))?;
    mark_as_standby(&folder.data())?;
    let wanted = Wanted { follows, since: Some(Instant::now()), ..Wanted::default() };
    write_settings(manager, &wanted)?;
    let log = log_file::open(&folder.log()).map_err(cannot("open the log of postgres"))?;
    let log_from = log.metadata().map_or(0, |metadata| metadata.len());
    let mut command = tool::command(&bin(manager, major)?, "postgres");
    command.arg("-D").arg(folder.data());
    command.arg("-c").arg(format!("config_file={}", folder.settings().display()));
    let guard = Guard::start(&command, log, manager.fence, NEVER).await.map_err(cannot("start postgres"))?;
    manager.postgres = Some(Running::new(guard, log_from, wanted, manager.place.others()));
    Ok(())
}

/// Until it takes connections: a standby does when its data is consistent.
pub(super) async fn until_consistent(manager: &mut Manager) -> Result<(), ActError> {
    let until = Instant::now() + CONSISTENT;
    loop {
        let Some(running) = &mut manager.postgres else { return Err(ActError::Ended) };
        if running.guard.try_wait().map_err(cannot("watch postgres"))?.is_some() {
            return Err(ActError::Ended);
        }
        match manager.session().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= until => return Err(error.into()),
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

/// What the settings file says beyond the plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// None: sealed.
    pub(crate) follows: Option<String>,
    /// Since when.
    pub(crate) since: Option<Instant>,
    pub(crate) names: crate::failover::Names,
}

pub(super) async fn follow(
    manager: &mut Manager,
    server: &str,
    epoch: u64,
    confirmed: u64,
) -> Result<(), ActError> {
    let note = |stamp: &mut Stamp| (stamp.confirmed, stamp.following) = (confirmed, epoch);
    manager.kept.mark(note).map_err(cannot("write the stamp of the data"))?;
    let server = Some(server.to_owned());
    change(manager, |wanted| {
        if wanted.follows != server {
            wanted.since = Some(Instant::now());
        }
        wanted.follows = server;
    })
}

/// On disk first, so that a restart stays sealed; then until no WAL receiver is left.
pub(super) async fn seal(manager: &mut Manager) -> Result<(), ActError> {
    change(manager, |wanted| (wanted.follows, wanted.since) = (None, Some(Instant::now())))?;
    let until = Instant::now() + SEAL;
    let session = manager.session().await?;
    // A query that runs here may hold the replay of the log up for as long as max_standby_archive_delay.
    let readers = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND application_name <> 'dolmen'";
    session.ask(session.client.query(readers, &[])).await?;
    let receiver = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)";
    while session.ask(session.client.query_one(receiver, &[])).await?.get(0) && Instant::now() < until {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Writes other settings and has postgres read them. What a session saw before does not count any more.
pub(super) fn change(manager: &mut Manager, change: impl FnOnce(&mut Wanted)) -> Result<(), ActError> {
    let Some(running) = &mut manager.postgres else { return Ok(()) };
    let mut wanted = running.wanted.clone();
    change(&mut wanted);
    running.wanted = wanted.clone();
    write_settings(manager, &wanted)?;
    manager.forget_session();
    if let Some(running) = &manager.postgres {
        running.guard.order(Order::Reload);
    }
    Ok(())
}

/// Has postgres read what the plan says now.
pub(crate) fn read_again(manager: &mut Manager) -> Result<(), ActError> {
    change(manager, |_| {})
}

/// All that postgres reads when it starts or is told to read again. Every start writes it anew, so that nobody waits
/// for the disk here, in the middle of an election.
fn write_settings(manager: &Manager, wanted: &Wanted) -> Result<(), ActError> {
    let (place, folder) = (&manager.place, &manager.folder);
    let primary = wanted.follows.as_deref().map(|server| manager.address(server)).transpose()?;
    let text = settings::render(&Settings {
        name: &manager.start.me.name,
        listen: place.listen,
        folder,
        synchronous_names: &wanted.names.to_string(),
        primary,
        user: &place.settings,
    });
    write_passwords(manager)?;
    let rules = access::rules(&manager.start.plan, &manager.going, &place.database);
    let accounts = access::accounts(&manager.account);
    for (path, text) in [(folder.access(), rules), (folder.accounts(), accounts), (folder.settings(), text)] {
        replace_for_now(&path, text.as_bytes(), Access::Owner).map_err(cannot("write the settings"))?;
    }
    Ok(())
}

/// For libpq, which reads the password from a file of ours alone rather than from an argument list.
pub(super) fn write_passwords(manager: &Manager) -> Result<(), ActError> {
    let Some(password) = manager.start.secrets.get("replication-password") else { return Ok(()) };
    let line = access::password_line(password.reveal());
    replace_for_now(&manager.folder.passwords(), line.as_bytes(), Access::Owner)
        .map_err(cannot("write the passfile"))
}

/// Ends postgres within this time: fast (clients are cut, replicas receive everything), then immediate, then
/// by force. What is cut short is mended by crash recovery at the next start.
pub(crate) async fn stop(manager: &mut Manager, within: Duration) {
    if let Some(running) = &mut manager.postgres {
        for (order, share) in [(Order::Fast, 0.8), (Order::Immediate, 0.2)] {
            running.guard.order(order);
            let limit = within.mul_f32(share);
            if tokio::time::timeout(limit, running.guard.wait()).await.is_ok() {
                break;
            }
            tracing::warn!("postgres did not stop within {:.1} s of {order:?}", limit.as_secs_f32());
        }
    }
    end_by_force(manager).await;
}

/// SIGKILL to every process of postgres; returns when none is left, or after saying which are.
pub(crate) async fn end_by_force(manager: &mut Manager) {
    if let Some(running) = &mut manager.postgres {
        running.guard.order(Order::Kill);
        if tokio::time::timeout(KILL, running.guard.wait()).await.is_err() {
            running.guard.kill();
        }
    }
    manager.forget_postgres();
    if let Err(error) = leftover::end(&manager.folder.data()).await {
        tracing::warn!("{error}");
    }
}
