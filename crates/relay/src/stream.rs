//! The seam between the engine and the kernel: all that is ever done with a connection's socket.
//!
//! Two drivers stand behind it. [`epoll`] is tokio's own and works everywhere; `ring` is io_uring, where the kernel
//! allows it. [`tls`] is the first of them with TLS over it. Whoever uses a stream cannot tell them apart.

pub(crate) mod epoll;
mod ring;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, Shutdown};
use rustix::pipe::SpliceFlags;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::buffer::{Buffer, Buffers};
use crate::limits::Io;
use crate::pipes::Pipe;
use crate::ring::Ring;
use crate::secure::Secured;

const SPLICE: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// What moves the bytes of a thread's connections.
#[derive(Debug)]
pub(crate) enum Driver {
    Epoll,
    Ring(Rc<Ring>),
}

impl Driver {
    /// io_uring if it is wanted and the kernel allows it.
    pub(crate) fn open(wanted: Io, buffers: &Rc<Buffers>) -> Self {
        let ring = match wanted {
            Io::Epoll => {
                tracing::info!("connections go through epoll, as DOLMEN_IO asks");
                return Driver::Epoll;
            }
            Io::Uring => Ring::open(buffers),
        };
        match ring {
            Ok(ring) => {
                tracing::info!("connections go through io_uring");
                Driver::Ring(ring)
            }
            Err(error) => {
                tracing::info!("connections go through epoll, since there is no io_uring here: {error}");
                Driver::Epoll
            }
        }
    }
}

/// One TCP connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Epoll(epoll::Stream),
    Ring(ring::Stream),
    Tls(Box<tls::Stream>),
}

