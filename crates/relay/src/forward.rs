//! Sends a request on to another server and its answer back, both streaming, each at the pace of who reads it.
//!
//! A request and its answer move at the same time, in one task: an answer may begin before the request ended
//! (RFC 9112 section 9.5), and 100 must come back before the body goes out.

mod account;
pub mod error;
mod pump;
mod upstream;
pub mod way;

use std::task::{Context, Poll};

use crate::codec::body::Body;
use crate::codec::chunked::Chunked;
use crate::codec::response::ResponseHead;
use crate::codec::write::{self, HeadEdits, Keep, Via};
use crate::exchange::{Answer, Exchange};
use crate::limits::INTERIM_ANSWERS;
use crate::tunnel;

use error::ForwardError;
use pump::{Broken, Pump};
use upstream::Upstream;
use way::Way;

/// Changes on the way: to the request, and to its answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edits<'a> {
    pub request: HeadEdits<'a>,
    pub answer: HeadEdits<'a>,
}

impl<'a> Edits<'a> {
    /// Edits of a server that only adds itself to `Via`, on the way there and on the way back.
    pub fn via(there: &'a str, back: &'a str) -> Self {
        Self::new(&[], there, back)
    }

    /// The same, and these fields of the request are set.
    pub fn new(set: &'a [(&'a str, &'a str)], there: &'a str, back: &'a str) -> Self {
        Self {
            request: HeadEdits { set, via: Via::Add(there), ..HeadEdits::default() },
            answer: HeadEdits { via: Via::Add(back), ..HeadEdits::default() },
        }
    }
}

/// The answer was passed on, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub status: u16,
}

/// How the moving of the request went so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Underway,
    Complete,
    /// The target takes no more of it; its answer may come all the same.
    Refused,
}

