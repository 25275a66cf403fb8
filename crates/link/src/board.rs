//! The ready workers of one app server and how busy each is, in memory that three processes share.
//!
//! The app server writes which workers are ready. It and the web server on the same machine both hand
//! requests to them, each counting its own in its own column, so that either may die without leaving the
//! other's count wrong: the one that starts again resets its column. The memory is a sealed memfd (it cannot
//! shrink under a reader) that the agent makes and holds, and that it clears when the app server ends.
#![allow(unsafe_code)] // mapping shared memory; each use has its SAFETY reason

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// The most workers that one app server can publish.
pub const SLOTS: usize = 256;

/// Who counts: each process writes only its own column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    App = 0,
    Web = 1,
}

#[repr(C)]
struct Slot {
    /// IPv4 address in the upper bits, port in the lower 16. 0: no ready worker here.
    address: AtomicU64,
    /// Requests under way, by column.
    busy: [AtomicU32; 2],
}

#[repr(C)]
struct Table {
    /// Counts claims, so that equally busy workers take turns.
    turn: AtomicU64,
    /// One more than the highest slot that was ever ready: a search looks no further.
    used: AtomicU64,
    slots: [Slot; SLOTS],
}

struct Map(*mut Table);

// SAFETY: the table holds nothing but atomics, and the mapping lives as long as this value.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: `self.0` is the start of a mapping of exactly this length, made in `Board::open`, and no
        // reference into it outlives the `Arc<Map>` that is dropped here.
        if let Err(error) = unsafe { rustix::mm::munmap(self.0.cast(), size_of::<Table>()) } {
            tracing::debug!("cannot unmap a board: {error}");
        }
    }
}

/// See the head of this file. Clones share the memory.
#[derive(Clone)]
pub struct Board {
    map: Arc<Map>,
    descriptor: Arc<OwnedFd>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.workers()).finish()
    }
}

impl Board {
    /// Its name among the descriptors that an agent hands over.
    pub const NAME: &'static str = "board";

