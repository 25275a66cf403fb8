//! A connection in TLS under tokio's epoll. What is read and written goes through memory of the session, so that
//! splice(2) and sendfile(2) have no part in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::buffer::{Buffer, Buffers};

/// What is read of a file at a time: one record of TLS (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Stream {
    stream: TlsStream<TcpStream>,
    /// Bytes that the session has taken, and of which the kernel may not have all yet. Whoever sends is told only when
    /// it has them: nobody else would see to it that they go.
    taken: usize,
}

impl Stream {
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, taken: 0 }
    }

    /// Whether the session holds something that can be read, if only the end.
    fn holds_something(&self) -> bool {
        !self.stream.get_ref().1.wants_read()
    }

    pub(super) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holds_something() {
            return Poll::Ready(Ok(()));
        }
        self.stream.get_ref().0.poll_read_ready(context)
    }

    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Buffer,
        free: &Buffers,
    ) -> Poll<io::Result<usize>> {
        super::fill(Pin::new(&mut self.stream), context, buffer, free)
    }

    /// Until it is ready, it is only ever asked for the same again.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.taken == 0 {
            self.taken = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Poll::Ready(Ok(std::mem::take(&mut self.taken)))
    }

    pub(super) fn may_have_sent(&self) -> bool {
        self.taken > 0
    }

    pub(super) async fn send_file(
        &mut self,
        file: &std::fs::File,
        offset: &mut u64,
        count: usize,
    ) -> io::Result<usize> {
        let mut bytes = vec![0; count.min(RECORD_BYTES)];
        let read = file.read_at(&mut bytes, *offset)?;
        let sent = match &bytes[..read] {
            [] => 0,
            bytes => std::future::poll_fn(|context| self.poll_send(context, bytes)).await?,
        };
        *offset += sent as u64;
        Ok(sent)
    }

    /// Whether certainly nothing has come: an answer that nobody asked for, or the end.
    pub(super) fn is_quiet(&self) -> bool {
        let (tcp, _) = self.stream.get_ref();
        let peeked = tcp.try_io(Interest::READABLE, || super::peek(tcp));
        let is_empty = matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        is_empty && !self.holds_something()
    }

    /// Says that nothing more will be sent, as far as that goes without waiting.
    pub(super) fn say_end(&mut self) {
        self.stream.get_mut().1.send_close_notify();
        // What does not go now never goes: the other end then sees a connection that was cut off, which it was.
        let _ = Pin::new(&mut self.stream).poll_flush(&mut Context::from_waker(Waker::noop()));
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().0.as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.say_end();
    }
}
