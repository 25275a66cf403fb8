//! Where a message's body ends, and which of its bytes may pass.
//!
//! A body passes as raw bytes: chunk marks included when the other side takes chunks. Nothing passes that was
//! not looked at.

use super::chunked::{ChunkError, Chunked};

/// What is left of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes. 0: it has ended.
    Length(u64),
    Chunked(Chunked),
    /// An answer that ends when its connection does.
    UntilClose,
}

/// What to do with the bytes at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// So many bytes from the start pass.
    pub pass: usize,
    /// So many after them do not.
    pub skip: usize,
}

impl Body {
    pub const NONE: Self = Body::Length(0);

    /// Says what is to be done with `bytes`, which follow those of the last call. They are changed only where
    /// a trailer section loses fields. Both counts 0: more bytes are needed, or the body has ended.
    pub fn advance(&mut self, bytes: &mut [u8]) -> Result<Step, ChunkError> {
        match self {
            Body::Length(left) => {
                let pass = (*left).min(bytes.len() as u64);
                *left -= pass;
                Ok(Step { pass: pass as usize, skip: 0 })
            }
            Body::Chunked(chunked) => chunked.advance(bytes),
            Body::UntilClose => Ok(Step { pass: bytes.len(), skip: 0 }),
        }
    }

    /// Whether nothing of it is left.
    pub fn is_done(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.is_done(),
            Body::UntilClose => false,
        }
    }

    /// How much is left of it, if that is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Body::Length(left) => Some(*left),
            Body::Chunked(_) | Body::UntilClose => None,
        }
    }

    /// Takes so many bytes off a body of known length that were moved without being shown.
    pub fn passed(&mut self, count: u64) {
        if let Body::Length(left) = self {
            *left = left.saturating_sub(count);
        }
    }

    /// Whether its end can be told without the end of the connection.
    pub fn is_framed(&self) -> bool {
        !matches!(self, Body::UntilClose)
    }

    /// Whether it is over when `available` bytes follow.
    pub fn fits(&self, available: usize) -> bool {
        matches!(self, Body::Length(left) if *left <= available as u64)
    }
}
