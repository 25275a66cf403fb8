//! The hands: each action may be cut off at any instruction and begun again.
//!
//! A data directory is made under another name and renamed when it is whole and on disk, so `data` is either
//! absent or complete. Nothing here removes `data`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use link::disk::{Access, replace, replace_json, sync_folder};

use crate::decide::{Action, bytes};
use crate::guard::{Guard, NEVER, Order};
use crate::manager::{Manager, Running};
use crate::seen::Data;
use crate::session::{STEP, Session, SessionError};
use crate::settings::{Settings, primary_connection, slot};
use crate::setup::SetupError;
use crate::tool::ToolError;
use crate::{access, leftover, log_file, observe, settings, setup, synchrony, tool};

/// For tools that only read.
pub(crate) const QUICK_TOOL: Duration = Duration::from_secs(30);

/// initdb writes some 40 MB and syncs them.
const INITIALISE: Duration = Duration::from_secs(300);

/// A copy of a large database takes hours; a connection that died is noticed by its keepalives.
const CLONE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a postgres that must not run may take to stop.
const STOP: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    #[error("cannot {what}: {error}")]
    Io { what: &'static str, error: io::Error },
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("cannot set up the primary: {0}")]
    Setup(#[from] SetupError),
    #[error("cannot set up the primary: {0}")]
    Session(#[from] SessionError),
    #[error("PostgreSQL {0} is not installed")]
    NoVersion(u32),
}

fn cannot(what: &'static str) -> impl Fn(io::Error) -> ActError {
    move |error| ActError::Io { what, error }
}

/// Carries one action out.
pub(crate) async fn act(manager: &mut Manager, action: Action) -> Result<(), ActError> {
    match action {
        Action::Wait => Ok(()),
        Action::EndLeftovers => {
            let ended = leftover::end(&manager.folder.data()).await;
            ended.map_err(cannot("end what an earlier manager left behind"))
        }
        Action::Initialise => initialise(manager).await,
        Action::Clone { major } => clone(manager, major).await,
        Action::Start { major } => start(manager, major).await,
        Action::SetUp => set_up(manager).await,
        Action::SetSynchronous(waits) => set_synchronous(manager, waits),
        Action::Stop => {
            stop(manager, STOP).await;
            Ok(())
        }
    }
}

/// The name of the account that we run under, from the system's own list of accounts.
pub(crate) async fn account() -> Result<String, ToolError> {
    let mut command = tool::command(Path::new(""), "id");
    command.arg("-un");
    Ok(tool::run(command, QUICK_TOOL, |_| ()).await?.trim().to_owned())
}

async fn initialise(manager: &mut Manager) -> Result<(), ActError> {
    let unfinished = clear(manager).await?;
    let newest = &manager.installed[0].bin;
    match initdb(newest, &unfinished, "C.UTF-8").await {
        // Sorted by code point, the same on every system and after every upgrade of its C library; the few
        // systems without that locale have C.
        Err(ToolError::Failed { said, .. }) if said.contains("locale") => {
            clear(manager).await?;
            initdb(newest, &unfinished, "C").await?;
        }
        other => other?,
    }
    finish(manager, &unfinished)
}

async fn initdb(bin: &Path, data: &Path, locale: &str) -> Result<(), ToolError> {
    let mut command = tool::command(bin, "initdb");
    command.arg("-D").arg(data).args(["--encoding=UTF8", "--data-checksums", "--no-instructions"]);
    command.args(["--auth-local=peer", "--auth-host=scram-sha-256"]);
    command.arg(format!("--username={}", access::SUPERUSER)).arg(format!("--locale={locale}"));
    tool::run(command, INITIALISE, |_| ()).await.map(drop)
}

async fn clone(manager: &mut Manager, major: u32) -> Result<(), ActError> {
    let unfinished = clear(manager).await?;
    write_passwords(manager)?;
    let Some((primary, address)) = &manager.place.primary else { return Ok(()) };
    let name = &manager.start.me.name;
    let mut command = tool::command(&bin(manager, major)?, "pg_basebackup");
    let connection = primary_connection(&observe::copy_name(name), *address, &manager.folder.passwords());
    command.arg("-D").arg(&unfinished).arg("-d").arg(connection).arg("--slot").arg(slot(name));
    command.args(["--wal-method=stream", "--checkpoint=fast", "--progress", "--no-password"]);
    let copied = tool::run(command, CLONE, |line| {
        if let Some(text) = copied_so_far(line) {
            manager.say_progress(format!("copying {primary}: {text}"));
        }
    });
    copied.await?;
    File::create(unfinished.join("standby.signal"))
        .and_then(|file| file.sync_all())
        .map_err(cannot("mark the copy as a replica's"))?;
    finish(manager, &unfinished)
}

/// `34816/122880 kB (28%), 0/1 tablespace` as `34 MB of 120 MB`.
fn copied_so_far(line: &str) -> Option<String> {
    let (done, rest) = line.split_once('/')?;
    let (total, _) = rest.split_once(" kB")?;
    let kilobytes = |text: &str| text.trim().parse::<u64>().ok().map(|number| bytes(number * 1024));
    Some(format!("{} of {}", kilobytes(done)?, kilobytes(total)?))
}

/// Removes what an earlier try left, and whatever still writes there.
async fn clear(manager: &Manager) -> Result<PathBuf, ActError> {
    let unfinished = manager.folder.unfinished();
    leftover::end(&unfinished).await.map_err(cannot("end what an earlier try left behind"))?;
    match std::fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(cannot("remove an unfinished data directory")(error))
        }
        _ => Ok(unfinished),
    }
}

