//! Processes that workers left: children that began a session of their own, and those of a killed app server.
//!
//! The kernel ends the workers themselves with their app server, but not the children of a worker. An app server
//! finds those by the mark in their environment and ends them, when it begins, before it starts workers of its
//! own that would compete with them, and when it ends. Those of another process of the same server that is still
//! alive, because it takes over from that one, are none of its business.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};

use crate::environment::{MARK, OWNER};

/// How long a killed process may take to be gone; only one stuck in the kernel takes longer than a moment.
const LIMIT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// Whose processes are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Of any process of this server.
    All,
    /// Of processes of this server that have ended.
    OfTheDead,
    /// Of this very process.
    Mine,
}

/// Ends the processes that carry the mark of this folder, and says how many there were.
pub(crate) fn end(folder: &Path, whose: Whose) -> usize {
    let mark = [MARK.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
    let deadline = Instant::now() + LIMIT;
    let mut count = 0;
    loop {
        let found = marked(&mark, whose);
        count = count.max(found.len());
        for process in &found {
            if let Err(errno) = kill_process(*process, Signal::KILL) {
                tracing::debug!("process {process} cannot be killed: {errno}");
            }
        }
        if found.is_empty() || Instant::now() > deadline {
            return count;
        }
        std::thread::sleep(LOOK);
    }
}

fn marked(mark: &[u8], whose: Whose) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pid = |entry: fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
    entries.flatten().filter_map(pid).filter(|pid| *pid != getpid() && has(*pid, mark, whose)).collect()
}

/// Whether the process began with this in its environment. Those of other accounts cannot be read, and are
/// none of ours.
fn has(pid: Pid, mark: &[u8], whose: Whose) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let all = environment.split(|byte| *byte == 0);
    let owner = || {
        let owner = all.clone().find_map(|one| one.strip_prefix(OWNER.as_bytes())?.strip_prefix(b"="));
        owner.and_then(|owner| Pid::from_raw(str::from_utf8(owner).ok()?.parse().ok()?))
    };
    all.clone().any(|one| one == mark)
        && match whose {
            Whose::All => true,
            Whose::OfTheDead => owner().is_none_or(|owner| !Path::new(&format!("/proc/{owner}")).exists()),
            Whose::Mine => owner() == Some(getpid()),
        }
}
