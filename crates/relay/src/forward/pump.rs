//! Moves one body from the connection it comes on to the one it goes to, through the buffer of the first.
//!
//! It reads only when all that was read has been sent, so a slow reader slows the writer down and the memory in
//! use is one buffer, whatever the length of the body.

use std::io;
use std::task::{Context, Poll, ready};

use crate::buffer::Buffer;
use crate::codec::body::Body;
use crate::codec::chunked::ChunkError;
use crate::limits::{PIPE_BYTES, SPLICE_FROM_BYTES};
use crate::pipes::Pipe;
use crate::stream::Stream;
use crate::thread::Thread;

#[derive(Debug)]
pub(super) struct Pump {
    /// What has not been looked at.
    pub(super) body: Body,
    /// A head that did not fit before the body.
    head: Vec<u8>,
    /// Bytes at the start of the buffer that may go, and those after them that are left out.
    pass: usize,
    skip: usize,
    /// Bytes that went, and how many of them are the head that was put before the body.
    pub(super) moved: u64,
    /// Whether bytes may have gone of which that is not known.
    may_have_moved: bool,
    /// For what is moved without being looked at.
    pipe: Option<Pipe>,
    pub(super) head_bytes: u64,
    /// Whether it waits for bytes to come, and not for bytes to go.
    pub(super) starved: bool,
    /// Whether it was polled before.
    pub(super) began: bool,
    /// Whether an answer is being waited for.
    pub(super) waits: bool,
}

/// Why a body cannot be moved to its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// It ended too early, or its connection broke.
    Source,
    /// The other side takes no more.
    Sink(io::Error),
    Chunk(ChunkError),
}

impl Pump {
    pub(super) fn new(body: Body) -> Self {
        let head = Vec::new();
        Self {
            body,
            head,
            pass: 0,
            skip: 0,
            moved: 0,
            may_have_moved: false,
            pipe: None,
            head_bytes: 0,
            starved: false,
            began: false,
            waits: false,
        }
    }

    /// Whether certainly nothing of it went.
    pub(super) fn is_untouched(&self) -> bool {
        self.moved == 0 && !self.may_have_moved
    }

    /// Bytes at the start of the buffer that were looked at and are still there.
    pub(super) fn taken(&self) -> usize {
        self.pass + self.skip
    }

    /// Takes out of the buffer what was to be left out, so that what stays can be looked at again from the
    /// start. Says how many bytes that were.
    pub(super) fn give_up(&mut self, buffer: &mut Buffer) -> usize {
        let lost = std::mem::take(&mut self.skip);
        buffer.data_mut().copy_within(..self.pass, lost);
        buffer.consume(lost);
        lost
    }

    /// Sends `head` first, in one write with the beginning of the body if it fits before it.
    pub(super) fn prepend(&mut self, buffer: &mut Buffer, head: &[u8]) {
        self.head_bytes = head.len() as u64;
        if buffer.prepend(head) {
            self.pass = head.len();
        } else {
            self.head = head.to_vec();
        }
    }

    /// Moves on as far as it goes without waiting. Ready when all of it went.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        source: &mut Stream,
        buffer: &mut Buffer,
        sink: &mut Stream,
        thread: &Thread,
    ) -> Poll<Result<(), Broken>> {
        self.starved = false;
        while !self.head.is_empty() {
            let sent = sink.poll_send(context, &self.head);
            self.may_have_moved |= sink.may_have_sent();
            let count = ready!(sent).map_err(Broken::Sink)?;
            self.head.drain(..count);
            self.moved += count as u64;
        }
        loop {
            self.look(buffer).map_err(Broken::Chunk)?;
            while self.pass > 0 {
                let sent = sink.poll_send_from(context, buffer, self.pass);
                self.may_have_moved |= sink.may_have_sent();
                let count = ready!(sent).map_err(Broken::Sink)?;
                buffer.consume(count);
                self.pass -= count;
                self.moved += count as u64;
            }
            if self.skip > 0 {
                buffer.consume(std::mem::take(&mut self.skip));
                continue;
            }
            ready!(self.poll_splice(context, source, buffer, sink, thread))?;
            if self.body.is_done() {
                return Poll::Ready(Ok(()));
            }
            self.starved = true;
            match ready!(source.poll_fill(context, buffer, &thread.buffers)) {
                Ok(0) if !self.body.is_framed() => return Poll::Ready(Ok(())),
                Ok(0) | Err(_) => return Poll::Ready(Err(Broken::Source)),
                Ok(_) => self.starved = false,
            }
        }
    }

    /// Moves the long rest of a body of known length without looking at it, as far as it is here. What it cannot do,
    /// such as waiting for more, is left to the buffer.
    fn poll_splice(
        &mut self,
        context: &mut Context<'_>,
        source: &Stream,
        buffer: &Buffer,
        sink: &Stream,
        thread: &Thread,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held > 0) {
                self.moved += ready!(sink.poll_splice_from(context, pipe)).map_err(Broken::Sink)? as u64;
                continue;
            }
            let from = if self.pipe.is_some() { 1 } else { SPLICE_FROM_BYTES };
            let can = buffer.is_empty() && source.is_plain() && sink.is_plain();
            let left = self.body.left().filter(|left| can && *left >= from);
            let Some(left) = left else { break };
            if self.pipe.is_none() {
                self.pipe = thread.pipes.take().ok();
            }
            let Some(pipe) = &mut self.pipe else { break };
            match source.splice_to(pipe, left.min(PIPE_BYTES as u64) as usize) {
                Ok(count) if count > 0 => self.body.passed(count as u64),
                _ => return Poll::Ready(Ok(())),
            }
        }
        if let Some(pipe) = self.pipe.take() {
            thread.pipes.give(pipe);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes as many of the bytes at hand as can go in one piece.
    fn look(&mut self, buffer: &mut Buffer) -> Result<(), ChunkError> {
        while self.skip == 0 && !self.body.is_done() && buffer.len() > self.pass {
            let step = self.body.advance(&mut buffer.data_mut()[self.pass..])?;
            self.pass += step.pass;
            self.skip = step.skip;
            if step.pass == 0 {
                break;
            }
        }
        Ok(())
    }
}
