//! Pipes through which the kernel moves bytes from one socket to another without showing them to this process.
//!
//! A thread keeps some for the next body. One with something in it is closed and never used again.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::limits::{FREE_PIPES, PIPE_BYTES};

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) entry: OwnedFd,
    pub(crate) exit: OwnedFd,
    /// Bytes in it.
    pub(crate) held: usize,
}

/// Pipes that no body of this thread uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Pipes(RefCell<Vec<Pipe>>);

impl Pipes {
    pub(crate) fn take(&self) -> io::Result<Pipe> {
        if let Some(pipe) = self.0.borrow_mut().pop() {
            return Ok(pipe);
        }
        let (exit, entry) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        if let Err(error) = fcntl_setpipe_size(&entry, PIPE_BYTES) {
            tracing::trace!("a pipe stays as small as the kernel made it: {error}");
        }
        Ok(Pipe { entry, exit, held: 0 })
    }

    pub(crate) fn give(&self, pipe: Pipe) {
        let mut free = self.0.borrow_mut();
        if pipe.held == 0 && free.len() < FREE_PIPES {
            free.push(pipe);
        }
    }
}
