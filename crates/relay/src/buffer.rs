//! What was read from a connection and not yet used, with free space before it.
//!
//! The space before is where a rewritten head goes, so that it leaves with the body in one write and no body byte
//! is ever copied. Idle connections hold no buffer; a thread keeps some for the next one.

use std::cell::RefCell;

use crate::limits::{BUFFER_BYTES, FREE_BUFFERS, HEADROOM_BYTES, LARGE_BUFFER_BYTES};

/// See the head of this file. Without memory until [`Buffer::ready`] gives it some.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether not one more byte could be read into it.
    pub(crate) fn is_full(&self) -> bool {
        !self.bytes.is_empty() && self.end == self.bytes.len() && self.start <= HEADROOM_BYTES
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        if self.is_empty() {
            (self.start, self.end) =
                (HEADROOM_BYTES.min(self.bytes.len()), HEADROOM_BYTES.min(self.bytes.len()));
        }
    }

    /// Puts `head` before the data. False, and nothing changed, when the space does not suffice.
    pub(crate) fn prepend(&mut self, head: &[u8]) -> bool {
        let fits = head.len() <= self.start;
        if fits {
            self.bytes[self.start - head.len()..self.start].copy_from_slice(head);
            self.start -= head.len();
        }
        fits
    }

    /// Gives it memory, and room for at least one more byte if it is not full.
    pub(crate) fn ready(&mut self, free: &Buffers) {
        if self.bytes.is_empty() {
            self.bytes = free.take();
            (self.start, self.end) = (HEADROOM_BYTES, HEADROOM_BYTES);
        }
        if self.end == self.bytes.len() && self.start > HEADROOM_BYTES {
            self.bytes.copy_within(self.start..self.end, HEADROOM_BYTES);
            (self.start, self.end) = (HEADROOM_BYTES, HEADROOM_BYTES + self.len());
        }
    }

    /// Makes it large enough for the longest head.
    pub(crate) fn enlarge(&mut self) {
        if self.bytes.len() < LARGE_BUFFER_BYTES {
            self.bytes.resize(LARGE_BUFFER_BYTES, 0);
        }
    }

    /// Where the next bytes go; what is filled is told to [`Buffer::filled`].
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    pub(crate) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Gives the memory back when there is nothing in it.
    pub(crate) fn rest(&mut self, free: &Buffers) {
        if self.is_empty() && !self.bytes.is_empty() {
            free.give(std::mem::take(&mut self.bytes));
            (self.start, self.end) = (0, 0);
        }
    }
}

/// Memory that no connection of this thread uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES])
    }

    fn give(&self, bytes: Vec<u8>) {
        let mut free = self.0.borrow_mut();
        if bytes.len() == BUFFER_BYTES && free.len() < FREE_BUFFERS {
            free.push(bytes);
        }
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
        assert_eq!(free.0.borrow().len(), 1);
    }
}