impl Exchange<'_> {
    /// Sends the request to a target and passes its answer on. After an error for
    /// which [`ForwardError::elsewhere`] is true, the same request can be forwarded to another target.
    /// Once the answer has begun an error only says that the exchange is over: `reply` then fails as well.
    pub async fn forward(&mut self, way: Way<'_>, edits: &Edits<'_>) -> Result<Forwarded, ForwardError> {
        if self.is_answered() {
            return Err(ForwardError::Over);
        }
        self.asks(way.target);
        // What cannot be sent a second time is sent only where somebody certainly listens.
        let sure = !self.head.is_idempotent() || self.body != Body::NONE;
        if let Some(upstream) = Upstream::reuse(self.thread, &way, sure) {
            self.reuses(true);
            match self.on(upstream, &way, edits).await {
                // It was closed while it was idle, which says nothing about the target.
                Err(error) if error.elsewhere() && error.is_death() => {
                    self.thread.pool.forget(way.route());
                }
                result => return result.map_err(|error| self.note(error)),
            }
        }
        // What is rare is boxed here and below, so that its memory is not part of every exchange.
        let result = match Box::pin(self.connect(&way)).await {
            Ok(upstream) => self.on(upstream, &way, edits).await,
            Err(error) => Err(error),
        };
        result.map_err(|error| self.note(error))
    }

    /// The whole exchange on one connection to a target, which then goes to the pool or is closed.
    async fn on(
        &mut self,
        mut upstream: Upstream,
        way: &Way<'_>,
        edits: &Edits<'_>,
    ) -> Result<Forwarded, ForwardError> {
        let mut answer = self.thread.take_answer_head();
        let result = self.attempt(&mut upstream, &mut answer, way, edits).await;
        self.thread.give_answer_head(answer);
        upstream.finish(self.thread);
        result
    }

    async fn attempt(
        &mut self,
        upstream: &mut Upstream,
        answer: &mut ResponseHead,
        way: &Way<'_>,
        edits: &Edits<'_>,
    ) -> Result<Forwarded, ForwardError> {
        let mut request = Pump::new(self.body.clone());
        let before = self.client.buffer.len();
        self.prepend_request(upstream, &mut request, edits);
        let mut sending = Sending::Underway;
        let body = match self.until_answer(upstream, &mut request, &mut sending, answer, way, edits).await {
            Ok(body) => body,
            Err(error) => {
                self.take_back(request, before);
                return Err(error);
            }
        };
        self.answers(answer.status());
        if answer.status() == 101 {
            self.body = Body::NONE;
            return Box::pin(self.switch(upstream, answer, edits)).await;
        }
        self.pass_answer(upstream, &mut request, &mut sending, answer, body, edits).await?;
        Ok(Forwarded { status: answer.status() })
    }

    /// After a failed attempt: what is left in the buffer is again what the client sent and nobody has taken.
    fn take_back(&mut self, mut request: Pump, before: usize) {
        if request.moved == 0 {
            // Nothing was sent: the request is as it was, but for trailers that it has lost.
            let lost = request.give_up(&mut self.client.buffer);
            let ours = self.client.buffer.len().saturating_sub(before - lost);
            self.client.buffer.consume(ours);
        } else {
            self.moved(&request, 0);
            self.client.buffer.consume(request.taken());
            self.body = request.body;
        }
    }

    /// Puts the head for the target before what is here of the body, so that both leave in one write.
    fn prepend_request(&mut self, upstream: &mut Upstream, request: &mut Pump, edits: &Edits<'_>) {
        let mut text = self.thread.take_scratch();
        write::request(&mut text, self.head, &edits.request, upstream.target());
        self.client.buffer.ready(&self.thread.buffers);
        request.prepend(&mut self.client.buffer, &text);
        self.thread.give_scratch(text);
    }

    /// Moves the request until the head of the final answer, passing interim ones on.
    async fn until_answer(
        &mut self,
        upstream: &mut Upstream,
        request: &mut Pump,
        sending: &mut Sending,
        answer: &mut ResponseHead,
        way: &Way<'_>,
        edits: &Edits<'_>,
    ) -> Result<Body, ForwardError> {
        // A client that waits for 100 is not late, the target is.
        let mut expects = self.head.expects_continue();
        for _ in 0..INTERIM_ANSWERS {
            upstream.expect_head();
            let body = std::future::poll_fn(|context| {
                self.poll_request(context, upstream, request, sending)?;
                let timeouts = self.thread.timeouts();
                match upstream.poll_head(context, self.thread, answer, self.head.is_head()) {
                    Poll::Ready(Ok(body)) => return Poll::Ready(Ok(body)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.died(error, request))),
                    Poll::Pending => {}
                }
                if self.may_repeat(request) && way.leave.is_some_and(|leave| leave()) {
                    return Poll::Ready(Err(ForwardError::Lost));
                }
                if *sending == Sending::Complete && !request.waits {
                    request.waits = true;
                    self.client.deadline.set(timeouts.first_byte_ms);
                }
                match self.client.deadline.check(context) {
                    Ok(()) => Poll::Pending,
                    Err(_) if *sending == Sending::Underway && request.starved && !expects => {
                        Poll::Ready(Err(ForwardError::ClientLate))
                    }
                    Err(_) => Poll::Ready(Err(ForwardError::FirstByteLate)),
                }
            })
            .await?;
            let is_final = !answer.is_interim();
            if is_final {
                self.outcome.first_byte = Some(self.outcome.began.elapsed());
                way.answers.inspect(|answers| answers());
            }
            if answer.status() == 101 && !(self.head.wants_upgrade() && *sending == Sending::Complete) {
                return Err(ForwardError::BadResponse("101 to a request that did not ask for it".into()));
            }
            expects = false;
            if is_final {
                return Ok(body);
            }
            Box::pin(self.pass_interim(answer, edits)).await?;
            // The time of its sending is over, that of the target begins anew.
            request.waits = false;
        }
        Err(ForwardError::BadResponse(format!("more than {INTERIM_ANSWERS} interim answers")))
    }

    /// Moves what can be moved of the request. Only trouble with the client is an error here.
    fn poll_request(
        &mut self,
        context: &mut Context<'_>,
        upstream: &mut Upstream,
        request: &mut Pump,
        sending: &mut Sending,
    ) -> Result<(), ForwardError> {
        if *sending != Sending::Underway {
            return Ok(());
        }
        let client = &mut *self.client;
        let before = request.moved;
        let moved =
            request.poll(context, &mut client.stream, &mut client.buffer, &mut upstream.stream, self.thread);
        if request.moved != before || !request.began {
            request.began = true;
            client.deadline.set(self.thread.timeouts().body_ms);
        }
        match moved {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                *sending = Sending::Complete;
                // The answer comes into the same memory, which is warm.
                client.buffer.rest(&self.thread.buffers);
            }
            Poll::Ready(Err(Broken::Sink(error))) if request.moved == 0 => {
                return Err(ForwardError::NotSent(error));
            }
            Poll::Ready(Err(Broken::Sink(_))) => *sending = Sending::Refused,
            Poll::Ready(Err(Broken::Source)) => return Err(ForwardError::ClientGone),
            Poll::Ready(Err(Broken::Chunk(error))) => return Err(ForwardError::BadRequest(error)),
        }
        Ok(())
    }

    /// A connection that died before an answer: whether the request may go elsewhere.
    fn died(&self, error: ForwardError, request: &Pump) -> ForwardError {
        match error {
            ForwardError::Died { error, .. } => ForwardError::Died { error, again: self.may_repeat(request) },
            other => other,
        }
    }

    /// Whether nothing of it was sent, or it is whole and may be done twice.
    fn may_repeat(&self, request: &Pump) -> bool {
        request.is_untouched() || self.body == Body::NONE && self.head.is_idempotent()
    }

    /// Passes 1xx on, but not to HTTP/1.0 (RFC 9110 section 15.2).
    async fn pass_interim(&mut self, answer: &ResponseHead, edits: &Edits<'_>) -> Result<(), ForwardError> {
        if self.head.is_http_1_0() {
            return Ok(());
        }
        let mut text = Vec::new();
        write::response(&mut text, answer, &edits.answer, Keep::Implied, true, b"");
        self.send(&text).await.map_err(|_| ForwardError::ClientGone)
    }

    /// Moves the answer's body, and what is left of the request, until the answer is complete.
    async fn pass_answer(
        &mut self,
        upstream: &mut Upstream,
        request: &mut Pump,
        sending: &mut Sending,
        answer: &ResponseHead,
        body: Body,
        edits: &Edits<'_>,
    ) -> Result<(), ForwardError> {
        let framed = body.is_framed();
        self.keep &= framed && *sending == Sending::Complete;
        let to_1_0 = self.head.is_http_1_0();
        let mut back = match body {
            Body::Chunked(_) if to_1_0 => {
                self.keep = false;
                Pump::new(Body::Chunked(Chunked::without_marks()))
            }
            body => Pump::new(body),
        };
        let mut text = self.thread.take_scratch();
        let date = self.thread.date();
        write::response(&mut text, answer, &edits.answer, self.keep_text(), !to_1_0, &date);
        back.prepend(&mut upstream.buffer, &text);
        self.thread.give_scratch(text);
        let result = self.poll_both(upstream, request, sending, &mut back).await;
        self.body = request.body.clone();
        self.outcome.head_out = back.head_bytes.min(back.moved);
        self.moved(request, back.moved);
        if result.is_err() && back.is_untouched() {
            // The client has seen none of it, so that it can still be told what is wrong.
            self.answer = Answer::None;
        }
        result?;
        self.answer = Answer::Complete;
        // Only a connection on which nothing can be left over serves another request. A broken server may still send
        // the body that it announced to HEAD or with 304, later than anybody can look.
        upstream.is_reusable =
            *sending == Sending::Complete && framed && answer.keeps_alive() && !answer.keeps_body();
        Ok(())
    }

    async fn poll_both(
        &mut self,
        upstream: &mut Upstream,
        request: &mut Pump,
        sending: &mut Sending,
        back: &mut Pump,
    ) -> Result<(), ForwardError> {
        self.client.deadline.set(self.thread.timeouts().body_ms);
        std::future::poll_fn(|context| {
            self.poll_request(context, upstream, request, sending)?;
            let before = back.moved;
            let client = &mut *self.client;
            let moved = back.poll(
                context,
                &mut upstream.stream,
                &mut upstream.buffer,
                &mut client.stream,
                self.thread,
            );
            if back.moved != before {
                client.deadline.set(self.thread.timeouts().body_ms);
            }
            match moved {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(Broken::Sink(_))) => return Poll::Ready(Err(ForwardError::ClientGone)),
                Poll::Ready(Err(Broken::Source)) => return Poll::Ready(Err(ForwardError::Truncated)),
                Poll::Ready(Err(Broken::Chunk(error))) => {
                    return Poll::Ready(Err(ForwardError::BadResponse(error.to_string())));
                }
                Poll::Pending => {}
            }
            match client.deadline.check(context) {
                Ok(()) => Poll::Pending,
                Err(_) if back.starved => Poll::Ready(Err(ForwardError::BodyLate)),
                Err(_) => Poll::Ready(Err(ForwardError::ClientLate)),
            }
        })
        .await
    }

    /// After 101 the connection belongs to the other protocol.
    async fn switch(
        &mut self,
        upstream: &mut Upstream,
        answer: &ResponseHead,
        edits: &Edits<'_>,
    ) -> Result<Forwarded, ForwardError> {
        self.keep = false;
        let mut text = self.thread.take_scratch();
        let date = self.thread.date();
        write::response(&mut text, answer, &edits.answer, Keep::Upgrade, true, &date);
        let sent = self.send(&text).await;
        self.thread.give_scratch(text);
        sent.map_err(|_| ForwardError::ClientGone)?;
        let (there, back, late) =
            tunnel::run(self.thread, self.client, &mut upstream.stream, &mut upstream.buffer).await;
        self.tunnelled(there, back, late);
        self.answer = Answer::Complete;
        Ok(Forwarded { status: 101 })
    }
}
