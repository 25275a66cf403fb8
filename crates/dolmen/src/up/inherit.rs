//! `up` becomes a newer program by `exec`, in the same process: its agents stay its children, and its locks stay held.
//!
//! The descriptors of the locks stay open over the exec, and their numbers stand in the environment.
#![allow(unsafe_code)] // descriptors by their numbers, with a SAFETY reason

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use link::program;
use rustix::io::FdFlags;

use super::prepare::Prepared;
use crate::out;

/// Names the descriptors of the locks for the next life: two numbers with a comma.
pub const VARIABLE: &str = "DOLMEN_UP_INHERITS";

/// The locks that an earlier program left in this very process.
pub fn take() -> io::Result<Option<[OwnedFd; 2]>> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let numbers: Vec<i32> = text
        .to_string_lossy()
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let [lock, block] = numbers[..] else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok(Some([descriptor(lock)?, descriptor(block)?]))
}

fn descriptor(number: i32) -> io::Result<OwnedFd> {
    if number <= 2 || !Path::new(&format!("/proc/self/fd/{number}")).exists() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: it is open, as was just seen, and nobody else in this process owns it: it was left open for us under
    // this number, before anything else was opened here.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

/// Becomes the program on disk. Returns only when that cannot be; then nothing has changed.
pub async fn upgrade(prepared: &Prepared) {
    let state = prepared.state.root().to_owned();
    let tried = tokio::task::spawn_blocking(move || {
        let path = program::path().map_err(|error| error.to_string())?;
        crate::program::try_out(&path, &state, &[]).map(|build| (path, build))
    });
    let because = match tried.await {
        Ok(Ok((path, build))) => {
            out::line(&format!("going on as dolmen {build}"));
            become_program(prepared, &path).err().map(|error| error.to_string()).unwrap_or_default()
        }
        Ok(Err(because)) => because,
        Err(error) => error.to_string(),
    };
    out::error(&format!("this `dolmen up` goes on as it is: the program on disk {because}"));
}

fn become_program(prepared: &Prepared, path: &Path) -> io::Result<std::convert::Infallible> {
    let file = File::open(path)?;
    let locks = prepared.locks();
    let numbers = locks.each_ref().map(|lock| lock.as_raw_fd().to_string()).join(",");
    for lock in locks {
        rustix::io::fcntl_setfd(lock, FdFlags::empty())?;
    }
    let mut arguments = std::env::args_os();
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.arg0(arguments.next().unwrap_or_else(|| "dolmen".into())).args(arguments);
    command.env(VARIABLE, numbers).env(program::VARIABLE, path);
    let error = command.exec();
    for lock in locks {
        rustix::io::fcntl_setfd(lock, FdFlags::CLOEXEC)?;
    }
    Err(error)
}
