//! Making this server's data what the primary's is: a fresh copy, or a rewind of what is here.
//!
//! The old directory is never removed before a whole new one lies beside it, and then one is kept. A rewind that
//! did not end well leaves a ruined directory (measured: `pg_filenode.map` of length 0), so the stamp says that
//! it is worth nothing before it begins.

use std::path::Path;
use std::time::Duration;

use link::disk::sync_folder;

use super::create::{clear, finish, identity, mark_as_standby, remove};
use super::run::{start, until_consistent, write_passwords};
use super::{ActError, STOP, bin, cannot, stop};
use crate::failover::{Stamp, bytes};
use crate::manager::Manager;
use crate::settings::{primary_connection, slot};
use crate::{observe, tool};

/// A copy of a large database takes hours; a connection that died is noticed by its keepalives.
const CLONE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A rewind reads and writes what changed; one that takes this long is not faster than a copy.
const REWIND: Duration = Duration::from_secs(3600);

pub(super) async fn clone(manager: &mut Manager, from: &str, epoch: u64, major: u32) -> Result<(), ActError> {
    let unfinished = clear(manager).await?;
    copy(manager, from, major, &unfinished).await?;
    mark_as_standby(&unfinished)?;
    if manager.postgres.is_some() {
        stop(manager, STOP).await;
    }
    let system_identifier = identity(manager, &unfinished).await?;
    set_aside(manager)?;
    let stamp =
        Stamp { system_identifier, confirmed: epoch, following: epoch, spoiled: false, rewound_in: 0 };
    finish(manager, &unfinished, stamp)
}

async fn copy(manager: &Manager, from: &str, major: u32, to: &Path) -> Result<(), ActError> {
    write_passwords(manager)?;
    let address = manager.address(from)?;
    let name = &manager.start.me.name;
    let connection = primary_connection(&observe::copy_name(name), address, &manager.folder.passwords());
    let mut command = tool::command(&bin(manager, major)?, "pg_basebackup");
    command.arg("-D").arg(to).arg("-d").arg(connection);
    // The slot keeps the log for us from now on; while we stream it is in use, and a temporary one serves.
    if manager.postgres.is_none() {
        command.arg("--slot").arg(slot(name));
    }
    command.args(["--wal-method=stream", "--checkpoint=fast", "--progress", "--no-password"]);
    let copied = tool::run(command, CLONE, |line| {
        if let Some(text) = copied_so_far(line) {
            manager.say_progress(format!("copying {from}: {text}"));
        }
    });
    Ok(copied.await.map(drop)?)
}

/// `34816/122880 kB (28%), 0/1 tablespace` as `34 MB of 120 MB`.
fn copied_so_far(line: &str) -> Option<String> {
    let (done, rest) = line.split_once('/')?;
    let (total, _) = rest.split_once(" kB")?;
    let kilobytes = |text: &str| text.trim().parse::<u64>().ok().map(|number| bytes(number * 1024));
    Some(format!("{} of {}", kilobytes(done)?, kilobytes(total)?))
}

/// Whatever stands in the way of a whole copy; the one set aside before it goes.
fn set_aside(manager: &Manager) -> Result<(), ActError> {
    let (data, aside) = (manager.folder.data(), manager.folder.aside());
    if !data.exists() {
        return Ok(());
    }
    remove(&aside)
        .and_then(|()| std::fs::rename(&data, &aside))
        .and_then(|()| sync_folder(&data))
        .map_err(cannot("set the old data directory aside"))
}

pub(super) async fn rewind(
    manager: &mut Manager,
    from: &str,
    epoch: u64,
    common: u64,
) -> Result<(), ActError> {
    let spoil = |stamp: &mut Stamp| (stamp.spoiled, stamp.rewound_in) = (true, epoch);
    manager.kept.mark(spoil).map_err(cannot("write the stamp of the data"))?;
    manager.say_progress(format!("rewinding to where {from} went another way"));
    if manager.postgres.is_some() {
        stop(manager, STOP).await;
    }
    write_passwords(manager)?;
    let major = manager.major().await.ok_or(ActError::NoVersion(0))?;
    let name = observe::copy_name(&manager.start.me.name);
    let source = primary_connection(&name, manager.address(from)?, &manager.folder.passwords());
    let mut command = tool::command(&bin(manager, major)?, "pg_rewind");
    command.arg("-D").arg(manager.folder.data());
    command.arg(format!("--source-server={source} dbname=postgres"));
    let mut nothing = false;
    let rewound = tool::run(command, REWIND, |line| nothing |= line.contains("no rewind required"));
    let said = rewound.await?;
    if nothing || said.contains("no rewind required") {
        return Err(ActError::NothingRewound);
    }
    manager.data = None;
    // Until it has the log up to where the source was when it was read, the data is not consistent: it cannot
    // be started sealed.
    start(manager, major, Some(from.to_owned())).await?;
    until_consistent(manager).await?;
    let done = |stamp: &mut Stamp| {
        (stamp.spoiled, stamp.confirmed, stamp.following) = (false, common, epoch);
    };
    manager.kept.mark(done).map_err(cannot("write the stamp of the data"))
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
