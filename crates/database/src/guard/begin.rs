//! How a guard begins: first as a launcher, which enters a namespace and makes its sibling, then as that
//! sibling; or again as a new binary in the same process.
//!
//! A process cannot enter a new PID namespace itself, only its children can; and the guard must be a child of
//! the manager, so that the kernel tells the manager of its end. Hence the launcher, whose child is born as a
//! child of the manager.
#![allow(unsafe_code)] // descriptors by number and clone; each use has its SAFETY reason

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::io::FdFlags;
use rustix::mm::MlockAllFlags;
use rustix::net::SendFlags;
use rustix::process::{Pid, Signal, set_child_subreaper, set_parent_process_death_signal};

use super::fence::{Fence, Group, enter_namespace, namespace_allowed};
use super::page::{LAYOUT, Page, Why};
use super::watch::{Turn, Watch};

/// The word after the program's name that makes it a guard.
pub(super) const WORD: &str = "guard";
pub(super) const START: &str = "start";
const AGAIN: &str = "again";
const CHECK: &str = "check";

/// The arguments with which a program says whether its guard understands the pages of ours.
pub(crate) fn check() -> [String; 3] {
    [WORD.into(), CHECK.into(), LAYOUT.to_string()]
}

/// The guard process, if that is what these arguments of a program ask for. Called before the program has a
/// second thread.
pub fn called(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    arguments.next()?;
    if arguments.next()? != WORD {
        return None;
    }
    let ended = run(&arguments.collect::<Vec<_>>());
    Some(ended.unwrap_or_else(|error| {
        eprintln!("dolmen guard: {error}");
        ExitCode::FAILURE
    }))
}

fn run(arguments: &[OsString]) -> io::Result<ExitCode> {
    if let [how, layout] = arguments
        && how == CHECK
    {
        let same = layout.to_str() == Some(&LAYOUT.to_string());
        return if same {
            Ok(ExitCode::SUCCESS)
        } else {
            Err(io::Error::other("another layout of a guard's page"))
        };
    }
    let [how, socket, page, rest @ ..] = arguments else { return Err(misused()) };
    let (socket, page) = (numbered(socket)?, Page::open(numbered(page)?)?);
    match (how.to_str(), rest) {
        (Some(START), [fence, program, arguments @ ..]) => {
            let best = fence.to_str().and_then(Fence::named).ok_or_else(misused)?;
            let mut command = Command::new(program);
            command.args(arguments);
            launch(socket, page, best, command)
        }
        (Some(AGAIN), []) => again(socket, page),
        _ => Err(misused()),
    }
}

fn misused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a guard is started by a manager alone")
}

fn numbered(number: &OsStr) -> io::Result<OwnedFd> {
    descriptor(number.to_str().and_then(|number| number.parse().ok()).ok_or_else(misused)?)
}

/// One that was passed on by its number; nothing that we start inherits it.
pub(crate) fn descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(misused());
    }
    // SAFETY: whether the number is open is asked at once, and whoever passed it on left it to us alone.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    if let Err(errno) = rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC) {
        std::mem::forget(descriptor);
        return Err(errno.into());
    }
    Ok(descriptor)
}

