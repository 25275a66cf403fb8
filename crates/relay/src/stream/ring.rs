//! A connection under io_uring: receives are always under way, sends are system calls, see [`crate::ring`].

use std::cell::OnceCell;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;

use crate::buffer::Buffer;
use crate::limits::LENT_BYTES;
use crate::ring::Ring;
use crate::ring::room::Room;

#[derive(Debug)]
pub(crate) struct Stream {
    /// There until it is dropped, when the ring gets it.
    stream: Option<TcpStream>,
    ring: Rc<Ring>,
    place: u32,
    /// Made when the socket is full for the first time.
    room: OnceCell<Box<Room>>,
}

impl Stream {
    pub(super) fn new(stream: TcpStream, ring: &Rc<Ring>) -> Self {
        let place = ring.add(stream.as_raw_fd());
        Self { stream: Some(stream), ring: Rc::clone(ring), place, room: OnceCell::new() }
    }

    pub(super) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ring.poll_received(context, self.place)
    }

    pub(super) fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.ring.poll_received(context, self.place) {
            Poll::Ready(Ok(())) if !self.ring.has_ended(self.place) => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }

    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        if buffer.is_full() {
            return Poll::Ready(Err(super::full()));
        }
        self.ring.poll_receive(context, self.place, buffer)
    }

    pub(super) fn poll_send_from(
        &self,
        context: &mut Context<'_>,
        buffer: &Buffer,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        // What was fetched by a system call is sent by one, while it is warm; so is what may have to wait.
        if (count > LENT_BYTES || self.room.get().is_some()) && !self.ring.is_sending(self.place) {
            return self.poll_send(context, &buffer.data()[..count]);
        }
        match self.ring.poll_send(context, self.place, buffer, count) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.poll_send(context, &buffer.data()[..count])
            }
            sent => sent,
        }
    }

    /// Does what receives, unless the ring does or nothing has come.
    pub(super) fn when_readable(&self, receive: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        if self.may_hold_more() { receive() } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    pub(super) fn may_hold_more(&self) -> bool {
        self.ring.leaves_more(self.place)
    }

    pub(super) fn may_have_sent(&self) -> bool {
        self.ring.is_sending(self.place)
    }

    pub(super) fn poll_send(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ring.is_sending(self.place) {
            // It would overtake what was given up by whoever handed it over.
            return Poll::Ready(Err(io::Error::other("an earlier send is under way")));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        self.poll_when_writable(context, || Ok(rustix::net::send(&*self, bytes, flags)?))
    }

    pub(super) async fn when_writable<T>(&self, mut send: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        std::future::poll_fn(|context| self.poll_when_writable(context, &mut send)).await
    }

    pub(super) fn poll_when_writable<T>(
        &self,
        context: &mut Context<'_>,
        mut send: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match send() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.room()?.poll(context))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn room(&self) -> io::Result<&Room> {
        if let Some(room) = self.room.get() {
            return Ok(room);
        }
        let room = Room::of(&self.as_fd())?;
        Ok(self.room.get_or_init(|| Box::new(room)))
    }

    pub(super) fn rest(&self) {
        self.ring.await_more(self.place);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.ring.reap();
        self.ring.is_quiet(self.place)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_ref().expect("a stream has its socket until it is dropped").as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        drop(self.room.take());
        if let Some(stream) = self.stream.take() {
            self.ring.give_up(self.place, stream);
        }
    }
}