    pub fn create() -> std::io::Result<Self> {
        let descriptor = rustix::fs::memfd_create(
            "dolmen-board",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL,
        )
        .or_else(|_| {
            rustix::fs::memfd_create("dolmen-board", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        })?;
        rustix::fs::ftruncate(&descriptor, size_of::<Table>() as u64)?;
        rustix::fs::fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::open(descriptor)
    }

    /// Maps a board that came over the link. One of another size, or that could shrink, is refused.
    pub fn open(descriptor: OwnedFd) -> std::io::Result<Self> {
        let size = rustix::fs::fstat(&descriptor)?.st_size;
        let seals = rustix::fs::fcntl_get_seals(&descriptor)?;
        if size != size_of::<Table>() as i64 || !seals.contains(SealFlags::SHRINK) {
            return Err(std::io::Error::other("not a board of this version"));
        }
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; the file has this size and
        // is sealed against shrinking, so every byte of it stays mapped.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size_of::<Table>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &descriptor,
                0,
            )?
        };
        Ok(Self { map: Arc::new(Map(start.cast())), descriptor: Arc::new(descriptor) })
    }

    fn table(&self) -> &Table {
        // SAFETY: the mapping is aligned to a page, has the size of a table, lives as long as `self.map`,
        // and any bytes are a valid table, since it holds only atomic integers.
        unsafe { &*self.map.0 }
    }

    /// Says that the worker in this slot is ready at this address, or with `None` that it is not.
    pub fn set(&self, slot: usize, address: Option<SocketAddrV4>) {
        self.table().used.fetch_max(slot as u64 + 1, Ordering::Release);
        self.table().slots[slot].address.store(address.map_or(0, pack), Ordering::Release);
    }

    /// Says that the worker at this address is not ready any more, unless another one has its slot by now.
    pub fn withdraw(&self, slot: usize, address: SocketAddrV4) {
        let slot = &self.table().slots[slot].address;
        let _ = slot.compare_exchange(pack(address), 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The ready workers, with their slots.
    pub fn workers(&self) -> impl Iterator<Item = (usize, SocketAddrV4)> {
        (0..SLOTS).filter_map(|slot| Some((slot, self.worker(slot)?)))
    }

    /// The address of the ready worker in this slot.
    pub fn worker(&self, slot: usize) -> Option<SocketAddrV4> {
        unpack(self.table().slots.get(slot)?.address.load(Ordering::Acquire))
    }

    pub fn ready(&self) -> usize {
        self.workers().count()
    }

    /// Requests under way at this worker, from both sides.
    pub fn busy(&self, slot: usize) -> u32 {
        self.table().slots[slot].busy.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Forgets what an earlier process of this column counted. Called once when a server starts.
    pub fn reset(&self, column: Column) {
        for slot in &self.table().slots {
            slot.busy[column as usize].store(0, Ordering::Relaxed);
        }
    }

    /// Forgets all workers, when the app server is gone.
    pub fn clear(&self) {
        for slot in 0..SLOTS {
            self.set(slot, None);
        }
        self.reset(Column::App);
    }

    /// Takes the least busy ready worker that `skip` does not name, and counts a request there until the
    /// claim is dropped. None when no such worker is ready.
    pub fn claim(&self, column: Column, skip: impl Fn(usize) -> bool) -> Option<Claim> {
        let turn = self.table().turn.fetch_add(1, Ordering::Relaxed) as usize;
        let used = (self.table().used.load(Ordering::Acquire) as usize).min(SLOTS);
        let ready = |slot: &usize| !skip(*slot) && self.worker(*slot).is_some();
        let least = (0..used).filter(ready).map(|slot| self.busy(slot)).min()?;
        let equal = |slot: &usize| ready(slot) && self.busy(*slot) <= least;
        let count = (0..used).filter(equal).count().max(1);
        // Another thread may have made one of them busier in between; then any ready one will do.
        let slot = (0..used).filter(equal).nth(turn % count).or_else(|| (0..used).find(ready))?;
        let address = self.worker(slot)?;
        self.table().slots[slot].busy[column as usize].fetch_add(1, Ordering::Relaxed);
        Some(Claim { board: self.clone(), column, slot, address })
    }
}

impl AsFd for Board {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// One request at one worker, counted until this is dropped.
#[derive(Debug)]
pub struct Claim {
    board: Board,
    column: Column,
    pub slot: usize,
    pub address: SocketAddrV4,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let count = &self.board.table().slots[self.slot].busy[self.column as usize];
        // Saturating: a reset may have come between.
        let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |busy| busy.checked_sub(1));
    }
}

fn pack(address: SocketAddrV4) -> u64 {
    u64::from(u32::from(*address.ip())) << 16 | u64::from(address.port())
}

fn unpack(packed: u64) -> Option<SocketAddrV4> {
    let address = Ipv4Addr::from((packed >> 16) as u32);
    (packed != 0).then(|| SocketAddrV4::new(address, packed as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, 2), port)
    }

    #[test]
    fn equally_busy_workers_take_turns() {
        let board = Board::create().unwrap();
        board.set(0, Some(address(20001)));
        board.set(1, Some(address(20002)));
        let one_by_one: Vec<_> = (0..4).map(|_| board.claim(Column::Web, |_| false).unwrap().slot).collect();
        assert_eq!(one_by_one, [0, 1, 0, 1]);
        let claims: Vec<_> = (0..4).map(|_| board.claim(Column::Web, |_| false).unwrap()).collect();
        assert_eq!(claims.iter().filter(|claim| claim.slot == 0).count(), 2);
        drop(claims);
        assert_eq!((board.busy(0), board.busy(1)), (0, 0));
    }

    #[test]
    fn both_columns_count_and_each_resets_its_own() {
        let board = Board::create().unwrap();
        let other = Board::open(board.as_fd().try_clone_to_owned().unwrap()).unwrap();
        board.set(7, Some(address(20007)));
        let web = board.claim(Column::Web, |_| false).unwrap();
        let _app = other.claim(Column::App, |_| false).unwrap();
        assert_eq!(board.busy(7), 2);
        other.reset(Column::Web);
        assert_eq!(board.busy(7), 1);
        drop(web);
        assert_eq!(board.busy(7), 1, "a claim from before a reset does not go below zero");
    }

    #[test]
    fn nothing_is_claimed_when_nothing_is_ready() {
        let board = Board::create().unwrap();
        board.set(3, Some(address(20003)));
        assert!(board.claim(Column::App, |slot| slot == 3).is_none());
        board.clear();
        assert!(board.claim(Column::App, |_| false).is_none());
    }

    #[test]
    fn a_worker_that_leaves_does_not_take_another_ones_place_with_it() {
        let board = Board::create().unwrap();
        board.set(1, Some(address(20001)));
        board.withdraw(1, address(20002));
        assert_eq!(board.workers().collect::<Vec<_>>(), [(1, address(20001))]);
        board.withdraw(1, address(20001));
        assert_eq!(board.ready(), 0);
    }

    #[test]
    fn a_board_that_could_shrink_is_refused() {
        let descriptor = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert!(Board::open(descriptor).is_err());
    }
}
