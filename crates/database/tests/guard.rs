//! The guard alone, over a few stubborn processes in place of postgres: with each of its fences, whatever
//! happens to it or to its manager, none of them is left.

#![allow(clippy::unwrap_used)] // a test

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::time::{ClockId, clock_gettime};

const PROGRAM: &str = env!("CARGO_BIN_EXE_database-process");
const FENCES: [&str; 3] = ["pid-namespace", "cgroup", "parent-death-signal"];

/// The longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(10);

/// One that is busy, one that is stopped, each in a session of its own as the processes of postgres are, and
/// one above them that waits.
const STUBBORN: &str = "setsid sh -c 'while :; do :; done' & setsid sleep 1000 & kill -STOP $!; wait";
const PROCESSES: usize = 3;

/// The words of the shared page, by their place.
const DEADLINE: u64 = 8;
const HEARTBEAT: u64 = 16;
const FENCE: u64 = 24;
const WHY: u64 = 40;
const STATUS: u64 = 48;
const GONE: u64 = 56;

/// A guard whose manager is this test.
struct Guard {
    pid: Pid,
    socket: Option<OwnedFd>,
    page: File,
    folder: PathBuf,
    ended: bool,
}

impl Guard {
    fn start(fence: &str, name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("dolmen-guard-{name}-{fence}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let page =
            File::from(rustix::fs::memfd_create("page", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap());
        page.set_len(64).unwrap();
        rustix::fs::fcntl_add_seals(&page, rustix::fs::SealFlags::SHRINK).unwrap();
        let set = |word: u64, value: u64| page.write_all_at(&value.to_ne_bytes(), word).unwrap();
        set(0, 1);
        set(DEADLINE, u64::MAX);
        let pair =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None);
        let (ours, theirs) = pair.unwrap();
        // Or the guard would have our end as well, and never see it close.
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC).unwrap();
        let mut launcher = Command::new(PROGRAM);
        launcher
            .args(["guard", "start"])
            .args([theirs.as_raw_fd(), page.as_raw_fd()].map(|fd| fd.to_string()));
        launcher.args([fence, "/bin/sh", "-c", STUBBORN]).current_dir(&folder).stdin(Stdio::null());
        assert!(launcher.status().unwrap().success());
        let mut number = [0; 4];
        rustix::net::recv(&ours, &mut number, RecvFlags::empty()).unwrap();
        let pid = Pid::from_raw(i32::from_le_bytes(number)).unwrap();
        let guard = Self { pid, socket: Some(ours), page, folder, ended: false };
        guard.until("all run", || guard.processes() == PROCESSES + 1);
        guard
    }

    fn word(&self, place: u64) -> u64 {
        let mut bytes = [0; 8];
        self.page.read_exact_at(&mut bytes, place).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn set_deadline(&self, at_ns: u64) {
        self.page.write_all_at(&at_ns.to_ne_bytes(), DEADLINE).unwrap();
    }

    fn order(&self, order: &[u8]) {
        rustix::net::send(self.socket.as_ref().unwrap(), order, SendFlags::NOSIGNAL).unwrap();
    }

    /// The guard and all below it: those that live and have their current folder here.
    fn processes(&self) -> usize {
        let here = |entry: &std::fs::DirEntry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == self.folder)
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter(here).count()
    }

    #[track_caller]
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done() {
            assert!(Instant::now() < deadline, "never: {what}; {} processes", self.processes());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the guard has ended; then nothing may be left.
    #[track_caller]
    fn ends(&mut self) {
        self.until("the guard ends", || {
            rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG).unwrap().is_some()
        });
        self.ended = true;
    }

    fn kill(&self, signal: Signal) {
        rustix::process::kill_process(self.pid, signal).unwrap();
    }

    /// The process that the guard started: its child with the most children.
    fn top(&self) -> Pid {
        let children = |pid: i32| {
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
        };
        let ours = children(self.pid.as_raw_nonzero().get());
        let all = ours.split_whitespace().map(|pid| pid.parse().unwrap());
        Pid::from_raw(all.max_by_key(|pid| children(*pid).len()).unwrap()).unwrap()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            self.kill(Signal::KILL);
            rustix::process::waitpid(Some(self.pid), WaitOptions::empty()).unwrap();
        }
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[test]
fn the_deadline_ends_all() {
    for fence in FENCES {
        let mut guard = Guard::start(fence, "deadline");
        let deadline = now_ns() + 300_000_000;
        guard.set_deadline(deadline);
        guard.ends();
        let took = Duration::from_nanos(now_ns() - deadline);
        assert_eq!((guard.processes(), guard.word(WHY), guard.word(GONE)), (0, 4, 1), "{fence}");
        println!("{fence} (in force: {}): all gone {took:?} after the deadline", guard.word(FENCE));
    }
}

#[test]
fn a_deadline_that_is_moved_on_ends_nobody() {
    let mut guard = Guard::start("pid-namespace", "renewed");
    let begun = now_ns();
    while now_ns() < begun + 1_000_000_000 {
        guard.set_deadline(now_ns() + 400_000_000);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(guard.processes(), PROCESSES + 1);
    guard.ends();
    assert_eq!(guard.processes(), 0);
}

#[test]
fn nothing_outlives_the_manager() {
    for fence in FENCES {
        let mut guard = Guard::start(fence, "manager");
        guard.socket = None;
        guard.ends();
        assert_eq!((guard.processes(), guard.word(WHY), guard.word(GONE)), (0, 5, 1), "{fence}");
    }
}

#[test]
fn what_the_one_above_leaves_is_ended_first() {
    for fence in FENCES {
        let mut guard = Guard::start(fence, "top");
        rustix::process::kill_process(guard.top(), Signal::KILL).unwrap();
        guard.ends();
        let killed = libc_status(&guard);
        assert_eq!((guard.processes(), guard.word(WHY), killed), (0, 2, 9), "{fence}");
    }
}

/// The signal in a wait status.
fn libc_status(guard: &Guard) -> u64 {
    guard.word(STATUS) & 0x7f
}

#[test]
fn a_namespace_ends_with_its_guard_stopped_or_not() {
    let mut guard = Guard::start("pid-namespace", "guard");
    guard.kill(Signal::STOP);
    let beat = guard.word(HEARTBEAT);
    std::thread::sleep(Duration::from_millis(500));
    assert!(guard.word(HEARTBEAT) <= beat + 200_000_000, "a stopped guard shows no life");
    guard.kill(Signal::KILL);
    guard.ends();
    assert_eq!((guard.processes(), guard.word(GONE)), (0, 0));
}

#[test]
fn a_guard_becomes_another_program_and_nobody_below_notices() {
    for fence in FENCES {
        let mut guard = Guard::start(fence, "become");
        guard.order(b"b/nowhere/dolmen");
        let top = guard.top();
        guard.order(format!("b{PROGRAM}").as_bytes());
        let again = format!("/proc/{}/cmdline", guard.pid);
        guard.until("it is the new program", || {
            std::fs::read_to_string(&again).unwrap().contains("guard\0again")
        });
        let beat = guard.word(HEARTBEAT);
        guard.until("it shows life", || guard.word(HEARTBEAT) > beat);
        assert_eq!((guard.processes(), guard.top()), (PROCESSES + 1, top), "{fence}");
        guard.order(b"k");
        guard.ends();
        assert_eq!((guard.processes(), guard.word(WHY)), (0, 3), "{fence}");
    }
}
