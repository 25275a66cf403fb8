//! A connection to a target, from the pool or new, and the heads that come on it.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use crate::buffer::Buffer;
use crate::clock::Deadline;
use crate::codec::body::Body;
use crate::codec::response::ResponseHead;
use crate::codec::scan::{Found, Scan};
use crate::fleet::connections::Held;
use crate::pool::{Idle, Route};
use crate::stream::Stream;
use crate::thread::Thread;

use super::error::ForwardError;
use super::way::Way;

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: Stream,
    pub(super) buffer: Buffer,
    route: Route,
    /// Counts it, where connections to its target are counted.
    held: Option<Held>,
    /// How often the target had been lost when this was made.
    losses: u32,
    scan: Scan,
    /// Whether its last request and answer were both complete, and it may serve another.
    pub(super) is_reusable: bool,
}

impl Upstream {
    /// An idle connection that still lives, if there is one.
    pub(super) fn reuse(thread: &Thread, way: &Way<'_>, sure: bool) -> Option<Self> {
        let Idle { stream, held, .. } = thread.pool.take(way.route(), way.losses, sure)?;
        thread.counts().reused.add(1);
        Some(Self::new(stream, held, way))
    }

    pub(super) async fn connect(
        thread: &Thread,
        deadline: &Deadline,
        way: &Way<'_>,
    ) -> Result<Self, ForwardError> {
        let held = way.connections.map(|connections| connections.hold());
        let connecting = Stream::connect(way.target, way.source, way.secured, &thread.driver);
        let result = match deadline.within(thread.timeouts().connect_ms, connecting).await {
            Ok(result) => result.map_err(ForwardError::Connect),
            Err(_) => Err(ForwardError::ConnectLate),
        };
        let counts = thread.counts();
        if result.is_ok() {
            counts.connected.add(1)
        } else {
            counts.connect_failures.add(1)
        }
        Ok(Self::new(result?, held, way))
    }

    fn new(stream: Stream, held: Option<Held>, way: &Way<'_>) -> Self {
        Self {
            stream,
            buffer: Buffer::default(),
            route: way.route(),
            held,
            losses: way.losses,
            scan: Scan::default(),
            is_reusable: false,
        }
    }

    pub(super) fn target(&self) -> SocketAddr {
        self.route.0
    }

    pub(super) fn expect_head(&mut self) {
        self.scan = Scan::default();
    }

    /// Reads until a head is complete, and says how the body after it is framed.
    pub(super) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        thread: &Thread,
        head: &mut ResponseHead,
        to_head: bool,
    ) -> Poll<Result<Body, ForwardError>> {
        let bad = |text: &str| Poll::Ready(Err(ForwardError::BadResponse(text.to_owned())));
        loop {
            match self.scan.advance(self.buffer.data()) {
                Found::Head { begin: 0, end } => {
                    let body = head.load(&self.buffer.data()[..end], to_head);
                    self.buffer.consume(end);
                    return Poll::Ready(body.map_err(|error| ForwardError::BadResponse(error.to_string())));
                }
                Found::Partial => {}
                Found::Head { .. } | Found::BareLineFeed => return bad("a line that does not end in CRLF"),
                Found::FirstLineTooLong | Found::HeadTooLong => return bad("a head that is too long"),
            }
            if self.buffer.is_full() {
                self.buffer.enlarge();
            }
            match ready!(self.stream.poll_fill(context, &mut self.buffer, &thread.buffers)) {
                Ok(0) if self.buffer.is_empty() => return dead(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if self.buffer.is_empty() => return dead(error),
                Ok(0) | Err(_) => return bad("it ended within its head"),
                Ok(_) => {}
            }
        }
    }

    /// Puts it into the pool if it may serve again, unless something came after the answer: nobody knows whose
    /// that is. Otherwise closes it.
    pub(super) fn finish(mut self, thread: &Thread) {
        let is_clean = self.buffer.is_empty() && self.is_reusable && self.stream.is_drained();
        self.buffer.consume(usize::MAX);
        self.buffer.rest(&thread.buffers);
        if is_clean && !thread.draining.get() {
            let limits = &thread.settings.limits;
            let until = thread.clock.after_ms(limits.pool_idle_ms);
            let idle = Idle { stream: self.stream, held: self.held, losses: self.losses, until };
            thread.pool.give(self.route, idle, limits.idle_per_target);
        }
    }
}

fn dead(error: io::Error) -> Poll<Result<Body, ForwardError>> {
    Poll::Ready(Err(ForwardError::Died { error, again: false }))
}
