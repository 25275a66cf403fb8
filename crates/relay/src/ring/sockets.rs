//! What the ring knows of each socket: which operations the kernel has, what came, whom to wake.
//!
//! A socket that its connection has given up stays here, open, until the kernel has ended all its operations: a
//! descriptor that is closed before could be another connection's when the kernel comes to use it.

use std::io;
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::task::{Context, Waker};

use crate::buffer::{Buffer, Memory};

/// All sockets of a ring. A place is used again once nothing refers to it.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    list: Vec<Socket>,
    free: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) descriptor: RawFd,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    waker: Option<Waker>,
    /// The socket itself, once its connection has given it up.
    given_up: Option<TcpStream>,
}

/// How far receiving is.
#[derive(Debug)]
pub(super) enum Inbox {
    /// The kernel has a receive.
    Awaited,
    /// This came; `more`: and more is in the socket.
    Bytes {
        bytes: Buffer,
        more: bool,
    },
    /// More is in the socket, as far as is known.
    More,
    /// Nothing comes after these two.
    End,
    Error(i32),
}

/// How far sending is.
#[derive(Debug)]
pub(super) enum Outbox {
    Free,
    /// The kernel sends from this memory, or is about to.
    Underway(#[allow(dead_code)] Memory), // kept, not looked at
    /// What a send came to, not yet asked for.
    Sent(i32),
}

impl Socket {
    /// One task uses a connection, whatever it waits for.
    pub(super) fn wake_for(&mut self, context: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }

    pub(super) fn is_receiving(&self) -> bool {
        matches!(self.inbox, Inbox::Awaited)
    }

    pub(super) fn is_sending(&self) -> bool {
        matches!(self.outbox, Outbox::Underway(_))
    }
}

impl Sockets {
    pub(super) fn is_empty(&self) -> bool {
        self.list.len() == self.free.len()
    }

    /// Takes one in for which a receive is handed over next.
    pub(super) fn add(&mut self, descriptor: RawFd) -> u32 {
        let (inbox, outbox) = (Inbox::Awaited, Outbox::Free);
        let socket = Socket { descriptor, inbox, outbox, waker: None, given_up: None };
        if let Some(place) = self.free.pop() {
            self.list[place as usize] = socket;
            return place;
        }
        self.list.push(socket);
        (self.list.len() - 1) as u32
    }

    pub(super) fn at(&mut self, place: u32) -> &mut Socket {
        &mut self.list[place as usize]
    }

    /// Its connection is over. Says whether a receive and a send have to be cancelled.
    pub(super) fn give_up(&mut self, place: u32, stream: TcpStream) -> (bool, bool) {
        let socket = self.at(place);
        socket.waker = None;
        socket.given_up = Some(stream);
        let pending = (socket.is_receiving(), socket.is_sending());
        self.close_if_over(place);
        pending
    }

    /// A receive has ended. None, and nothing changed, when it found no memory and has to be tried again.
    pub(super) fn received(&mut self, place: u32, inbox: Inbox) -> Result<Option<Waker>, RawFd> {
        let socket = self.at(place);
        if socket.given_up.is_none() && matches!(inbox, Inbox::Error(libc::ENOBUFS)) {
            return Err(socket.descriptor);
        }
        socket.inbox = inbox;
        Ok(self.woken(place))
    }

    /// A send has ended.
    pub(super) fn sent(&mut self, place: u32, result: i32) -> Option<Waker> {
        self.at(place).outbox = Outbox::Sent(result);
        self.woken(place)
    }

    fn woken(&mut self, place: u32) -> Option<Waker> {
        self.close_if_over(place);
        self.at(place).waker.take()
    }

    fn close_if_over(&mut self, place: u32) {
        let socket = self.at(place);
        if socket.given_up.is_some() && !socket.is_receiving() && !socket.is_sending() {
            (socket.given_up, socket.inbox, socket.outbox) = (None, Inbox::End, Outbox::Free);
            self.free.push(place);
        }
    }

    /// How many still have an operation with the kernel.
    pub(super) fn pending(&self) -> usize {
        self.list.iter().filter(|socket| socket.is_receiving() || socket.is_sending()).count()
    }

    /// Frees nothing: the kernel may still use it.
    pub(super) fn forget(&mut self) {
        std::mem::forget(std::mem::take(&mut self.list));
    }
}

/// What a completion says: a count, or an error as a negative number.
pub(super) fn result(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
