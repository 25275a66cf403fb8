//! A connection under tokio's epoll. Reads and writes try first and wait after; a short read or write tells that the
//! socket is drained or full, so that the next try costs no system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Interest};
use tokio::net::{TcpSocket, TcpStream};

use crate::buffer::{Buffer, Buffers};

#[derive(Debug)]
pub(crate) struct Stream(pub(crate) TcpStream);

/// Connects, from `source` when one is given.
pub(crate) async fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        // So that one local port may serve connections to several targets.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(target).await
}

impl Stream {
    pub(super) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(context)
    }

    pub(super) fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if ready!(self.0.poll_read_ready(context)).is_err() {
                return Poll::Ready(());
            }
            match self.0.try_io(Interest::READABLE, || super::peek(&self.0)) {
                Ok(0) => return Poll::Ready(()),
                Ok(_) => return Poll::Pending,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Buffer,
        free: &Buffers,
    ) -> Poll<io::Result<usize>> {
        super::fill(Pin::new(&mut self.0), context, buffer, free)
    }

    pub(super) fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    /// Does what receives, unless nothing has come.
    pub(super) fn when_readable(&self, receive: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        self.0.try_io(Interest::READABLE, receive)
    }

    pub(super) fn poll_when_writable(
        &self,
        context: &mut Context<'_>,
        mut send: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match self.0.try_io(Interest::WRITABLE, &mut send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Does what sends, as soon as it does not say that it would have to wait.
    pub(super) async fn when_writable<T>(&self, send: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.0.async_io(Interest::WRITABLE, send).await
    }

    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        matches!(self.0.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}
