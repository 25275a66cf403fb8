//! Making a server's process, and watching for its end.
//!
//! The process runs this very binary, through `/proc/self/exe`: that works for an account that may not enter
//! the folder it lies in, and after the file was replaced by a newer one. Its standard error is its log file;
//! it is in a group of its own, so that Ctrl-C at a terminal reaches nobody but `up`.
#![allow(unsafe_code)] // registering a descriptor with the runtime; the use has its SAFETY reason

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::site::Account;

/// Starts `dolmen server NAME`, which connects to the agent's link by itself.
pub fn server(name: &str, link: &Path, log: File, account: Option<Account>) -> io::Result<u32> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("dolmen").args(["server", name, "--link"]).arg(link);
    name_program(&mut command)?;
    detach(&mut command, log)?;
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    Ok(command.spawn()?.id())
}

/// No terminal, no input, a group of its own, everything it prints into its log.
pub fn detach(command: &mut Command, log: File) -> io::Result<()> {
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).current_dir("/");
    Ok(())
}

/// Tells a process of ours where its program lies on disk, see [`link::program`].
pub fn name_program(command: &mut Command) -> io::Result<()> {
    command.env(link::program::VARIABLE, link::program::path()?);
    Ok(())
}

/// A handle on a process, for [`end`] and [`kill`].
pub fn watch(pid: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Waits until the process has ended.
pub async fn end(process: Arc<OwnedFd>) -> io::Result<()> {
    // SAFETY: the descriptor is owned by the `Arc` that the registration keeps, and nobody closes it before.
    let readable = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
    readable.readable().await?.retain_ready();
    Ok(())
}

pub fn kill(process: &OwnedFd) {
    match rustix::process::pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => tracing::error!("cannot kill a process: {errno}"),
    }
}

/// Whether a signal has stopped this process (state T in proc_pid_stat(5)): it hears no order.
pub fn is_frozen(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// How a process ended, and its last traces removed if it was our child.
pub fn how_it_ended(process: &OwnedFd) -> String {
    use std::os::fd::AsFd;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::PidFd(process.as_fd()), options) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exited with status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".into(),
        },
        // A server that outlived the agent that made it is nobody's child but init's.
        Ok(None) | Err(_) => "ended".into(),
    }
}
