//! The guard at work: one thread, parent of postgres, that looks at the deadline and takes orders.
//!
//! From the moment it decides to end postgres there is no way back, it allocates nothing, and it waits until
//! the kernel says that no child is left. Nothing it does can be held up by the manager.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::fence::{Fence, Group, kill};
use super::page::{Page, Why, boottime_ns};

/// How often the guard shows that it lives.
const BEAT_NS: u64 = 100_000_000;

/// The longest order: a letter and a path.
pub(super) const ORDER_BYTES: usize = 4097;

/// What the manager may want; each is one message that begins with its letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read the settings again.
    Reload = b'r' as isize,
    /// Cut the clients, let replicas receive everything, end.
    Fast = b'f' as isize,
    /// End at once; crash recovery mends it at the next start.
    Immediate = b'i' as isize,
    /// End every process by force.
    Kill = b'k' as isize,
    /// Become the program whose path follows, postgres untouched.
    Become = b'b' as isize,
}

impl Order {
    fn of(letter: u8) -> Option<Self> {
        [Self::Reload, Self::Fast, Self::Immediate, Self::Kill, Self::Become]
            .into_iter()
            .find(|order| *order as u8 == letter)
    }
}

/// See the head of this file.
pub(super) struct Watch {
    pub(super) page: Page,
    pub(super) socket: OwnedFd,
    pub(super) postmaster: Pid,
    pub(super) fence: Fence,
    pub(super) group: Option<Group>,
}

/// What ends a watch but the end of postgres.
pub(super) enum Turn {
    End(Why),
    Become(Vec<u8>),
}

impl Watch {
    /// Until postgres has ended or must, or the guard is to become another program.
    pub(super) fn until_turn(&self) -> io::Result<Turn> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
        let process = rustix::process::pidfd_open(self.postmaster, PidfdFlags::empty())?;
        loop {
            let now = boottime_ns();
            self.page.beat(now);
            if self.postmaster_ended() {
                return Ok(Turn::End(Why::Postmaster));
            }
            if now >= self.page.deadline_ns() {
                return Ok(Turn::End(Why::Deadline));
            }
            if let Some(turn) = self.order() {
                return Ok(turn);
            }
            self.sleep(&timer, &process, now)?;
        }
    }

    /// Until the deadline, an order, or the next beat; a child that ends is seen at the next beat at the latest,
    /// the postmaster at once.
    fn sleep(&self, timer: &OwnedFd, process: &OwnedFd, now: u64) -> io::Result<()> {
        let until = self.page.deadline_ns().min(now + BEAT_NS);
        let at = Timespec { tv_sec: (until / 1_000_000_000) as i64, tv_nsec: (until % 1_000_000_000) as i64 };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: never, it_value: at })?;
        let mut sources = [
            PollFd::new(timer, PollFlags::IN),
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(process, PollFlags::IN),
        ];
        match poll(&mut sources, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes the remains of every child that ended; true when the postmaster was among them.
    fn postmaster_ended(&self) -> bool {
        let mut ended = false;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            ended |= self.note_end(pid, status.as_raw());
        }
        ended
    }

    fn note_end(&self, pid: Pid, status: i32) -> bool {
        if pid == self.postmaster {
            self.page.set_status(status);
        }
        pid == self.postmaster
    }

    fn order(&self) -> Option<Turn> {
        let mut buffer = [MaybeUninit::uninit(); ORDER_BYTES];
        let message = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok(((message, _), _)) => message,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(_) => return Some(Turn::End(Why::ManagerGone)),
        };
        let Some((letter, rest)) = message.split_first() else {
            return Some(Turn::End(Why::ManagerGone));
        };
        match Order::of(*letter)? {
            Order::Reload => self.signal(Signal::HUP),
            Order::Fast => self.signal(Signal::INT),
            Order::Immediate => self.signal(Signal::QUIT),
            Order::Kill => return Some(Turn::End(Why::Ordered)),
            Order::Become => return Some(Turn::Become(rest.to_vec())),
        }
        None
    }

    /// The postmaster's number is its own until we take its remains.
    fn signal(&self, signal: Signal) {
        if let Err(errno) = kill_process(self.postmaster, signal) {
            eprintln!("dolmen guard: postgres took no {signal:?}: {errno}");
        }
    }

    /// Kills whatever is left of postgres and returns when nothing is.
    pub(super) fn end(&self, why: Why) {
        self.page.set_why(why);
        loop {
            kill(self.fence, self.group.as_ref());
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => drop(self.note_end(pid, status.as_raw())),
                Err(Errno::CHILD) => break,
                Ok(None) | Err(_) => {}
            }
        }
        self.page.set_gone();
    }
}
