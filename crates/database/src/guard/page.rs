//! The page of memory that a manager and its guard share.
//!
//! A file in memory, so that both find it again after either has become a new binary by `exec`. It holds
//! nothing but atomic integers: whoever stops in the middle of a word leaves the old one or the new one.
#![allow(unsafe_code)] // mapping shared memory; each use has its SAFETY reason

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::time::{ClockId, clock_gettime};

use super::fence::Fence;

/// Another number for another meaning of the words below. A guard that finds one it does not know ends
/// postgres rather than guess.
pub(super) const LAYOUT: u64 = 1;

/// The deadline of a postgres that may run for as long as its manager lives.
pub(crate) const NEVER: u64 = u64::MAX;

#[repr(C)]
struct Words {
    layout: AtomicU64,
    /// On CLOCK_BOOTTIME, in nanoseconds: from then on nothing of postgres may live.
    deadline_ns: AtomicU64,
    /// When the guard last looked at the deadline, on the same clock.
    heartbeat_ns: AtomicU64,
    fence: AtomicU64,
    /// The postmaster as the guard sees it, which in a PID namespace is not the number that others see.
    postmaster: AtomicU64,
    /// Why the guard ended postgres; 0 while it has not.
    why: AtomicU64,
    /// How the postmaster ended, as the kernel says it, or why it could not be started.
    status: AtomicU64,
    /// 1 when every process of postgres is gone.
    gone: AtomicU64,
}

/// Why a guard ended postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its program could not be started.
    NotStarted = 1,
    /// The postmaster ended by itself, or somebody ended it; the rest was ended by the guard.
    Postmaster,
    /// The manager wanted it.
    Ordered,
    /// The deadline passed.
    Deadline,
    /// The manager died.
    ManagerGone,
}

impl Why {
    fn of(number: u64) -> Option<Self> {
        [Self::NotStarted, Self::Postmaster, Self::Ordered, Self::Deadline, Self::ManagerGone]
            .into_iter()
            .find(|why| *why as u64 == number)
    }
}

/// Nanoseconds on the clock that goes on while the machine is suspended.
pub(crate) fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    (now.tv_sec as u64).saturating_mul(1_000_000_000) + now.tv_nsec as u64
}

/// See the head of this file.
pub(crate) struct Page {
    words: *mut Words,
    descriptor: OwnedFd,
}

// SAFETY: the page holds nothing but atomics, and the mapping lives as long as this value.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page(fence {:?}, ended because {:?})", self.fence(), self.why())
    }
}

impl Page {
    pub(crate) fn create() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let descriptor = rustix::fs::memfd_create("dolmen-guard", flags)?;
        rustix::fs::ftruncate(&descriptor, size_of::<Words>() as u64)?;
        rustix::fs::fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let page = Self::map(descriptor)?;
        page.words().layout.store(LAYOUT, Ordering::Relaxed);
        page.words().deadline_ns.store(NEVER, Ordering::Relaxed);
        page.words().heartbeat_ns.store(boottime_ns(), Ordering::Relaxed);
        Ok(page)
    }

    /// Maps a page that came from the other side, or from before an `exec`.
    pub(crate) fn open(descriptor: OwnedFd) -> io::Result<Self> {
        let size = rustix::fs::fstat(&descriptor)?.st_size;
        let seals = rustix::fs::fcntl_get_seals(&descriptor)?;
        if size != size_of::<Words>() as i64 || !seals.contains(SealFlags::SHRINK) {
            return Err(io::Error::other("not a guard's page of this version"));
        }
        let page = Self::map(descriptor)?;
        match page.words().layout.load(Ordering::Relaxed) {
            LAYOUT => Ok(page),
            other => Err(io::Error::other(format!("a guard's page of layout {other}, not {LAYOUT}"))),
        }
    }

    fn map(descriptor: OwnedFd) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; the file has this size and is
        // sealed against shrinking, so every byte of it stays mapped.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size_of::<Words>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &descriptor,
                0,
            )?
        };
        Ok(Self { words: start.cast(), descriptor })
    }

    fn words(&self) -> &Words {
        // SAFETY: the mapping is aligned to a page, has the size of the words, lives as long as this value,
        // and any bytes are valid words, since they are only atomic integers.
        unsafe { &*self.words }
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    pub(crate) fn deadline_ns(&self) -> u64 {
        self.words().deadline_ns.load(Ordering::Acquire)
    }

    /// The guard looks at it at the latest when the old deadline comes.
    pub(crate) fn set_deadline_ns(&self, deadline_ns: u64) {
        self.words().deadline_ns.store(deadline_ns, Ordering::Release);
    }

    pub(crate) fn heartbeat_ns(&self) -> u64 {
        self.words().heartbeat_ns.load(Ordering::Acquire)
    }

    pub(super) fn beat(&self, now_ns: u64) {
        self.words().heartbeat_ns.store(now_ns, Ordering::Release);
    }

    /// How processes are kept from outliving the guard; known when the guard has begun.
    pub(crate) fn fence(&self) -> Option<Fence> {
        Fence::of(self.words().fence.load(Ordering::Acquire))
    }

    pub(super) fn set_fence(&self, fence: Fence) {
        self.words().fence.store(fence as u64, Ordering::Release);
    }

    pub(super) fn postmaster(&self) -> i32 {
        self.words().postmaster.load(Ordering::Acquire) as i32
    }

    pub(super) fn set_postmaster(&self, pid: i32) {
        self.words().postmaster.store(pid as u64, Ordering::Release);
    }

    pub(crate) fn why(&self) -> Option<Why> {
        Why::of(self.words().why.load(Ordering::Acquire))
    }

    pub(super) fn set_why(&self, why: Why) {
        self.words().why.store(why as u64, Ordering::Release);
    }

    /// A wait status, or for [`Why::NotStarted`] an error number.
    pub(crate) fn status(&self) -> i32 {
        self.words().status.load(Ordering::Acquire) as i32
    }

    pub(super) fn set_status(&self, status: i32) {
        self.words().status.store(status as u64, Ordering::Release);
    }

    /// Whether the guard saw the last process of postgres go.
    pub(crate) fn gone(&self) -> bool {
        self.words().gone.load(Ordering::Acquire) == 1
    }

    pub(super) fn set_gone(&self) {
        self.words().gone.store(1, Ordering::Release);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the start and the length of the mapping made in `map`; no reference into it outlives `self`.
        if let Err(error) = unsafe { rustix::mm::munmap(self.words.cast(), size_of::<Words>()) } {
            tracing::debug!("cannot unmap a guard's page: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_words() {
        let ours = Page::create().unwrap();
        let theirs = Page::open(ours.descriptor().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(theirs.deadline_ns(), NEVER);
        ours.set_deadline_ns(7);
        assert_eq!(theirs.deadline_ns(), 7);
        theirs.set_why(Why::Deadline);
        theirs.set_status(9);
        assert_eq!((ours.why(), ours.status(), ours.gone()), (Some(Why::Deadline), 9, false));
    }

    #[test]
    fn a_page_of_another_layout_is_refused() {
        let page = Page::create().unwrap();
        page.words().layout.store(LAYOUT + 1, Ordering::Relaxed);
        let error = Page::open(page.descriptor().try_clone_to_owned().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "a guard's page of layout 2, not 1");
        let other = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert!(Page::open(other).is_err());
    }
}
