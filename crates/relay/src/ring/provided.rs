//! Memory that the kernel takes when something came and gives back filled: io_uring's provided buffers.
//!
//! Each is a [`Buffer`](crate::buffer::Buffer)'s memory of which the headroom is not lent, so what comes is handed
//! to a connection without being copied, and other memory takes its place.
#![allow(unsafe_code)] // shares a ring of addresses with the kernel

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::buffer::{Buffers, Memory};
use crate::limits::{HEADROOM_BYTES, RING_BUFFERS};

/// The one group of buffers of a ring.
pub(super) const GROUP: u16 = 0;

const _: () = assert!(RING_BUFFERS.is_power_of_two());
const RING_BYTES: usize = RING_BUFFERS as usize * size_of::<BufRingEntry>();

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Provided {
    entries: NonNull<BufRingEntry>,
    tail: u16,
    /// What is lent to the kernel, by the number under which it is lent.
    lent: Vec<Option<Memory>>,
    /// Numbers under which nothing is lent.
    taken: Vec<u16>,
}

impl Provided {
    /// Lends the first buffers. Nothing of it may be freed before the ring is closed.
    pub(super) fn register(submitter: &Submitter<'_>, free: &Buffers) -> io::Result<Self> {
        // SAFETY: new memory at an address of the kernel's choice.
        let address = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                RING_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let entries = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let lent = (0..RING_BUFFERS).map(|_| None).collect();
        let mut provided = Self { entries, tail: 0, lent, taken: (0..RING_BUFFERS).collect() };
        // SAFETY: the entries lie at the start of a page and are unmapped after the ring was closed.
        unsafe { submitter.register_buf_ring_with_flags(address as u64, RING_BUFFERS, GROUP, 0) }?;
        provided.refill(free);
        Ok(provided)
    }

    /// What was lent under this number, which the kernel has given back.
    pub(super) fn take(&mut self, number: u16) -> Option<Memory> {
        let memory = self.lent.get_mut(usize::from(number))?.take();
        if memory.is_some() {
            self.taken.push(number);
        }
        memory
    }

    /// Lends other memory for what was taken.
    pub(super) fn refill(&mut self, free: &Buffers) {
        if self.taken.is_empty() {
            return;
        }
        while let Some(number) = self.taken.pop() {
            let mut memory = free.take_lent();
            let lendable = &mut Memory::make_mut(&mut memory)[HEADROOM_BYTES..];
            let place = usize::from(self.tail & (RING_BUFFERS - 1));
            // SAFETY: the place is within the mapping, and the kernel reads only places before the tail.
            let entry = unsafe { self.entries.add(place).as_mut() };
            entry.set_addr(lendable.as_mut_ptr() as u64);
            entry.set_len(lendable.len() as u32);
            entry.set_bid(number);
            self.lent[usize::from(number)] = Some(memory);
            self.tail = self.tail.wrapping_add(1);
        }
        // SAFETY: the tail is a field of the first entry, which no one else writes.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Frees nothing: the kernel may still write to it.
    pub(super) fn forget(&mut self) {
        std::mem::forget(std::mem::take(&mut self.lent));
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        // SAFETY: what was mapped, and the ring that knew of it is closed.
        if let Err(error) = unsafe { munmap(self.entries.as_ptr().cast(), RING_BYTES) } {
            tracing::debug!("cannot give back the memory of a ring: {error}");
        }
    }
}
