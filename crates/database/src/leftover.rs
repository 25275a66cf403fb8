//! Processes of postgres that an earlier manager left on a data directory.
//!
//! When a manager is killed the kernel kills its postmaster, but a backend that is busy goes on for a moment
//! and may still write. Nothing may be started or removed until all are gone: postgres changes into its data
//! directory when it starts, so every process of it is found by its current folder: by what that folder is, not by
//! its name, since a container beside us may have the same name for another one.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};

/// How long killed processes may take to disappear; a process in an uninterruptible write takes longest.
const LIMIT: Duration = Duration::from_secs(10);

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The processes of postgres whose current folder is this one, and copies under way into it.
pub(crate) fn on(data: &Path) -> io::Result<Vec<Pid>> {
    let Some(place) = Place::of(data) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && is_on(pid, data, place)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// What a folder is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
}

impl Place {
    fn of(folder: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(folder).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Processes of other accounts cannot be looked into; ours all run under our account.
fn is_on(pid: Pid, data: &Path, place: Place) -> bool {
    let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    // The program may have been replaced by an upgrade: then the kernel adds a word to its name.
    let name = program.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    match name.trim_end_matches(" (deleted)") {
        "postgres" => Place::of(format!("/proc/{pid}/cwd").as_ref()) == Some(place),
        // Its second process, which receives the log, outlives it for a moment.
        "pg_basebackup" => std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).any(|argument| argument == data.as_os_str().as_bytes())
                && Place::of(format!("/proc/{pid}/root{}", data.display()).as_ref()) == Some(place)
        }),
        _ => false,
    }
}

/// Kills them all and waits until none is left. The future may be dropped and called again.
pub(crate) async fn end(data: &Path) -> io::Result<()> {
    let wait = async {
        loop {
            let left = on(data)?;
            if left.is_empty() {
                return Ok(());
            }
            left.into_iter().for_each(|pid| kill(pid, data));
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    match tokio::time::timeout(LIMIT, wait).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("killed processes still hold {} after {} s", data.display(), LIMIT.as_secs()),
        )),
    }
}

/// By descriptor, looked at once more after it was opened: the number may have gone to another process.
fn kill(pid: Pid, data: &Path) {
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    let Some(place) = Place::of(data) else { return };
    if is_on(pid, data, place)
        && let Err(error) = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)
    {
        tracing::debug!("process {pid} took no signal: {error}");
    }
}

/// Removes what a dead postgres left and a new one would stumble over. Only after [`end`].
pub(crate) fn remove_locks(data: &Path, sockets: &Path) -> io::Result<()> {
    remove(&data.join("postmaster.pid"))?;
    let Ok(entries) = std::fs::read_dir(sockets) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
