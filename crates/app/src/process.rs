//! The process of a worker: made so that it never outlives us, and ended with all its children.
//!
//! The kernel kills it when the thread that made it ends (PR_SET_PDEATHSIG): that is the thread that
//! [`crate::run`] is called on, which lives as long as the process. The setting is made last before exec, since
//! a change of account would clear it. It does not reach the children of a worker; those are ended with its
//! process group, or by [`crate::leftover`] when we were killed.
#![allow(unsafe_code)] // one call between fork and exec, one registration; each with its SAFETY reason

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group, pidfd_open,
    set_parent_process_death_signal, waitid,
};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::command::Command;
use crate::environment::Environment;
use crate::life::Exit;

/// A running worker. Dropping it kills the whole group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Becomes readable when the process ends.
    pidfd: AsyncFd<OwnedFd>,
    /// How it ended; its group was killed then.
    ended: Option<Exit>,
}

impl Process {
    /// Starts it, leader of its own process group, with no input and one pipe for all that it writes.
    pub(crate) fn spawn(
        command: &Command,
        environment: &Environment,
        folder: &Path,
    ) -> io::Result<(Self, pipe::Receiver)> {
        let (output, input) = io::pipe()?;
        let mut builder = std::process::Command::new(&command.program);
        builder.args(&command.arguments).current_dir(folder).env_clear().envs(environment.iter());
        builder.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input).process_group(0);
        let parent = getpid();
        let die_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // We may have ended before the line above; then nobody would ever send the signal.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        };
        // SAFETY: runs between fork and exec; prctl and getppid are async-signal-safe system calls, nothing is
        // allocated or locked.
        unsafe { builder.pre_exec(die_with_parent) };
        let mut child = builder.spawn()?;
        match Self::watch(&child, output.into()) {
            Ok((pidfd, output)) => Ok((Self { child, pidfd, ended: None }, output)),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    fn watch(child: &Child, output: OwnedFd) -> io::Result<(AsyncFd<OwnedFd>, pipe::Receiver)> {
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        // SAFETY: an OwnedFd names the same open descriptor for as long as it lives.
        let pidfd = unsafe { AsyncFd::register(pidfd) }?;
        Ok((pidfd, pipe::Receiver::from_owned_fd(output)?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the worker has ended, then ends its children. May be dropped and called again.
    pub(crate) async fn end(&mut self) -> io::Result<Exit> {
        if let Some(exit) = &self.ended {
            return Ok(exit.clone());
        }
        let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(Pid::from_child(&self.child)), looking)?.is_none() {
            self.pidfd.readable().await?.clear_ready();
        }
        // Not reaped yet, so that the number of the group cannot belong to anybody else.
        self.signal(Signal::KILL);
        let status = self.child.wait()?;
        let exit = Exit { code: status.code(), signal: status.signal(), ..Exit::default() };
        self.ended = Some(exit.clone());
        Ok(exit)
    }

    /// Sends a signal to the worker and its children, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended.is_some() {
            return;
        }
        match kill_process_group(Pid::from_child(&self.child), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => tracing::debug!("process group {} took no signal: {errno}", self.id()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.signal(Signal::KILL);
            if let Err(error) = self.child.wait() {
                tracing::debug!("process {} cannot be reaped: {error}", self.child.id());
            }
        }
    }
}