/// The tools have synced every file; from the rename on it is the data directory.
fn finish(manager: &mut Manager, unfinished: &Path) -> Result<(), ActError> {
    let data = manager.folder.data();
    sync_folder(&unfinished.join("standby.signal"))
        .and_then(|()| std::fs::rename(unfinished, &data))
        .and_then(|()| sync_folder(&data))
        .map_err(cannot("put the new data directory in its place"))?;
    manager.data = None;
    Ok(())
}

async fn start(manager: &mut Manager, major: u32) -> Result<(), ActError> {
    remember_identity(manager)?;
    let folder = &manager.folder;
    // Only now that no process of this data directory lives; a number in there may be somebody else's by now.
    leftover::remove_locks(&folder.data(), &folder.socket_folder()).map_err(cannot("remove stale locks"))?;
    write_settings(manager)?;
    let log = log_file::open(&folder.log()).map_err(cannot("open the log of postgres"))?;
    let log_from = log.metadata().map_or(0, |metadata| metadata.len());
    let mut command = tool::command(&bin(manager, major)?, "postgres");
    command.arg("-D").arg(folder.data());
    command.arg("-c").arg(format!("config_file={}", folder.settings().display()));
    let guard = Guard::start(&command, log, manager.fence, NEVER).await.map_err(cannot("start postgres"))?;
    manager.set_up = false;
    manager.postgres = Some(Running { guard, since: Instant::now(), answered: false, log_from });
    Ok(())
}

/// From the first start on it is known whose data this is.
fn remember_identity(manager: &mut Manager) -> Result<(), ActError> {
    let Some(Data::Present { system_identifier, .. }) = &manager.data else { return Ok(()) };
    if manager.memory.system_identifier != Some(*system_identifier) {
        manager.memory.system_identifier = Some(*system_identifier);
        write_memory(manager)?;
    }
    Ok(())
}

async fn set_up(manager: &mut Manager) -> Result<(), ActError> {
    let session = Session::open(&manager.folder, manager.place.listen.port(), STEP).await?;
    let place = &manager.place;
    setup::run(&session, &place.database, &place.replicas, &manager.start.secrets).await?;
    manager.set_up = true;
    Ok(())
}

/// Remembered before it is in force: a crash in between leaves commits waiting, never unprotected.
fn set_synchronous(manager: &mut Manager, waits: bool) -> Result<(), ActError> {
    if manager.memory.synchronous != waits {
        manager.memory.synchronous = waits;
        write_memory(manager)?;
    }
    write_settings(manager)?;
    if let Some(running) = &manager.postgres {
        running.guard.order(Order::Reload);
    }
    Ok(())
}

fn write_memory(manager: &Manager) -> Result<(), ActError> {
    let path = manager.folder.memory();
    replace_json(&path, &manager.memory, Access::Owner).map_err(cannot("write memory.json"))
}

/// All that postgres reads when it starts or is told to read again.
fn write_settings(manager: &Manager) -> Result<(), ActError> {
    let (place, folder) = (&manager.place, &manager.folder);
    let waits = synchrony::wanted(place.synchronous, &place.replicas, manager.memory.synchronous, false);
    let text = settings::render(&Settings {
        name: &manager.start.me.name,
        listen: place.listen,
        folder,
        synchronous_names: &synchrony::names(waits, &place.replicas),
        primary: place.primary.as_ref().map(|(_, address)| *address),
        user: &place.settings,
    });
    write_passwords(manager)?;
    let rules = access::rules(&manager.start.plan, &place.database);
    let accounts = access::accounts(&manager.account);
    for (path, text) in [(folder.access(), rules), (folder.accounts(), accounts), (folder.settings(), text)] {
        replace(&path, text.as_bytes(), Access::Owner).map_err(cannot("write the settings"))?;
    }
    Ok(())
}

/// For libpq, which reads the password from a file of ours alone rather than from an argument list.
fn write_passwords(manager: &Manager) -> Result<(), ActError> {
    let Some(password) = manager.start.secrets.get("replication-password") else { return Ok(()) };
    let line = access::password_line(password.reveal());
    replace(&manager.folder.passwords(), line.as_bytes(), Access::Owner).map_err(cannot("write the passfile"))
}

fn bin(manager: &Manager, major: u32) -> Result<PathBuf, ActError> {
    let of_major = manager.installed.iter().find(|postgres| postgres.version.major == major);
    of_major.map(|postgres| postgres.bin.clone()).ok_or(ActError::NoVersion(major))
}

/// Ends postgres within this time: fast (clients are cut, replicas receive everything), then immediate, then
/// by force. What is cut short is mended by crash recovery at the next start.
pub(crate) async fn stop(manager: &mut Manager, within: Duration) {
    if let Some(running) = &mut manager.postgres {
        let steps = [(Order::Fast, 0.7), (Order::Immediate, 0.2), (Order::Kill, 0.1)];
        for (order, share) in steps {
            running.guard.order(order);
            let limit = within.mul_f32(share);
            if tokio::time::timeout(limit, running.guard.wait()).await.is_ok() {
                break;
            }
            tracing::warn!("postgres did not stop within {:.1} s of {order:?}", limit.as_secs_f32());
        }
    }
    manager.forget_postgres();
    if let Err(error) = leftover::end(&manager.folder.data()).await {
        tracing::warn!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_pg_basebackup() {
        let check = |line, expect| assert_eq!(copied_so_far(line).as_deref(), expect);
        check("34816/122880 kB (28%), 0/1 tablespace", Some("34 MB of 120 MB"));
        check("    0/23081 kB (0%), 0/1 tablespace (/a/b)", Some("0 bytes of 22 MB"));
        check("pg_basebackup: error: could not connect", None);
        check("waiting for checkpoint", None);
    }
}
