//! What was read from a connection and not yet used, with free space before it.
//!
//! The space before is where a rewritten head goes, so that it leaves with the body in one write and no body byte
//! is ever copied. Idle connections hold no buffer; a thread keeps some for the next one.

use std::cell::RefCell;
use std::sync::Arc;

use crate::limits::{BUFFER_BYTES, FREE_BUFFERS, HEADROOM_BYTES, LARGE_BUFFER_BYTES, LENT_BYTES};

/// See the head of this file. Without memory until [`Buffer::ready`] gives it some.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Option<Memory>,
    start: usize,
    end: usize,
}

/// Shared with the kernel while it sends from it; changed only where nobody shares it.
pub(crate) type Memory = Arc<[u8]>;

impl Buffer {
    /// So many bytes that were written into this memory behind the headroom.
    pub(crate) fn received(bytes: Memory, count: usize) -> Self {
        let end = (HEADROOM_BYTES + count).min(bytes.len());
        Self { start: HEADROOM_BYTES.min(end), end, bytes: Some(bytes) }
    }

    /// Takes what another buffer holds: all of it with its memory when this one is empty, and else as much as there is
    /// space for.
    pub(crate) fn take_in(&mut self, other: &mut Self, free: &Buffers) -> usize {
        if self.is_empty() {
            self.rest(free);
            std::mem::swap(self, other);
            return self.len();
        }
        self.ready(free);
        let count = other.len().min(self.capacity() - self.end);
        self.space()[..count].copy_from_slice(&other.data()[..count]);
        self.filled(count);
        other.consume(count);
        other.rest(free);
        count
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether not one more byte could be read into it.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.is_some() && self.end == self.capacity() && self.start <= HEADROOM_BYTES
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.bytes.as_deref().map_or(&[], |bytes| &bytes[self.start..self.end])
    }

    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        let range = self.start..self.end;
        &mut self.own()[range]
    }

    /// The memory that [`Buffer::data`] lies in.
    pub(crate) fn memory(&self) -> Option<&Memory> {
        self.bytes.as_ref()
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        if self.is_empty() {
            let start = HEADROOM_BYTES.min(self.capacity());
            (self.start, self.end) = (start, start);
        }
    }

    /// Puts `head` before the data. False, and nothing changed, when the space does not suffice.
    pub(crate) fn prepend(&mut self, head: &[u8]) -> bool {
        let fits = head.len() <= self.start;
        if fits {
            let place = self.start - head.len()..self.start;
            self.start = place.start;
            self.own()[place].copy_from_slice(head);
        }
        fits
    }

    /// Gives it memory, and room for at least one more byte if it is not full.
    pub(crate) fn ready(&mut self, free: &Buffers) {
        if self.bytes.is_none() {
            self.bytes = Some(free.take());
            (self.start, self.end) = (HEADROOM_BYTES, HEADROOM_BYTES);
        }
        if self.end == self.capacity() && self.start > HEADROOM_BYTES {
            let data = self.start..self.end;
            self.own().copy_within(data, HEADROOM_BYTES);
            (self.start, self.end) = (HEADROOM_BYTES, HEADROOM_BYTES + self.len());
        }
    }

    /// Moves what came in lent memory to memory of the usual size, so that more fits behind it.
    pub(crate) fn widen(&mut self, free: &Buffers) {
        if self.capacity() < BUFFER_BYTES {
            let mut wide = Self::default();
            wide.ready(free);
            wide.space()[..self.len()].copy_from_slice(self.data());
            wide.filled(self.len());
            self.consume(usize::MAX);
            self.rest(free);
            *self = wide;
        }
    }

    /// Makes it large enough for the longest head.
    pub(crate) fn enlarge(&mut self) {
        if self.capacity() < LARGE_BUFFER_BYTES {
            let mut larger = vec![0; LARGE_BUFFER_BYTES];
            larger[self.start..self.end].copy_from_slice(self.data());
            self.bytes = Some(larger.into());
        }
    }

    /// Where the next bytes go; what is filled is told to [`Buffer::filled`].
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let end = self.end;
        &mut self.own()[end..]
    }

    pub(crate) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.capacity());
    }

    /// Gives the memory back when there is nothing in it.
    pub(crate) fn rest(&mut self, free: &Buffers) {
        if self.is_empty()
            && let Some(bytes) = self.bytes.take()
        {
            free.give(bytes);
            (self.start, self.end) = (0, 0);
        }
    }

    fn capacity(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }

    /// Its memory, to change it: that of its own which the kernel reads at the moment is left to the kernel.
    fn own(&mut self) -> &mut [u8] {
        self.bytes.as_mut().map_or(&mut [], |bytes| Arc::make_mut(bytes))
    }
}

