//! A manager becomes a newer binary by `exec`, in the same process: postgres, its guard and the lease go on.
//!
//! What the next life needs is written into a file in memory, whose number stands in the environment; the
//! descriptors that it names stay open over the exec. The lease is not renewed meanwhile, which takes a small part
//! of it; should the new binary fail to come up, the guard ends postgres when the lease is over, as ever.
#![allow(unsafe_code)] // descriptors by their numbers, each use with its SAFETY reason

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::act::{EpochCommit, Wanted};
use crate::failover::Names;
use crate::group::Lsn;
use crate::guard::{self, Guard, Page};
use crate::manager::Running;
use crate::tool::{self, ToolError};

/// Names the file for the next life.
const VARIABLE: &str = "DOLMEN_DATABASE_INHERITS";

/// How long the new program may take to say that it can go on from here.
const TRIAL: Duration = Duration::from_secs(5);

/// The file has at most so many bytes.
const LIMIT_BYTES: u64 = 64 * 1024;

/// What one life of a manager leaves to the next.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Legacy {
    pub(crate) boot: String,
    /// The lock on the folder.
    lock: RawFd,
    postgres: Option<Postgres>,
    pub(crate) lease: Option<Lease>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Postgres {
    guard: i32,
    socket: RawFd,
    page: RawFd,
    log_from: u64,
    follows: Option<String>,
    wait_for: u32,
    members: Vec<String>,
    /// Since where the log is covered by these names.
    covered: Option<Lsn>,
    committed_epoch: Option<u64>,
    set_up: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) epoch: u64,
    pub(crate) fence_at: Duration,
    /// Whether the guard of the postgres beside it is bound by it.
    pub(crate) bound: bool,
}

impl Postgres {
    fn of(running: &Running) -> Self {
        let (guard, socket, page) = running.guard.numbers();
        let names = &running.wanted.names;
        Self {
            guard: guard.as_raw_nonzero().get(),
            socket,
            page,
            log_from: running.log_from,
            follows: running.wanted.follows.clone(),
            wait_for: names.wait_for,
            members: names.members.iter().cloned().collect(),
            covered: running.names_since.as_ref().filter(|(of, _)| of == names).map(|(_, since)| *since),
            committed_epoch: running.epoch_commit.done(),
            set_up: running.set_up,
        }
    }

    /// The same postgres, seen by the new life.
    fn restore(self, others: Vec<String>) -> io::Result<Running> {
        let pid = Pid::from_raw(self.guard).ok_or(io::ErrorKind::InvalidData)?;
        let guard = Guard::adopt(pid, taken(self.socket)?, Page::open(taken(self.page)?)?)?;
        let names = Names { wait_for: self.wait_for, members: self.members.into_iter().collect() };
        let wanted = Wanted { follows: self.follows, since: Some(Instant::now()), names: names.clone() };
        let mut running = Running::new(guard, self.log_from, wanted, others);
        running.answered = true;
        running.names_since = self.covered.map(|since| (names, since));
        running.epoch_commit = EpochCommit::made(self.committed_epoch);
        running.set_up = self.set_up;
        Ok(running)
    }
}

impl Legacy {
    pub(crate) fn new(boot: &str, lock: &File, running: Option<&Running>, lease: Option<Lease>) -> Self {
        let postgres = running.map(Postgres::of);
        Self { boot: boot.to_owned(), lock: lock.as_raw_fd(), postgres, lease }
    }

    pub(crate) fn restore_postgres(&mut self, others: Vec<String>) -> io::Result<Option<Running>> {
        self.postgres.take().map(|postgres| postgres.restore(others)).transpose()
    }

    /// What an earlier life of this very process left.
    pub(crate) fn take() -> io::Result<Option<(Self, File)>> {
        let Some(number) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let number =
            number.to_str().and_then(|number| number.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut text = String::new();
        let mut file = File::from(taken(number)?);
        file.rewind()?;
        file.take(LIMIT_BYTES).read_to_string(&mut text)?;
        let legacy: Self = serde_json::from_str(&text)?;
        let lock = File::from(taken(legacy.lock)?);
        Ok(Some((legacy, lock)))
    }

    /// Becomes this program. Returns only when that failed; then nothing has changed.
    pub(crate) fn leave_to(&self, program: &PathBuf) -> io::Error {
        let file = match self.written() {
            Ok(file) => file,
            Err(error) => return error,
        };
        let mut kept = vec![self.lock, file.as_raw_fd()];
        kept.extend(self.postgres.iter().flat_map(|postgres| [postgres.socket, postgres.page]));
        if let Err(error) = keep(&kept, FdFlags::empty()) {
            return error;
        }
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).env(VARIABLE, file.as_raw_fd().to_string());
        if let Some(name) = std::env::args_os().next() {
            command.arg0(name);
        }
        let error = command.exec();
        keep(&kept, FdFlags::CLOEXEC).err().unwrap_or(error)
    }

    fn written(&self) -> io::Result<File> {
        let mut file = File::from(rustix::fs::memfd_create("dolmen-manager", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        Ok(file)
    }
}

/// Whether this program runs here and understands what we leave to it.
pub(crate) async fn try_out(program: &Path) -> Result<(), ToolError> {
    let mut command = Command::new(program);
    command.args(guard::check()).env_clear().stdin(Stdio::null());
    tool::run(command, TRIAL, |_| ()).await.map(drop)
}

/// One that stayed open over the exec under its number; nothing that we start inherits it any more.
fn taken(number: RawFd) -> io::Result<OwnedFd> {
    guard::descriptor(number)
}

fn keep(numbers: &[RawFd], flags: FdFlags) -> io::Result<()> {
    for number in numbers {
        // SAFETY: the caller holds what has these numbers, for longer than this call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
        rustix::io::fcntl_setfd(descriptor, flags)?;
    }
    Ok(())
}
