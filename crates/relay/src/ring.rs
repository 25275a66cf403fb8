//! io_uring under the connections of one thread: what came for many of them is fetched by one system call.
//!
//! A connection's receive is always with the kernel, which takes memory for it from a ring of [`provided`] buffers
//! only when there is something: idle connections cost none, and each is read ahead by one small buffer. What is
//! longer than that is fetched by an ordinary system call when somebody wants it, into memory that is still warm.
//! What is sent on is handed over in the same call that receives. Connecting, accepting, timers and answers of our
//! own stay with the runtime and ordinary system calls.
//!
//! The runtime calls [`before_park`] when it has nothing to do: this hands all receives to the kernel, and while
//! there is traffic it waits there for one to end. That wait is the ring's own, since a wait with a time limit, as
//! the runtime's in epoll, has a timer set and taken back each time, which costs more than all else around it. The
//! ring also looks after the runtime's epoll meanwhile, and a tick tells when nothing comes any more. Then the
//! runtime waits in epoll as always, and an eventfd wakes it (see [`Ring::attend`]).
#![allow(unsafe_code)] // what is handed to the kernel must stay valid until it is done

mod epoll;
pub(crate) mod provided;
pub(crate) mod room;
mod sockets;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::buffer::{Buffer, Buffers, Memory};
use crate::limits::{RING_COMPLETIONS, RING_END_MS, RING_SUBMISSIONS, RING_TICK_MS};

use provided::{GROUP, Provided};
use sockets::{Inbox, Outbox, Sockets};

/// io_uring_enter(2): IORING_ENTER_GETEVENTS.
const ENTER_GETEVENTS: u32 = 1;

/// io_uring_enter(2), IORING_OP_RECV: IORING_RECVSEND_POLL_FIRST.
const RECEIVE_POLL_FIRST: u16 = 1;

/// How long the thread waits in the ring while nothing comes.
static TICK: Timespec = Timespec::new().nsec(RING_TICK_MS * 1_000_000);

thread_local! {
    /// The ring of this thread: the runtime's hook may hold nothing that stays on its thread.
    static HERE: RefCell<Option<Rc<Ring>>> = const { RefCell::new(None) };
}

/// See the head of this file.
pub(crate) struct Ring {
    uring: RefCell<IoUring>,
    sockets: RefCell<Sockets>,
    provided: RefCell<Provided>,
    buffers: Rc<Buffers>,
    /// Rings when something comes while the thread is parked in epoll.
    bell: AsyncFd<OwnedFd>,
    /// The runtime's epoll, in which it waits for all that does not go through the ring.
    epoll: RawFd,
    /// Whether something came since the thread was last parked.
    is_busy: Cell<bool>,
    /// Whether the kernel has the next tick.
    ticks: Cell<bool>,
    /// Whether the kernel tells when there is something in the runtime's epoll.
    watches_epoll: Cell<bool>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring")
    }
}

/// What a completion belongs to: a socket's place, and which of its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Receive(u32),
    Send(u32),
    Cancel,
    Tick,
    Epoll,
}

impl Operation {
    fn to_user_data(self) -> u64 {
        match self {
            Operation::Receive(place) => u64::from(place),
            Operation::Send(place) => 1 << 32 | u64::from(place),
            Operation::Cancel => 2 << 32,
            Operation::Tick => 3 << 32,
            Operation::Epoll => 4 << 32,
        }
    }

    fn of_user_data(data: u64) -> Self {
        match data >> 32 {
            0 => Operation::Receive(data as u32),
            1 => Operation::Send(data as u32),
            2 => Operation::Cancel,
            3 => Operation::Tick,
            _ => Operation::Epoll,
        }
    }
}

/// To be called by the runtime of every thread that may have a ring, when it has no task to run.
pub(crate) fn before_park() {
    let ring = HERE.with(|here| here.borrow().clone());
    if let Some(ring) = ring {
        ring.park();
    }
}