/// Memory that no connection of this thread uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    usual: RefCell<Free>,
    lent: RefCell<Free>,
}

#[derive(Debug, Default)]
struct Free {
    list: Vec<Memory>,
    /// How many were here all the time since the last look.
    least: usize,
}

impl Free {
    fn take(&mut self) -> Option<Memory> {
        let memory = self.list.pop();
        self.least = self.least.min(self.list.len());
        memory
    }

    /// Frees what nobody has needed since the last look.
    fn sweep(&mut self) {
        self.list.truncate(self.list.len() - self.least);
        self.least = self.list.len();
    }
}

impl Buffers {
    fn take(&self) -> Memory {
        self.usual.borrow_mut().take().unwrap_or_else(|| vec![0; BUFFER_BYTES].into())
    }

    /// Memory to lend to the kernel, for what is received: small, since most of what comes at once is.
    pub(crate) fn take_lent(&self) -> Memory {
        self.lent.borrow_mut().take().unwrap_or_else(|| vec![0; LENT_BYTES].into())
    }

    fn give(&self, mut bytes: Memory) {
        let free = match bytes.len() {
            BUFFER_BYTES => &self.usual,
            LENT_BYTES => &self.lent,
            _ => return,
        };
        let list = &mut free.borrow_mut().list;
        if list.len() < FREE_BUFFERS && Arc::get_mut(&mut bytes).is_some() {
            list.push(bytes);
        }
    }

    /// Frees what was not needed since the last call.
    pub(crate) fn sweep(&self) {
        self.usual.borrow_mut().sweep();
        self.lent.borrow_mut().sweep();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.usual.borrow().list.is_empty() && self.lent.borrow().list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_goes_before_the_body() {
        let free = Buffers::default();
        let mut buffer = Buffer::default();
        buffer.ready(&free);
        buffer.space()[..8].copy_from_slice(b"headbody");
        buffer.filled(8);
        buffer.consume(4);
        assert!(buffer.prepend(b"a longer head "));
        assert_eq!(buffer.data(), b"a longer head body");
        assert!(!buffer.prepend(&[0; HEADROOM_BYTES]));
        buffer.consume(18);
        buffer.rest(&free);
        assert_eq!(free.usual.borrow().list.len(), 1);
    }

    #[test]
    fn memory_that_nobody_needs_any_more_is_freed() {
        let free = Buffers::default();
        let mut buffers: Vec<_> = (0..3).map(|_| Buffer::default()).collect();
        buffers.iter_mut().for_each(|buffer| buffer.ready(&free));
        buffers.iter_mut().for_each(|buffer| buffer.rest(&free));
        free.sweep();
        let mut buffer = Buffer::default();
        buffer.ready(&free);
        buffer.rest(&free);
        assert_eq!(free.usual.borrow().list.len(), 3);
        free.sweep();
        assert_eq!(free.usual.borrow().list.len(), 1);
        free.sweep();
        assert!(free.is_empty());
    }

    #[test]
    fn what_the_kernel_sends_from_is_not_changed() {
        let free = Buffers::default();
        let mut buffer = Buffer::received(free.take_lent(), 4);
        buffer.data_mut().copy_from_slice(b"sent");
        let sending = buffer.memory().cloned().unwrap();
        buffer.data_mut().copy_from_slice(b"next");
        assert_eq!(&sending[HEADROOM_BYTES..][..4], b"sent");
        assert_eq!(buffer.data(), b"next");
    }

    #[test]
    fn what_came_is_taken_with_its_memory_or_copied_behind_the_rest() {
        let free = Buffers::default();
        let came = |bytes: &[u8]| {
            let mut buffer = Buffer::received(free.take_lent(), bytes.len());
            buffer.data_mut().copy_from_slice(bytes);
            buffer
        };
        let mut buffer = Buffer::default();
        assert_eq!(buffer.take_in(&mut came(b"one"), &free), 3);
        assert_eq!(buffer.take_in(&mut came(b"two"), &free), 3);
        buffer.widen(&free);
        assert_eq!((buffer.data(), buffer.capacity()), (&b"onetwo"[..], BUFFER_BYTES));
        let large = came(&[b'x'; LENT_BYTES - HEADROOM_BYTES]);
        let (mut first, mut more) = (large, came(b"more"));
        assert_eq!(first.take_in(&mut more, &free), 0);
        assert_eq!(more.data(), b"more");
    }
}
