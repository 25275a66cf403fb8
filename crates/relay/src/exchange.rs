//! One request and its answer, in the hands of a handler.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::body::Body;
use crate::codec::request::RequestHead;
use crate::codec::text::Text;
use crate::codec::write::Keep;
use crate::connection::Client;
use crate::meter::Meter;
use crate::outcome::{Cause, Outcome};
use crate::secure::Inner;
use crate::thread::Thread;

/// What a server does with requests. One is made for each thread, so it need not be `Send`.
#[allow(async_fn_in_trait)] // futures stay on their thread: a Send bound would only be in the way
pub trait Handler: 'static {
    /// Answers the request, by exactly one of `reply`, `reply_file` and a `forward` that succeeds.
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended>;
}

/// The exchange is over before its time, because the client or the connection to it failed; there is nobody
/// left to answer. Handlers pass it on with `?`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the exchange ended before its answer was complete")]
pub struct Ended;

/// See the head of this file.
pub struct Exchange<'c> {
    pub(crate) thread: &'c Rc<Thread>,
    pub(crate) client: &'c mut Client,
    pub(crate) head: &'c RequestHead,
    /// What was not yet read of the request's body.
    pub(crate) body: Body,
    pub(crate) answer: Answer,
    /// Whether the client's connection may serve another request.
    pub(crate) keep: bool,
    pub(crate) outcome: Outcome,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    None,
    /// Its head may be with the client, so no other answer can be given.
    Begun,
    Complete,
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.head.method(), self.head.target(), self.client.address)
    }
}

impl<'c> Exchange<'c> {
    pub(crate) fn new(
        thread: &'c Rc<Thread>,
        client: &'c mut Client,
        head: &'c RequestHead,
        body: Body,
        outcome: Outcome,
    ) -> Self {
        Self { thread, client, head, body, answer: Answer::None, keep: head.keeps_alive(), outcome }
    }

    /// The request; it outlives every borrow of the exchange.
    pub fn request(&self) -> &'c RequestHead {
        self.head
    }

    /// Who sent it: the other end of the connection, or whom a proxy there is trusted to speak for.
    pub fn client(&self) -> SocketAddr {
        self.outcome.client
    }

    /// The other end of the connection is a proxy, and this is its client.
    pub(crate) fn speaks_for(&mut self, client: std::net::IpAddr) {
        self.outcome.client = SocketAddr::new(client, 0);
    }

    /// Takes no longer body than this. False: it is known to be longer. One that comes in chunks and turns out longer
    /// ends in [`ForwardError::BadRequest`](crate::ForwardError) and 413.
    pub fn limit_body(&mut self, bytes: u64) -> bool {
        match &mut self.body {
            Body::Length(length) => *length <= bytes,
            Body::Chunked(chunked) => {
                chunked.limit(bytes);
                true
            }
            Body::UntilClose => true,
        }
    }

    /// When the head of the request was complete.
    pub fn began(&self) -> Instant {
        self.outcome.began
    }

    /// Whether an answer has begun; then no other can be given.
    pub fn is_answered(&self) -> bool {
        self.answer != Answer::None
    }

    /// The name of this request, which no other has: 32 hexadecimal digits, unless a trusted proxy gave it one.
    pub fn id(&self) -> String {
        self.outcome.id_text()
    }

    pub(crate) fn id_text(&self) -> Text {
        match &self.outcome.given_id {
            Some(given) => Text::Long(given.clone()),
            None => Text::of_id(self.outcome.id),
        }
    }

    /// A proxy that is trusted has named this request before.
    pub(crate) fn takes_id(&mut self, id: String) {
        self.outcome.given_id = Some(id);
    }

    /// Whom this request counts for from here on: a server that is asked next, or a pool that has none.
    pub fn counts_for(&mut self, meter: &Arc<Meter>) {
        self.outcome.meter = Some(Arc::clone(meter));
    }

    /// It has waited so long for a server to have room.
    pub fn waited(&mut self, time: Duration) {
        self.outcome.queue += time;
    }

    /// Waits until the client has closed its connection, its own half at least: few who still want an answer do that.
    /// Never ends for a client that has sent more, its body or its next request.
    pub async fn client_left(&mut self) {
        std::future::poll_fn(|context| self.client.stream.poll_closed(context)).await;
    }

    /// For so long it has waited in all.
    pub fn queued(&self) -> Duration {
        self.outcome.queue
    }

    /// Why the answer that follows is one of our own, or none comes.
    pub fn because(&mut self, cause: Cause) {
        self.outcome.cause = Some(cause);
    }

    /// It is not in the access log: a question of our own servers among themselves.
    pub fn unlogged(&mut self) {
        self.outcome.is_logged = false;
    }

    /// What the head of the answer says of the connection, which is then kept to: a client that was not told of the
    /// end may have sent its next request.
    pub(crate) fn keep_text(&mut self) -> Keep {
        let is_newer = |inner: &Inner| inner.revoked() != self.client.revoked;
        self.keep &=
            !self.thread.draining.get() && !self.thread.settings.inner.as_ref().is_some_and(is_newer);
        match (self.keep, self.head.is_http_1_0()) {
            (false, _) => Keep::Close,
            (true, true) => Keep::Said,
            (true, false) => Keep::Implied,
        }
    }

    /// Notes why it ended before its time.
    pub(crate) fn broke(&mut self, cause: Cause) -> Ended {
        self.outcome.cause.get_or_insert(cause);
        self.keep = false;
        Ended
    }

    /// What became of it, whether the connection goes on, and whether it must linger before it is closed.
    pub(crate) fn finish(mut self, handled: bool) -> (Outcome, bool, bool) {
        self.outcome.total = self.outcome.began.elapsed();
        let complete = handled && self.answer == Answer::Complete;
        let goes_on = complete && self.keep && self.body.is_done();
        let may_come = |client: &Client| !client.buffer.is_empty() || !client.stream.is_quiet_for_sure();
        let lingers = complete && !goes_on && (!self.body.is_done() || may_come(self.client));
        (self.outcome, goes_on, lingers)
    }
}
