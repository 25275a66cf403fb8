//! Making a data directory: a new cluster, or what a copy leaves; and where it is made.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use link::disk::sync_folder;

use super::{ActError, cannot};
use crate::failover::{Data, Stamp};
use crate::manager::Manager;
use crate::tool::ToolError;
use crate::{access, leftover, observe, tool};

/// initdb writes some 40 MB and syncs them.
const INITIALISE: Duration = Duration::from_secs(300);

/// A new, empty cluster, which is of no epoch yet.
pub(super) async fn initialise(manager: &mut Manager) -> Result<(), ActError> {
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
    let stamp = Stamp { system_identifier: identity(manager, &unfinished).await?, ..Stamp::default() };
    finish(manager, &unfinished, stamp)
}

async fn initdb(bin: &Path, data: &Path, locale: &str) -> Result<(), ToolError> {
    let mut command = tool::command(bin, "initdb");
    command.arg("-D").arg(data).args(["--encoding=UTF8", "--data-checksums", "--no-instructions"]);
    command.args(["--auth-local=peer", "--auth-host=scram-sha-256"]);
    command.arg(format!("--username={}", access::SUPERUSER)).arg(format!("--locale={locale}"));
    tool::run(command, INITIALISE, |_| ()).await.map(drop)
}

/// Removes what an earlier try left, and whatever still writes there.
pub(super) async fn clear(manager: &Manager) -> Result<PathBuf, ActError> {
    let unfinished = manager.folder.unfinished();
    leftover::end(&unfinished).await.map_err(cannot("end what an earlier try left behind"))?;
    remove(&unfinished).map_err(cannot("remove an unfinished data directory"))?;
    Ok(unfinished)
}

/// A whole folder, which may be absent.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Which cluster a new directory belongs to.
pub(super) async fn identity(manager: &Manager, unfinished: &Path) -> Result<u64, ActError> {
    match observe::data(unfinished, &manager.installed).await {
        Data::Present { system_identifier, .. } => Ok(system_identifier),
        other => Err(ActError::NotMade(format!("{other:?}"))),
    }
}

/// The tools have synced every file; from the rename on it is the data directory. Until the stamp is written, the
/// old one claims less.
pub(super) fn finish(manager: &mut Manager, unfinished: &Path, new: Stamp) -> Result<(), ActError> {
    let data = manager.folder.data();
    sync_folder(&unfinished.join("standby.signal"))
        .and_then(|()| std::fs::rename(unfinished, &data))
        .and_then(|()| sync_folder(&data))
        .map_err(cannot("put the new data directory in its place"))?;
    manager.data = None;
    manager.kept.mark(|stamp| *stamp = new).map_err(cannot("write the stamp of the data"))
}

/// Every start is a standby's.
pub(super) fn mark_as_standby(data: &Path) -> Result<(), ActError> {
    let signal = data.join("standby.signal");
    File::create(&signal)
        .and_then(|file| file.sync_all())
        .and_then(|()| sync_folder(&signal))
        .map_err(cannot("mark the data as a replica's"))
}
