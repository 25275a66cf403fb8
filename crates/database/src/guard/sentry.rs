//! Who guards the guard: a thread of the manager that kills a guard which is stopped or hangs, and thereby postgres.
//!
//! A thread of its own, since whatever the manager does may be waiting for the very postgres that hangs: a backend
//! that is stopped while it holds a lock of PostgreSQL's stops every question and every commit.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Weak;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::page::{Page, boottime_ns};

/// How often it looks.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A guard that has not looked at its deadline for this long is taken for stopped.
const SILENCE_NS: u64 = 2_000_000_000;

/// How long something may be seen to be wrong before the guard is killed.
const LATE_NS: u64 = 250_000_000;

const STACK: usize = 64 * 1024;

/// Until the guard has ended or nobody holds the page any more.
pub(super) fn begin(guard: OwnedFd, page: Weak<Page>) -> io::Result<()> {
    let watch = move || {
        let mut since = None;
        while let Some(page) = page.upgrade() {
            if let Some(why) = fault(&page, boottime_ns(), &mut since) {
                tracing::warn!("the guard of postgres {why}: both are killed");
                if let Err(errno) = rustix::process::pidfd_send_signal(&guard, Signal::KILL) {
                    tracing::debug!("the guard took no signal: {errno}");
                }
                return;
            }
            drop(page);
            // One that was killed is silent as well, and whoever waits for its end says so.
            if ends_within(&guard, TURN) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("sentry".into()).stack_size(STACK).spawn(watch).map(drop)
}

/// False: it lives, or cannot be watched, and all of the time is over.
fn ends_within(guard: &OwnedFd, time: Timespec) -> bool {
    poll(&mut [PollFd::new(guard, PollFlags::IN)], Some(&time)).unwrap_or_else(|errno| {
        tracing::debug!("the end of the guard cannot be watched: {errno}");
        std::thread::sleep(Duration::from_nanos(time.tv_nsec.unsigned_abs()));
        0
    }) > 0
}

/// What is wrong with a guard. One that has begun to end postgres does what it can. The deadline may be moved into the
/// past at once, and a machine that was frozen as a whole lets us look before the guard could beat: so what counts is
/// since when something has been seen to be wrong.
fn fault(page: &Page, now_ns: u64, since: &mut Option<u64>) -> Option<&'static str> {
    if page.why().is_some() {
        return None;
    }
    let silent = now_ns.saturating_sub(page.heartbeat_ns()) > SILENCE_NS;
    if !silent && now_ns < page.deadline_ns() {
        *since = None;
        return None;
    }
    let first = *since.get_or_insert(now_ns);
    let what = if silent { "does not look at its deadline" } else { "has let its deadline pass" };
    (now_ns - first > LATE_NS).then_some(what)
}

#[cfg(test)]
mod tests {
    use super::super::page::{NEVER, Why};
    use super::*;

    #[test]
    fn the_end_of_a_guard_is_seen_and_not_taken_for_silence() {
        let mut guard = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&guard);
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        assert!(!ends_within(&handle, TURN));
        guard.kill().unwrap();
        assert!(ends_within(&handle, Timespec { tv_sec: 10, tv_nsec: 0 }));
        guard.wait().unwrap();
    }

    #[test]
    fn a_guard_is_at_fault_when_it_is_silent_or_late() {
        let page = Page::create().unwrap();
        let (begun, mut late) = (page.heartbeat_ns(), None);
        let mut check = |after_ns, expect| assert_eq!(fault(&page, begun + after_ns, &mut late), expect);
        check(SILENCE_NS, None);
        check(SILENCE_NS + 1, None);
        check(SILENCE_NS + 1 + LATE_NS, None);
        check(SILENCE_NS + 2 + LATE_NS, Some("does not look at its deadline"));
        check(0, None);
        page.set_deadline_ns(0);
        check(100, None);
        check(100 + LATE_NS, None);
        check(101 + LATE_NS, Some("has let its deadline pass"));
        page.set_deadline_ns(NEVER);
        check(102 + LATE_NS, None);
        page.set_deadline_ns(0);
        check(103 + LATE_NS, None);
        page.set_why(Why::Deadline);
        check(SILENCE_NS + 1, None);
    }
}
