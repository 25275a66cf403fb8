//! Moves bytes between a client and a server, and reads along ([`Conversation`]) unless they are encrypted.
//!
//! One value holds both directions, so that what the one learns the other knows without a lock. A direction
//! has a buffer only while there are bytes in it: idle connections of a pool cost no memory here.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use super::follow::Until;
use super::keys::Kept;
use super::wire::Conversation;

/// For each direction of each busy connection. A page of rows fits; a large result takes more turns.
const BUFFER_BYTES: usize = 16 * 1024;

/// Why no more bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The server has ended it, or both have.
    ByServer,
    /// A commit was not confirmed by the replicas; the client has everything up to the warning.
    Unconfirmed,
    /// It is a standby, where only a primary will do.
    ByStandby,
    /// Its lease may be over, so that its answer may be that of an old primary.
    Overdue,
}

/// `F` keeps the session's key, as soon as there is one and before the client has it.
pub(crate) struct Pump<'a, F> {
    pub(crate) client: TcpStream,
    server: TcpStream,
    /// `None` when the bytes are encrypted, or mean nothing to us.
    conversation: Option<Conversation>,
    /// Until when the answers of this server may be passed on.
    until: Option<&'a Until>,
    keep: F,
    kept: Option<Kept>,
    up: Way,
    down: Way,
    /// Nothing more of the server's may reach the client, because of this.
    stopped: Option<Ended>,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    buffer: Vec<u8>,
    /// How much of the buffer is written already.
    written: usize,
    /// Nothing more comes from this side.
    ended: bool,
    /// The end was passed on.
    closed: bool,
    /// Bytes so far.
    moved: u64,
}

impl<'a, F: Fn(&[u8]) -> Kept + Unpin> Pump<'a, F> {
    /// `answer` is the beginning of what the server said; the client gets it first.
    pub(crate) fn new(
        client: TcpStream,
        server: TcpStream,
        conversation: Option<Conversation>,
        until: Option<&'a Until>,
        answer: Vec<u8>,
        keep: F,
    ) -> io::Result<Self> {
        let (up, down) = (Way::default(), Way::default());
        let mut pump =
            Self { client, server, conversation, until, keep, kept: None, up, down, stopped: None };
        pump.down.buffer = answer;
        pump.read_answer()?;
        Ok(pump)
    }

    /// Until both sides have ended, or the server alone: it never ends one direction only. May be dropped and
    /// called again. An error on either side ends both.
    pub(crate) async fn run(&mut self) -> io::Result<Ended> {
        poll_fn(|context| self.poll(context)).await
    }

    /// All bytes so far, both ways.
    pub(crate) fn moved(&self) -> u64 {
        self.up.moved + self.down.moved
    }

    pub(crate) fn idle(&self) -> bool {
        self.conversation.as_ref().is_some_and(Conversation::idle) && self.nothing_kept()
    }

    /// Says something to the client that is not from the server, where that is possible: between two messages.
    /// Whoever does not take it at once just sees the end.
    pub(crate) fn say(&self, message: &[u8]) {
        let between = self.conversation.as_ref().is_some_and(|both| both.answers.between());
        if between && self.nothing_kept() {
            let said = self.client.try_write(message);
            tracing::trace!("told a client why its connection ends: {said:?}");
        }
    }

    fn nothing_kept(&self) -> bool {
        self.up.buffer.is_empty() && self.down.buffer.is_empty()
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        let down = self.poll_down(context)?;
        if down.is_ready() {
            return Poll::Ready(Ok(self.stopped.unwrap_or(Ended::ByServer)));
        }
        // When the client ends, the server ends soon after.
        let _ = self.poll_up(context)?;
        Poll::Pending
    }

    fn poll_up(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.up.flush(&mut self.server, context))?;
            if self.up.ended {
                return self.up.close(&mut self.server, context);
            }
            ready!(self.up.fill(&mut self.client, context))?;
            if let Some(conversation) = &mut self.conversation {
                conversation.asks.read(&self.up.buffer);
            }
        }
    }

    fn poll_down(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Asked after the answer was read, so that it was given before.
            if !self.down.buffer.is_empty() && self.until.is_some_and(Until::is_over) {
                self.stopped = Some(Ended::Overdue);
                return Poll::Ready(Ok(()));
            }
            ready!(self.down.flush(&mut self.client, context))?;
            if self.stopped.is_some() || self.down.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.down.fill(&mut self.server, context))?;
            self.read_answer()?;
        }
    }

    /// Reads what is in the buffer, and takes away what the client must not see.
    fn read_answer(&mut self) -> io::Result<()> {
        let Some(conversation) = &mut self.conversation else { return Ok(()) };
        let stop = conversation.answers.read(&self.down.buffer);
        let stop = stop.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(stop) = stop {
            self.down.buffer.truncate(stop);
            let is_standby = conversation.answers.is_standby();
            self.stopped = Some(if is_standby { Ended::ByStandby } else { Ended::Unconfirmed });
        }
        if self.kept.is_none() {
            self.kept = conversation.answers.key().map(&self.keep);
        }
        Ok(())
    }
}

impl Way {
    /// Writes what is kept.
    fn flush(&mut self, to: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let written = ready!(Pin::new(&mut *to).poll_write(context, &self.buffer[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.moved += written as u64;
        }
        self.written = 0;
        self.buffer.clear();
        Poll::Ready(Ok(()))
    }

    /// Reads into the empty buffer, or frees it while there is nothing to read; notes the end.
    fn fill(&mut self, from: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.buffer.reserve_exact(BUFFER_BYTES);
        let read = pin!(from.read_buf(&mut self.buffer)).poll(context)?;
        match read {
            Poll::Ready(read) => self.ended = read == 0,
            Poll::Pending => self.buffer = Vec::new(),
        }
        read.map(|_| Ok(()))
    }

    fn close(&mut self, to: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        self.closed = true;
        Pin::new(to).poll_shutdown(context)
    }
}