impl Stream {
    pub(crate) fn new(stream: TcpStream, driver: &Driver) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(match driver {
            Driver::Epoll => Stream::Epoll(epoll::Stream(stream)),
            Driver::Ring(ring) => Stream::Ring(ring::Stream::new(stream.into_std()?, ring)),
        })
    }

    /// One of which it is not known yet how it goes on.
    pub(crate) fn unopened(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Stream::Epoll(epoll::Stream(stream)))
    }

    pub(crate) fn secured(stream: TlsStream<TcpStream>) -> Self {
        Stream::Tls(Box::new(tls::Stream::new(stream)))
    }

    /// Connects, from `source` when one is given, and in TLS when that is said.
    pub(crate) async fn connect(
        target: SocketAddr,
        source: Option<IpAddr>,
        secured: Option<&Secured>,
        driver: &Driver,
    ) -> io::Result<Self> {
        let stream = epoll::connect(target, source).await?;
        let Some(secured) = secured else { return Self::new(stream, driver) };
        Ok(Self::secured(Box::pin(secured.connect(stream)).await?))
    }

    /// Waits until there is something to read (the end counts) without needing memory for it.
    pub(crate) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Epoll(stream) => stream.poll_readable(context),
            Stream::Ring(stream) => stream.poll_readable(context),
            Stream::Tls(stream) => stream.poll_readable(context),
        }
    }

    /// Waits until the other end has closed. Never ready once it has sent something instead, behind which nothing can be
    /// seen; so in TLS, where even the end is something that is sent.
    pub(crate) fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Epoll(stream) => stream.poll_closed(context),
            Stream::Ring(stream) => stream.poll_closed(context),
            Stream::Tls(_) => Poll::Pending,
        }
    }

    /// Reads into the buffer, which gets memory only when there is something. 0 at the end.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Buffer,
        free: &Buffers,
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Epoll(stream) => stream.poll_fill(context, buffer, free),
            Stream::Ring(stream) => stream.poll_fill(context, buffer),
            Stream::Tls(stream) => stream.poll_fill(context, buffer, free),
        }
    }

    /// Sends so many bytes from the start of the buffer. Until it is ready, it is only ever asked for the same again:
    /// the kernel may be sending them already.
    pub(crate) fn poll_send_from(
        &mut self,
        context: &mut Context<'_>,
        buffer: &Buffer,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Epoll(_) | Stream::Tls(_) => self.poll_send(context, &buffer.data()[..count]),
            Stream::Ring(stream) => {
                stream.poll_send_from(context, buffer, count).map(|sent| taken(sent, count))
            }
        }
    }

    /// Whether a send has begun that was not told the end of.
    pub(crate) fn may_have_sent(&self) -> bool {
        match self {
            Stream::Epoll(_) => false,
            Stream::Ring(stream) => stream.may_have_sent(),
            Stream::Tls(stream) => stream.may_have_sent(),
        }
    }

    /// Until it is ready, it is only ever asked for the same again.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = match self {
            Stream::Epoll(stream) => stream.poll_send(context, bytes),
            Stream::Ring(stream) => stream.poll_send(context, bytes),
            Stream::Tls(stream) => stream.poll_send(context, bytes),
        };
        sent.map(|sent| taken(sent, bytes.len()))
    }

    /// Whether what comes and goes is what the kernel sees, so that it can move it by itself.
    pub(crate) fn is_plain(&self) -> bool {
        !matches!(self, Stream::Tls(_))
    }

    /// Moves at most so many bytes that have come into an empty pipe, as far as that goes without waiting.
    pub(crate) fn splice_to(&self, pipe: &mut Pipe, count: usize) -> io::Result<usize> {
        let splice = || Ok(rustix::pipe::splice(self, None, &pipe.entry, None, count, SPLICE)?);
        let count = match self {
            Stream::Epoll(stream) => stream.when_readable(splice),
            Stream::Ring(stream) => stream.when_readable(splice),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }?;
        pipe.held += count;
        Ok(count)
    }

    /// Sends what a pipe holds.
    pub(crate) fn poll_splice_from(
        &self,
        context: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let splice = || Ok(rustix::pipe::splice(&pipe.exit, None, self, None, pipe.held, SPLICE)?);
        let sent = match self {
            Stream::Epoll(stream) => stream.poll_when_writable(context, splice),
            Stream::Ring(stream) => stream.poll_when_writable(context, splice),
            Stream::Tls(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        };
        let count = ready!(sent.map(|sent| taken(sent, pipe.held)))?;
        pipe.held -= count;
        Poll::Ready(Ok(count))
    }

    /// Sends as much as fits from a file, without copying it through this process where it need not be encrypted.
    pub(crate) async fn send_file(
        &mut self,
        file: &std::fs::File,
        offset: &mut u64,
        count: usize,
    ) -> io::Result<usize> {
        if let Stream::Tls(stream) = self {
            return stream.send_file(file, offset, count).await;
        }
        let send = || rustix::fs::sendfile(&*self, file, Some(&mut *offset), count).map_err(io::Error::from);
        match &*self {
            Stream::Epoll(stream) => stream.when_writable(send).await,
            Stream::Ring(stream) => stream.when_writable(send).await,
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Makes it idle: what comes from now on is noticed.
    pub(crate) fn rest(&self) {
        if let Stream::Ring(stream) = self {
            stream.rest();
        }
    }

    /// Whether nothing came on this idle connection, as far as the kernel has told: no system call while it has
    /// told nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Stream::Epoll(stream) => stream.is_quiet(),
            Stream::Ring(stream) => stream.is_quiet(),
            Stream::Tls(stream) => stream.is_quiet(),
        }
    }

    /// The same by asking the kernel, for requests that must not be sent twice.
    pub(crate) fn is_quiet_for_sure(&self) -> bool {
        // What a ring has received meanwhile is no longer in the socket.
        self.is_empty() && self.is_quiet()
    }

    /// Whether all that has come was taken out of the socket, as far as the kernel has told. Under epoll
    /// [`Stream::is_quiet`] sees it: only a read that finds nothing lets it believe that there is nothing. A ring asks
    /// for more first, and until that is answered nothing would tell.
    pub(crate) fn is_drained(&self) -> bool {
        match self {
            Stream::Epoll(_) | Stream::Tls(_) => true,
            Stream::Ring(stream) => !stream.may_hold_more() || self.is_empty(),
        }
    }

    /// Whether the socket holds nothing, not even the end.
    fn is_empty(&self) -> bool {
        matches!(peek(self), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says that nothing more will be sent; reading goes on.
    pub(crate) fn end_sending(&mut self) {
        if let Stream::Tls(stream) = self {
            stream.say_end();
        }
        if let Err(error) = rustix::net::shutdown(&*self, Shutdown::Write) {
            tracing::trace!("cannot end sending on a connection: {error}");
        }
    }
}

/// A socket that takes nothing of what it could take would be asked for ever.
fn taken(sent: io::Result<usize>, of: usize) -> io::Result<usize> {
    match sent {
        Ok(0) if of > 0 => Err(io::ErrorKind::WriteZero.into()),
        sent => sent,
    }
}

/// Whether a byte has come (1), or the end (0), which stays where it is.
fn peek(socket: impl AsFd) -> io::Result<usize> {
    let mut byte = [0; 1];
    Ok(rustix::net::recv(socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0)
}

/// Reads into the buffer, which gets memory for it, and keeps none while nothing has come.
fn fill(
    stream: Pin<&mut impl AsyncRead>,
    context: &mut Context<'_>,
    buffer: &mut Buffer,
    free: &Buffers,
) -> Poll<io::Result<usize>> {
    buffer.ready(free);
    let mut space = ReadBuf::new(buffer.space());
    if space.capacity() == 0 {
        return Poll::Ready(Err(full()));
    }
    let read = stream.poll_read(context, &mut space);
    let count = space.filled().len();
    buffer.filled(count);
    if count == 0 {
        // Whoever waits holds no memory for it.
        buffer.rest(free);
    }
    read.map_ok(|()| count)
}

/// Whoever reads must have made space before.
fn full() -> io::Error {
    io::Error::other("a buffer is full")
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Epoll(stream) => stream.0.as_fd(),
            Stream::Ring(stream) => stream.as_fd(),
            Stream::Tls(stream) => stream.as_fd(),
        }
    }
}