impl Ring {
    /// Makes the ring of this thread, inside its runtime. An error says that the kernel is too old or forbids it.
    pub(crate) fn open(buffers: &Rc<Buffers>) -> io::Result<Rc<Self>> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(RING_COMPLETIONS)
            .dontfork()
            .build(RING_SUBMISSIONS)?;
        let params = uring.params();
        if !(params.is_feature_nodrop() && params.is_feature_ext_arg() && params.is_feature_fast_poll()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let provided = Provided::register(&uring.submitter(), buffers)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        uring.submitter().register_eventfd(bell.as_raw_fd())?;
        // SAFETY: an owned descriptor is open and the same for as long as it is owned.
        let bell = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) }?;
        let ring = Rc::new(Self {
            uring: RefCell::new(uring),
            sockets: RefCell::default(),
            provided: RefCell::new(provided),
            buffers: Rc::clone(buffers),
            epoll: epoll::that_watches(bell.as_raw_fd())?,
            bell,
            is_busy: Cell::new(false),
            ticks: Cell::new(false),
            watches_epoll: Cell::new(false),
        });
        HERE.with(|here| here.replace(Some(Rc::clone(&ring))));
        Ok(ring)
    }

    /// Looks at the ring when the kernel says that something came while the thread was parked. Ends only by being
    /// dropped.
    pub(crate) async fn attend(self: Rc<Self>) -> io::Result<()> {
        loop {
            self.bell.readable().await?.clear_ready();
            self.uring.borrow_mut().completion().disable_eventfd();
            self.turn();
        }
    }

    /// The last look before the thread is parked. The kernel rings the bell only for a thread that it finds parked.
    fn park(&self) {
        let lingers = self.is_busy.replace(false) && !self.sockets.borrow().is_empty();
        if lingers {
            self.linger();
        }
        if self.is_busy.get() {
            return;
        }
        self.uring.borrow_mut().completion().enable_eventfd();
        // What came before the bell was there is not rung for.
        self.turn();
        // The runtime has something to do, and then traffic is likely to go on.
        let hears_the_runtime = lingers && !self.watches_epoll.get();
        self.is_busy.set(self.is_busy.get() || hears_the_runtime);
    }

    /// Hands over what was prepared, and waits until something has come, for the ring or in the runtime's epoll, or
    /// it is time for a tick.
    fn linger(&self) {
        self.uring.borrow_mut().completion().disable_eventfd();
        if !self.ticks.replace(true) {
            self.push(opcode::Timeout::new(&TICK).build().user_data(Operation::Tick.to_user_data()));
        }
        if !self.watches_epoll.replace(true) {
            let poll = opcode::PollAdd::new(Fd(self.epoll), libc::POLLIN as u32).build();
            self.push(poll.user_data(Operation::Epoll.to_user_data()));
        }
        self.enter(1);
        self.reap();
    }

    /// Hands over what was prepared and takes what has come.
    pub(crate) fn turn(&self) {
        self.enter(0);
        self.reap();
    }

    /// Waits until there are so many completions.
    fn enter(&self, wanted: u32) {
        let entered = {
            let mut uring = self.uring.borrow_mut();
            let count = uring.submission().len() as u32;
            // What the kernel has put off is done only when events are asked for.
            // SAFETY: no argument is passed, and only entries of the submission queue are submitted.
            unsafe { uring.submitter().enter::<libc::sigset_t>(count, wanted, ENTER_GETEVENTS, None) }
        };
        if let Err(error) = entered
            && !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN))
        {
            tracing::error!("io_uring_enter failed: {error}");
        }
    }

    /// Takes all completions that the kernel has made known.
    pub(crate) fn reap(&self) {
        let mut hungry = Vec::new();
        loop {
            let Some(entry) = self.uring.borrow_mut().completion().next() else { break };
            let operation = Operation::of_user_data(entry.user_data());
            let is_traffic = !matches!(operation, Operation::Tick | Operation::Epoll);
            self.is_busy.set(is_traffic || self.is_busy.get());
            let waker = match operation {
                Operation::Receive(place) => {
                    let inbox = self.inbox(entry.result(), entry.flags());
                    self.sockets.borrow_mut().received(place, inbox).unwrap_or_else(|descriptor| {
                        hungry.push((place, descriptor));
                        None
                    })
                }
                Operation::Send(place) => self.sockets.borrow_mut().sent(place, entry.result()),
                Operation::Cancel => None,
                Operation::Tick => {
                    self.ticks.set(false);
                    None
                }
                Operation::Epoll => {
                    self.watches_epoll.set(false);
                    None
                }
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        self.provided.borrow_mut().refill(&self.buffers);
        for (place, descriptor) in hungry {
            self.receive(place, descriptor, true);
        }
    }

    fn inbox(&self, result: i32, flags: u32) -> Inbox {
        let memory =
            io_uring::cqueue::buffer_select(flags).and_then(|id| self.provided.borrow_mut().take(id));
        match (sockets::result(result), memory) {
            (Ok(count @ 1..), Some(memory)) => {
                let bytes = Buffer::received(memory, count);
                Inbox::Bytes { bytes, more: io_uring::cqueue::sock_nonempty(flags) }
            }
            (Ok(_), _) => Inbox::End,
            (Err(error), _) => Inbox::Error(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// Takes a socket in, and has something received for it from now on.
    pub(crate) fn add(&self, descriptor: RawFd) -> u32 {
        let place = self.sockets.borrow_mut().add(descriptor);
        self.receive(place, descriptor, true);
        place
    }

    /// Closes a socket as soon as the kernel has ended what it does with it.
    pub(crate) fn give_up(&self, place: u32, stream: TcpStream) {
        let (receiving, sending) = self.sockets.borrow_mut().give_up(place, stream);
        let cancel = |operation: Operation| {
            let entry = opcode::AsyncCancel::new(operation.to_user_data()).build();
            self.push(entry.user_data(Operation::Cancel.to_user_data()));
        };
        if receiving {
            cancel(Operation::Receive(place));
        }
        if sending {
            cancel(Operation::Send(place));
        }
    }

    /// Gives what has come, or has this task woken when something does.
    pub(crate) fn poll_receive(
        &self,
        context: &Context<'_>,
        place: u32,
        into: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        let mut sockets = self.sockets.borrow_mut();
        let socket = sockets.at(place);
        let (count, more) = match &mut socket.inbox {
            Inbox::Awaited => {
                socket.wake_for(context);
                return Poll::Pending;
            }
            Inbox::End => return Poll::Ready(Ok(0)),
            Inbox::Error(error) => return Poll::Ready(Err(io::Error::from_raw_os_error(*error))),
            Inbox::Bytes { bytes, more } => {
                let count = into.take_in(bytes, &self.buffers);
                if !bytes.is_empty() {
                    return Poll::Ready(Ok(count));
                }
                (count, *more)
            }
            Inbox::More => (0, true),
        };
        let descriptor = socket.descriptor;
        let (fetched, inbox) = if more { self.fetch(descriptor, into) } else { (0, Inbox::Awaited) };
        socket.inbox = inbox;
        let receives = socket.is_receiving();
        if count + fetched == 0 && receives {
            socket.wake_for(context);
        }
        drop(sockets);
        if receives {
            self.receive(place, descriptor, false);
        }
        match count + fetched {
            0 if receives => Poll::Pending,
            0 => self.poll_receive(context, place, into),
            count => Poll::Ready(Ok(count)),
        }
    }

    /// Receives by a system call what fits, and says what is to be done next.
    fn fetch(&self, descriptor: RawFd, into: &mut Buffer) -> (usize, Inbox) {
        into.widen(&self.buffers);
        into.ready(&self.buffers);
        let space = into.space();
        let wanted = space.len();
        // SAFETY: the descriptor is that of a socket in the list, which is open.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        match rustix::net::recv(socket, space, RecvFlags::DONTWAIT) {
            Ok((_, 0)) if wanted > 0 => (0, Inbox::End),
            Ok((_, count)) => {
                into.filled(count);
                (count, if count == wanted { Inbox::More } else { Inbox::Awaited })
            }
            Err(Errno::AGAIN | Errno::INTR) => (0, Inbox::Awaited),
            Err(error) => (0, Inbox::Error(error.raw_os_error())),
        }
    }

    /// Waits until there is something to receive; the end counts.
    pub(crate) fn poll_received(&self, context: &Context<'_>, place: u32) -> Poll<io::Result<()>> {
        self.await_more(place);
        let mut sockets = self.sockets.borrow_mut();
        let socket = sockets.at(place);
        match &socket.inbox {
            Inbox::Awaited => {
                socket.wake_for(context);
                Poll::Pending
            }
            Inbox::Error(error) => Poll::Ready(Err(io::Error::from_raw_os_error(*error))),
            Inbox::Bytes { .. } | Inbox::More | Inbox::End => Poll::Ready(Ok(())),
        }
    }

    /// Has what comes next received by the ring, if that is not so yet.
    pub(crate) fn await_more(&self, place: u32) {
        let descriptor = {
            let mut sockets = self.sockets.borrow_mut();
            let socket = sockets.at(place);
            if !matches!(socket.inbox, Inbox::More) {
                return;
            }
            socket.inbox = Inbox::Awaited;
            socket.descriptor
        };
        self.receive(place, descriptor, true);
    }

    /// Whether nothing has come, as far as the kernel has told.
    pub(crate) fn is_quiet(&self, place: u32) -> bool {
        self.sockets.borrow_mut().at(place).is_receiving()
    }

    /// Whether the other end has closed, and everything before that was received.
    pub(crate) fn has_ended(&self, place: u32) -> bool {
        matches!(self.sockets.borrow_mut().at(place).inbox, Inbox::End)
    }

    /// Whether more has come, as far as is known, and the ring leaves it in the socket.
    pub(crate) fn leaves_more(&self, place: u32) -> bool {
        matches!(self.sockets.borrow_mut().at(place).inbox, Inbox::More)
    }

    /// Whether something was handed over to be sent and is not known to have been.
    pub(crate) fn is_sending(&self, place: u32) -> bool {
        !matches!(self.sockets.borrow_mut().at(place).outbox, Outbox::Free)
    }

    /// Sends so many bytes from the start of the buffer, which is to be the same in every call until one is ready.
    /// A full socket is an error, as with a system call: the ring does not wait for it, see [`room`].
    pub(crate) fn poll_send(
        &self,
        context: &Context<'_>,
        place: u32,
        from: &Buffer,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        let descriptor = {
            let mut sockets = self.sockets.borrow_mut();
            let socket = sockets.at(place);
            socket.wake_for(context);
            match (&socket.outbox, from.memory()) {
                (Outbox::Sent(sent), _) => {
                    let sent = sockets::result(*sent);
                    socket.outbox = Outbox::Free;
                    return Poll::Ready(sent);
                }
                (Outbox::Free, Some(memory)) => socket.outbox = Outbox::Underway(Memory::clone(memory)),
                (Outbox::Free, None) => return Poll::Ready(Ok(0)),
                (Outbox::Underway(_), _) => return Poll::Pending,
            }
            socket.descriptor
        };
        let bytes = &from.data()[..count];
        let send = opcode::Send::new(Fd(descriptor), bytes.as_ptr(), bytes.len() as u32);
        let entry = send.flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT).build();
        self.push(entry.user_data(Operation::Send(place).to_user_data()));
        Poll::Pending
    }

    /// Hands a receive to the kernel. `now`: something may be there already, so that it is worth a look before
    /// waiting for it.
    fn receive(&self, place: u32, descriptor: RawFd, now: bool) {
        let receive = opcode::Recv::new(Fd(descriptor), std::ptr::null_mut(), 0)
            .buf_group(GROUP)
            .ioprio(if now { 0 } else { RECEIVE_POLL_FIRST })
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(receive.user_data(Operation::Receive(place).to_user_data()));
    }

    fn push(&self, entry: squeue::Entry) {
        let mut uring = self.uring.borrow_mut();
        // SAFETY: a receive writes only to provided buffers, which live as long as the ring; what a send reads is kept
        // in the outbox until it has ended, and nobody changes memory that is shared (`Buffer::own`); the others touch
        // no memory. A descriptor is closed only after its operations, see `sockets`.
        while unsafe { uring.submission().push(&entry) }.is_err() {
            if let Err(error) = uring.submit() {
                tracing::error!("io_uring_enter failed: {error}");
            }
        }
    }
}

/// Ends the ring of this thread, after all that used it.
pub(crate) fn end() {
    HERE.with(|here| here.replace(None));
}

impl Drop for Ring {
    /// Nothing that the kernel could still write to is freed.
    fn drop(&mut self) {
        let submitter = |ring: &Self| {
            let end = Timespec::new().nsec(RING_END_MS * 1_000_000);
            let uring = ring.uring.borrow();
            let _ = uring.submit();
            uring.submitter().register_sync_cancel(Some(end), CancelBuilder::any())
        };
        if let Err(error) = submitter(self)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!("cannot cancel what a ring has under way: {error}");
        }
        self.turn();
        if self.sockets.borrow().pending() > 0 {
            tracing::warn!("the kernel did not end all operations of a ring; their memory is not freed");
            self.provided.borrow_mut().forget();
            self.sockets.borrow_mut().forget();
        }
    }
}
