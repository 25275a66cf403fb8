//! Waiting until a socket takes more to send, in the runtime's epoll, which says it once.
//!
//! io_uring would say at once, again and again, that a socket is ready whose other end has said that it sends nothing
//! more: it looks for that in every poll. A send that it is to wait with would even get a thread of the kernel's.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// See the head of this file. To be dropped before the socket is.
#[derive(Debug)]
pub(crate) struct Room(AsyncFd<Watched>);

/// A socket that somebody else owns.
#[derive(Debug)]
struct Watched(RawFd);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Room {
    /// Of a socket that nobody else has in the epoll of this thread's runtime.
    pub(crate) fn of(socket: &impl AsRawFd) -> io::Result<Self> {
        let socket = Watched(socket.as_raw_fd());
        // SAFETY: the number stands for one descriptor as long as this is used, since the socket outlives it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE) }?))
    }

    /// After a send that found none: ready when there may be some since that is known, so that it is to be tried again.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_write_ready(context))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
