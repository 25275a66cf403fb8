//! The seam between the engine and the kernel: all that is ever done with a connection's socket.
//!
//! Under it is tokio's epoll. Reads and writes try first and wait after; a short read or write tells that the
//! socket is drained or full, so that the next try costs no system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::buffer::{Buffer, Buffers};

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct Stream(TcpStream);

impl Stream {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Connects, from `source` when one is given.
    pub(crate) async fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<Self> {
        let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            // So that one local port may serve connections to several targets.
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::new(source, 0))?;
        }
        Self::new(socket.connect(target).await?)
    }

    /// Waits until there is something to read (the end counts) without needing memory for it.
    pub(crate) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(context)
    }

    /// Reads into the buffer, which gets memory only when there is something. 0 at the end.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Buffer,
        free: &Buffers,
    ) -> Poll<io::Result<usize>> {
        ready!(self.0.poll_read_ready(context))?;
        buffer.ready(free);
        let mut space = ReadBuf::new(buffer.space());
        if space.capacity() == 0 {
            return Poll::Ready(Err(io::Error::other("a buffer is full")));
        }
        ready!(Pin::new(&mut self.0).poll_read(context, &mut space))?;
        let count = space.filled().len();
        buffer.filled(count);
        Poll::Ready(Ok(count))
    }

    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.0).poll_write(context, bytes))? {
            0 if !bytes.is_empty() => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => Poll::Ready(Ok(count)),
        }
    }

    /// Sends as much as fits from a file, without copying it through this process.
    pub(crate) async fn send_file(
        &self,
        file: &std::fs::File,
        offset: &mut u64,
        count: usize,
    ) -> io::Result<usize> {
        let send = || rustix::fs::sendfile(&self.0, file, Some(&mut *offset), count).map_err(io::Error::from);
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// Whether nothing came on this idle connection, as far as the runtime was told: no system call while it
    /// was told nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        matches!(self.0.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same by asking the kernel, for requests that must not be sent twice.
    pub(crate) fn is_quiet_for_sure(&self) -> bool {
        let mut byte = [0; 1];
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(&self.0, &mut byte[..], peek), Err(rustix::io::Errno::AGAIN))
    }

    /// Says that nothing more will be sent; reading goes on.
    pub(crate) fn end_sending(&self) {
        if let Err(error) = rustix::net::shutdown(&self.0, Shutdown::Write) {
            tracing::trace!("cannot end sending on a connection: {error}");
        }
    }
}