fn launch(socket: OwnedFd, page: Page, best: Fence, command: Command) -> io::Result<ExitCode> {
    let namespace = best == Fence::Namespace && namespace_allowed();
    if namespace {
        enter_namespace()?;
    }
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as fork, but the child's parent is ours. This process has one thread, so that the child may do
    // whatever this process may.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => begin(socket, page, if namespace { Fence::Namespace } else { best.max(Fence::Cgroup) }, command),
        guard => {
            let number = (guard as i32).to_le_bytes();
            rustix::net::send(&socket, &number, SendFlags::NOSIGNAL)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The guard's first moments: everything that may fail or take memory happens here.
fn begin(socket: OwnedFd, page: Page, fence: Fence, mut command: Command) -> io::Result<ExitCode> {
    let group = if fence == Fence::Cgroup { Group::make().ok() } else { None };
    let fence = if fence == Fence::Cgroup && group.is_none() { Fence::Parent } else { fence };
    page.set_fence(fence);
    die_or_inherit(fence)?;
    lock_memory();
    prepare(&mut command, fence, group.as_ref())?;
    match command.spawn() {
        Ok(child) => {
            page.set_postmaster(child.id().cast_signed());
            let postmaster = Pid::from_child(&child);
            watch(Watch { page, socket, postmaster, fence, group })
        }
        Err(error) => {
            page.set_status(error.raw_os_error().unwrap_or_default());
            page.set_why(Why::NotStarted);
            page.set_gone();
            Err(error)
        }
    }
}

/// In a namespace the guard may die with its manager, since postgres dies with the guard; elsewhere it must
/// live on, to end postgres.
fn die_or_inherit(fence: Fence) -> io::Result<()> {
    match fence {
        // Should the manager be dead already, the end of the socket tells.
        Fence::Namespace => set_parent_process_death_signal(Some(Signal::KILL))?,
        Fence::Cgroup | Fence::Parent => set_child_subreaper(Some(rustix::process::getpid()))?,
    }
    Ok(())
}

/// So that a machine short of memory does not delay the kill; where it is not allowed, that is all there is.
fn lock_memory() {
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    // Best effort: nothing depends on it.
    let _allowed = rustix::mm::mlockall(flags);
}

fn prepare(command: &mut Command, fence: Fence, group: Option<&Group>) -> io::Result<()> {
    let entrance = group.map(Group::entrance).transpose()?;
    let before = move || {
        if fence != Fence::Namespace {
            set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        entrance.as_ref().map_or(Ok(()), |mut entrance| entrance.write_all(b"0"))
    };
    // SAFETY: runs between fork and exec of a process with one thread: system calls only, nothing allocated.
    unsafe { command.pre_exec(before) };
    Ok(())
}

/// The same process, after `exec`: the children are still its children.
fn again(socket: OwnedFd, page: Page) -> io::Result<ExitCode> {
    let fence = page.fence().ok_or_else(misused)?;
    let postmaster = Pid::from_raw(page.postmaster()).ok_or_else(misused)?;
    let group = if fence == Fence::Cgroup { Some(Group::again()?) } else { None };
    lock_memory();
    watch(Watch { page, socket, postmaster, fence, group })
}

/// Until postgres has ended, wholly.
fn watch(watch: Watch) -> io::Result<ExitCode> {
    loop {
        match watch.until_turn() {
            Ok(Turn::End(why)) => {
                watch.end(why);
                break;
            }
            Ok(Turn::Become(program)) => {
                let error = become_program(&watch, OsStr::from_bytes(&program));
                eprintln!("dolmen guard: cannot become {}: {error}", program.escape_ascii());
            }
            Err(error) => {
                eprintln!("dolmen guard: cannot watch postgres: {error}");
                watch.end(Why::Ordered);
                break;
            }
        }
    }
    if let Some(group) = &watch.group {
        drop(std::fs::remove_dir(group.folder()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns only when it failed; then nothing has changed.
fn become_program(watch: &Watch, program: &OsStr) -> io::Error {
    let kept = [watch.socket.as_fd(), watch.page.descriptor()];
    let keep = |flags| kept.iter().try_for_each(|descriptor| rustix::io::fcntl_setfd(descriptor, flags));
    if let Err(errno) = keep(FdFlags::empty()) {
        return errno.into();
    }
    let mut command = Command::new(program);
    command.arg0("dolmen").args([WORD, AGAIN]);
    let error = command.args(kept.map(|descriptor| descriptor.as_raw_fd().to_string())).exec();
    match keep(FdFlags::CLOEXEC) {
        Ok(()) => error,
        Err(errno) => errno.into(),
    }
}
