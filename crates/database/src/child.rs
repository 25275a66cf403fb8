//! A child process that does not outlive us: a tool of PostgreSQL, or a guard ([`crate::guard`]).
//!
//! The kernel kills the child when the thread that made it ends (PR_SET_PDEATHSIG), which is why [`crate::run`]
//! starts everything from the thread that it is called on, and that thread lives as long as the process. The
//! account has been changed long before, since a change of account clears the setting.
#![allow(unsafe_code)] // one call between fork and exec, with its SAFETY reason

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, kill_process_group,
    set_parent_process_death_signal,
};
use tokio::io::unix::AsyncFd;

/// How long the end of a killed process is waited for before a thread does so.
const REAP: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
const REAP_STACK: usize = 64 * 1024;

/// See the head of this file. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    /// Becomes readable when the process ends.
    pidfd: AsyncFd<OwnedFd>,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts it in a process group of its own, so that Ctrl-C in a terminal reaches only who is to decide.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<(Self, Pipes)> {
        let parent = getpid();
        let die_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before the line above; then nobody would ever send the signal.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        };
        // SAFETY: runs between fork and exec; prctl and getppid are async-signal-safe system calls, nothing is
        // allocated or locked.
        unsafe { command.pre_exec(die_with_parent) };
        let mut child = command.process_group(0).spawn()?;
        let pipes = Pipes { stdout: child.stdout.take(), stderr: child.stderr.take() };
        match Self::adopt(Pid::from_child(&child)) {
            Ok(child) => Ok((child, pipes)),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Takes a process that is our child although we did not make it here.
    pub(crate) fn adopt(pid: Pid) -> io::Result<Self> {
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
            .or_else(|_| rustix::process::pidfd_open(pid, PidfdFlags::empty()))?;
        // SAFETY: an OwnedFd names the same open descriptor for as long as it lives.
        let pidfd = unsafe { AsyncFd::register(pidfd) }?;
        Ok(Self { pid, pidfd, ended: None })
    }

    /// Waits until it has ended; may be dropped and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            let mut ready = self.pidfd.readable().await?;
            ready.clear_ready();
        }
    }

    /// Is done when the process has ended. Borrows nothing, so that other work with it can go on beside.
    pub(crate) fn end(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        let pidfd = rustix::io::fcntl_dupfd_cloexec(self.pidfd.get_ref(), 0)?;
        // SAFETY: as in `adopt`.
        let pidfd = unsafe { AsyncFd::register(pidfd) }?;
        Ok(async move {
            // A descriptor that cannot be watched is like one that never ends: others watch too.
            if pidfd.readable().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    /// A descriptor of the process, for whoever may have to kill it while all else hangs.
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(self.pidfd.get_ref(), 0)?)
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let ended = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG)?;
            self.ended = ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
        }
        Ok(self.ended)
    }

    /// Waits for the end of what was killed, which comes at once unless it hangs in the kernel, on a disk that does
    /// not answer. Whoever drops us must not hang with it.
    fn reap(&mut self) -> io::Result<()> {
        let mut ended = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        rustix::event::poll(&mut ended, Some(&REAP))?;
        if self.try_wait()?.is_none() {
            let pid = self.pid;
            tracing::error!(
                "process {pid} was killed and does not end: it hangs in the kernel, on a disk perhaps"
            );
            let reap = move || {
                let _status = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            };
            std::thread::Builder::new().name("reap".into()).stack_size(REAP_STACK).spawn(reap)?;
        }
        Ok(())
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended.is_some() {
            return;
        }
        if let Err(error) = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal) {
            tracing::debug!("process {} took no signal: {error}", self.pid);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.signal(Signal::KILL);
            // The whole group: pg_basebackup has a child of its own. Not reaped yet, its number is still its own.
            if let Err(error) = kill_process_group(self.pid, Signal::KILL) {
                tracing::debug!("process group {} took no signal: {error}", self.pid);
            }
            if let Err(error) = self.reap() {
                tracing::debug!("process {} cannot be reaped: {error}", self.pid);
            }
        }
    }
}

/// What the child writes, where the command asked for pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdout: Option<std::process::ChildStdout>,
    pub(crate) stderr: Option<std::process::ChildStderr>,
}
