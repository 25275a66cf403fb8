//! What keeps processes of postgres from outliving their guard, from the surest way to the one always there.
//!
//! In a PID namespace the guard is the init: when it ends, for whatever reason, the kernel ends everything in
//! there, stopped processes too, before anybody sees that the guard has ended. An unprivileged account may
//! make one inside of a user namespace in which it is still itself. Where that is forbidden (some containers,
//! Ubuntu's AppArmor) a control group is killed as a whole, if the machine's systemd delegated ours to us;
//! else the postmaster dies with the guard, and the guard, as subreaper, inherits and kills what it left.
#![allow(unsafe_code)] // namespaces and kill(-1); each use has its SAFETY reason

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process};
use rustix::thread::UnshareFlags;

/// See the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fence {
    Namespace = 1,
    Cgroup,
    Parent,
}

const ALL: [Fence; 3] = [Fence::Namespace, Fence::Cgroup, Fence::Parent];

impl Fence {
    pub(super) fn of(number: u64) -> Option<Self> {
        ALL.into_iter().find(|fence| *fence as u64 == number)
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|fence| fence.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Namespace => "pid-namespace",
            Self::Cgroup => "cgroup",
            Self::Parent => "parent-death-signal",
        }
    }
}

/// Lets the next child of this process be the init of a new PID namespace. This process has one thread.
pub(super) fn enter_namespace() -> io::Result<()> {
    // SAFETY: no descriptor table is unshared; the process has one thread and no lock that anybody holds.
    if unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }.is_ok() {
        return Ok(());
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWPID) }?;
    // Only the account itself is known in there; the kernel wants setgroups given up first.
    let tell = |path: &str, text: String| File::options().write(true).open(path)?.write_all(text.as_bytes());
    tell("/proc/self/setgroups", "deny".into())?;
    tell("/proc/self/uid_map", format!("{user} {user} 1"))?;
    tell("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Whether [`enter_namespace`] would succeed: tried in a process of its own, since half of it cannot be undone.
pub(super) fn namespace_allowed() -> bool {
    // SAFETY: this process has one thread, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        0 => {
            let tried = enter_namespace().and_then(|()| {
                // SAFETY: as above. A limit on namespaces shows only when the first process is made.
                match unsafe { libc::fork() } {
                    -1 => Err(io::Error::last_os_error()),
                    // SAFETY: ends this process at once.
                    0 => unsafe { libc::_exit(0) },
                    _ => Ok(()),
                }
            });
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(tried.is_err())) }
        }
        child => Pid::from_raw(child)
            .and_then(|child| rustix::process::waitpid(Some(child), WaitOptions::empty()).ok().flatten())
            .is_some_and(|(_, status)| status.exit_status() == Some(0)),
    }
}

/// Ends all that the guard has below it, as far as this fence reaches at once. Called again until no child is
/// left. Allocates nothing.
pub(super) fn kill(fence: Fence, group: Option<&Group>) {
    match (fence, group) {
        // Everywhere else this would end all processes of the account.
        (Fence::Namespace, _) if getpid().is_init() => {
            // SAFETY: a system call on numbers. In a PID namespace -1 means every process in it but its init.
            unsafe { libc::kill(-1, libc::SIGKILL) };
        }
        (_, Some(group)) if group.kill() => {}
        _ => kill_children(),
    }
}

/// Our children; what they leave becomes our child when they end.
fn kill_children() {
    const PATH: &str = "/proc/thread-self/children";
    let mut buffer = [0u8; 4096];
    let Ok(mut file) = File::open(PATH) else { return };
    // Cut short, the rest is seen the next time, when these are gone.
    let Ok(length) = file.read(&mut buffer) else { return };
    let whole = if length == buffer.len() { last_space(&buffer) } else { length };
    for number in buffer[..whole].split(|byte| *byte == b' ') {
        let pid = number.iter().try_fold(0i32, |pid, byte| match byte {
            b'0'..=b'9' => pid.checked_mul(10)?.checked_add(i32::from(byte - b'0')),
            _ => None,
        });
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && let Err(errno) = kill_process(pid, Signal::KILL)
            && errno != rustix::io::Errno::SRCH
        {
            return;
        }
    }
}

fn last_space(buffer: &[u8]) -> usize {
    buffer.iter().rposition(|byte| *byte == b' ').unwrap_or(0)
}

/// A control group (version 2) of one postgres.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
    /// Open from the beginning, so that killing opens nothing.
    kill: File,
}

impl Group {
    const PREFIX: &str = "dolmen-postgres-";

    /// Makes one below our own, where systemd (or whoever made ours) lets us.
    pub(super) fn make() -> io::Result<Self> {
        let own = own_group()?;
        remove_empty(&own);
        let folder = own.join(format!("{}{}", Self::PREFIX, getpid()));
        std::fs::create_dir(&folder)?;
        let kill = File::options().write(true).open(folder.join("cgroup.kill"));
        kill.map(|kill| Self { folder: folder.clone(), kill }).inspect_err(|_| {
            // Nothing is in it: what is left is an empty folder, which the next guard tries to remove again.
            drop(std::fs::remove_dir(&folder));
        })
    }

    /// Where a process writes `0` to move into it.
    pub(super) fn entrance(&self) -> io::Result<File> {
        File::options().write(true).open(self.folder.join("cgroup.procs"))
    }

    fn kill(&self) -> bool {
        (&self.kill).write_all(b"1").is_ok()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The one that this process made before it became a new binary.
    pub(super) fn again() -> io::Result<Self> {
        let folder = own_group()?.join(format!("{}{}", Self::PREFIX, getpid()));
        let kill = File::options().write(true).open(folder.join("cgroup.kill"))?;
        Ok(Self { folder, kill })
    }
}

/// What earlier guards left; a group with processes in it cannot be removed.
fn remove_empty(own: &Path) {
    let Ok(entries) = std::fs::read_dir(own) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(Group::PREFIX) {
            drop(std::fs::remove_dir(entry.path()));
        }
    }
}

fn own_group() -> io::Result<PathBuf> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "no control group of version 2");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let groups = std::fs::read_to_string("/proc/self/cgroup")?;
    let mount = mounts.lines().find_map(mounted_at).ok_or_else(none)?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).ok_or_else(none)?;
    Ok(Path::new(mount).join(own))
}

/// `… 31 / /sys/fs/cgroup rw … - cgroup2 cgroup2 rw`: where a line of mountinfo mounts the one hierarchy.
fn mounted_at(line: &str) -> Option<&str> {
    let (before, after) = line.split_once(" - ")?;
    after.starts_with("cgroup2 ").then_some(())?;
    before.split(' ').nth(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_control_groups_is_found() {
        let line = "34 25 0:29 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(mounted_at(line), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mounted_at("25 1 0:20 / /sys rw - sysfs sysfs rw"), None);
    }

    #[test]
    fn a_fence_has_one_name() {
        for fence in ALL {
            assert_eq!(Fence::named(fence.name()), Some(fence));
            assert_eq!(Fence::of(fence as u64), Some(fence));
        }
        assert_eq!(Fence::of(0), None);
    }
}
