//! A child process that does not outlive us: the one place where postgres and its tools are started.
//!
//! The kernel kills the child when the thread that made it ends (PR_SET_PDEATHSIG), which is why [`crate::run`]
//! starts everything from the thread that it is called on, and that thread lives as long as the process. The
//! account has been changed long before, since a change of account clears the setting. Killing a postmaster
//! leaves its backends alive for a moment; [`crate::leftover`] ends those.
#![allow(unsafe_code)] // one call between fork and exec, with its SAFETY reason

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal,
};
use tokio::io::unix::AsyncFd;

/// See the head of this file. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Child {
    child: std::process::Child,
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
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::NONBLOCK)
            .or_else(|_| rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()))
            .map_err(io::Error::from)
            // SAFETY: an OwnedFd names the same open descriptor for as long as it lives.
            .and_then(|pidfd| Ok(unsafe { AsyncFd::register(pidfd) }?));
        match pidfd {
            Ok(pidfd) => Ok((Self { child, pidfd, ended: None }, pipes)),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
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

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended.is_some() {
            return;
        }
        if let Err(error) = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal) {
            tracing::debug!("process {} took no signal: {error}", self.child.id());
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // The whole group: pg_basebackup has a child of its own. Not reaped yet, its number is still its own.
            if let Err(error) = kill_process_group(Pid::from_child(&self.child), Signal::KILL) {
                tracing::debug!("process group {} took no signal: {error}", self.child.id());
            }
            if let Err(error) = self.child.wait() {
                tracing::debug!("process {} cannot be reaped: {error}", self.child.id());
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
