//! The guard: a small process between the manager and postgres, that ends postgres when nobody else can.
//!
//! It is the parent of postgres. When the manager dies, is stopped or hangs, so that it does not renew its
//! lease, the guard ends every process of postgres at the deadline: SIGKILL to all, since a stop in an orderly
//! way waits for one stuck backend, and SIGKILL to the postmaster alone leaves backends that go on committing.
//! It has one thread, no runtime, and nothing to wait for. The manager learns from the kernel that the guard
//! has ended; with a PID namespace ([`fence`]) that is the proof that nothing of postgres is left.
//!
//! What it must never do: start anything but the one postgres, decide who is primary, or outlive postgres.
//!
//! [`begin`] and [`watch`] are the guard itself, the rest here is the manager's end; [`sentry`] is the manager's
//! thread that ends a guard which does not do its work.
#![allow(unsafe_code)] // one call between fork and exec, with its SAFETY reason

mod begin;
mod fence;
mod page;
mod sentry;
mod watch;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal};

pub use begin::called;
pub(crate) use begin::{check, descriptor};
pub(crate) use fence::Fence;
pub(crate) use page::{NEVER, Page, Why};
pub(crate) use watch::Order;

use crate::child::Child;

/// How long the launcher may take, on a machine that has nearly no time for it.
const LAUNCH: Duration = Duration::from_secs(10);

/// A postgres and its guard. Dropping it kills both.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
    pid: Pid,
    socket: OwnedFd,
    page: Arc<Page>,
}

/// How a postgres ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// For a sentence: `exit status: 1`.
    pub(crate) how: String,
    /// Whether it had no time to say why.
    pub(crate) killed: bool,
    /// Whether the kernel or the guard vouches that no process of it is left.
    pub(crate) all_gone: bool,
}

impl Guard {
    /// Starts a guard and, below it, this postgres, whose output goes to the log.
    pub(crate) async fn start(
        postgres: &Command,
        log: File,
        best: Fence,
        deadline_ns: u64,
    ) -> io::Result<Self> {
        let page = Page::create()?;
        page.set_deadline_ns(deadline_ns);
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let passed = [theirs.as_raw_fd(), page.descriptor().as_raw_fd()];
        let mut launcher = Command::new("/proc/self/exe");
        launcher.arg0("dolmen").args([begin::WORD, begin::START]);
        launcher.args(passed.map(|number| number.to_string())).arg(best.name());
        launcher.arg(postgres.get_program()).args(postgres.get_args());
        launcher.env_clear().envs(postgres.get_envs().filter_map(|(key, value)| Some((key, value?))));
        launcher.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        pass_on(&mut launcher, passed);
        let (mut launcher, _) = Child::spawn(&mut launcher)?;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "its guard did not begin in time");
        let launched = tokio::time::timeout(LAUNCH, launcher.wait()).await.map_err(late)??;
        if !launched.success() {
            return Err(io::Error::other("its guard ended before it began; the log of postgres may say why"));
        }
        Self::adopt(number(&socket)?, socket, page)
    }

    /// One that is our child already.
    pub(crate) fn adopt(pid: Pid, socket: OwnedFd, page: Page) -> io::Result<Self> {
        let (child, page) = (Child::adopt(pid)?, Arc::new(page));
        sentry::begin(child.handle()?, Arc::downgrade(&page))?;
        Ok(Self { pid, child, socket, page })
    }

    /// What the lease writes its deadline to.
    pub(crate) fn page(&self) -> Arc<Page> {
        Arc::clone(&self.page)
    }

    /// What keeps postgres from outliving it: known once postgres runs.
    pub(crate) fn fence(&self) -> Option<Fence> {
        self.page.fence()
    }

    /// Tells it what to do. One that has ended, or that does not listen, cannot be told.
    pub(crate) fn order(&self, order: Order) {
        self.send(&[order as u8]);
    }

    /// Lets it become this program, in place.
    pub(crate) fn become_program(&self, program: &Path) {
        let path = program.as_os_str().as_bytes();
        if path.len() < watch::ORDER_BYTES {
            self.send(&[&[Order::Become as u8], path].concat());
        }
    }

    /// Its process, our end of its socket and its page, for a life of this process that comes after an exec.
    pub(crate) fn numbers(&self) -> (Pid, RawFd, RawFd) {
        (self.pid, self.socket.as_raw_fd(), self.page.descriptor().as_raw_fd())
    }

    fn send(&self, message: &[u8]) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if let Err(errno) = rustix::net::send(&self.socket, message, flags) {
            tracing::debug!("the guard took no order: {errno}");
        }
    }

    /// Kills the guard itself, when it does not listen.
    pub(crate) fn kill(&self) {
        self.child.signal(Signal::KILL);
    }

    /// Is done when it has ended, whoever uses it meanwhile.
    pub(crate) fn end(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        self.child.end()
    }

    /// Waits until it has ended; may be dropped and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<()> {
        self.child.wait().await.map(drop)
    }

    /// How postgres ended, once its guard has ended.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<End>> {
        Ok(self.child.try_wait()?.map(|guard| end(&self.page, guard)))
    }
}

/// Names the best fence that may be used, for a machine on which a better one makes trouble, and for tests.
const VARIABLE: &str = "DOLMEN_FENCE";

/// The best fence that a guard may use: the surest, unless the environment names another.
pub(crate) fn best() -> Fence {
    std::env::var(VARIABLE).ok().and_then(|name| Fence::named(&name)).unwrap_or(Fence::Namespace)
}

/// The one descriptor of each kind that a guard needs, by the numbers they have here.
fn pass_on(launcher: &mut Command, numbers: [RawFd; 2]) {
    let inherit = move || {
        for number in numbers {
            // SAFETY: open until the launcher has been made, since the caller holds both.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: runs between fork and exec; system calls only, nothing allocated or locked.
    unsafe { launcher.pre_exec(inherit) };
}

/// What the launcher said before it ended.
fn number(socket: &OwnedFd) -> io::Result<Pid> {
    let mut number = [0; 4];
    rustix::net::recv(socket, &mut number, RecvFlags::DONTWAIT)?;
    Pid::from_raw(i32::from_le_bytes(number)).ok_or_else(|| io::Error::other("its guard has no number"))
}

fn end(page: &Page, guard: ExitStatus) -> End {
    let status = ExitStatus::from_raw(page.status());
    let killed = status.signal().is_some();
    // In a namespace the kernel has ended everything before the guard is seen to have ended.
    let all_gone = page.gone() || page.fence() == Some(Fence::Namespace);
    let by_guard = |how: &str| End { how: how.into(), killed: true, all_gone };
    match page.why() {
        None => by_guard(&format!("with its guard, {guard}")),
        Some(Why::NotStarted) => {
            End { how: io::Error::from_raw_os_error(page.status()).to_string(), killed: false, all_gone }
        }
        Some(Why::Postmaster) => End { how: status.to_string(), killed, all_gone },
        Some(Why::Ordered) => by_guard("killed as ordered"),
        Some(Why::Deadline) => by_guard("killed by its guard, because its lease was not renewed in time"),
        Some(Why::ManagerGone) => by_guard("killed by its guard, because the manager was gone"),
    }
}
