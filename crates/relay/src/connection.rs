//! One client's connection: requests one after the other until somebody wants no more.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Instant;

use crate::access_log::Entry;
use crate::buffer::Buffer;
use crate::clock::Deadline;
use crate::codec::body::Body;
use crate::codec::proxy;
use crate::codec::request::{Refusal, RequestHead};
use crate::codec::scan::{Found, Scan};
use crate::codec::write::{self, Keep};
use crate::exchange::{Exchange, Handler};
use crate::limits::{
    FIRST_REQUEST_GRACE_MS, FREE_EXCHANGES, LINGER_DRAINING_MS, LINGER_MS, LINGER_QUIET_MS,
    LINGER_SLICE_BYTES,
};
use crate::outcome::{Cause, Outcome};
use crate::page;
use crate::secure::Inner;
use crate::stream::Stream;
use crate::thread::Thread;

/// The client's side of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: Stream,
    pub(crate) address: SocketAddr,
    /// What came and was not used: the rest of a request, and pipelined ones after it.
    pub(crate) buffer: Buffer,
    pub(crate) deadline: Deadline,
    /// How many keys had been revoked when it showed its own, see [`Inner`](crate::secure::Inner).
    pub(crate) revoked: usize,
}

/// Counts a connection as open for as long as it lives, however its task ends.
struct Open(Rc<Thread>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counts().open.subtract(1);
    }
}

/// What is done with a request once it begins to come. The client comes back with whether its connection goes on.
pub(crate) trait Exchanges: 'static {
    async fn run(&self, thread: Rc<Thread>, client: Client) -> (Client, bool);
}

/// Each request has memory of its own, so that an idle connection holds none of it. What one leaves serves the next, of
/// whichever connection.
struct Recycled<M, F> {
    make: M,
    free: RefCell<Vec<Pin<Box<F>>>>,
}

/// What this handler does with them.
pub(crate) fn exchanges<H: Handler>(handler: H) -> impl Exchanges {
    let handler = Rc::new(handler);
    let make = move |thread, client| exchange(thread, client, Rc::clone(&handler));
    Recycled { make, free: RefCell::default() }
}

impl<M, F> Exchanges for Recycled<M, F>
where
    M: Fn(Rc<Thread>, Client) -> F + 'static,
    F: Future<Output = (Client, bool)> + 'static,
{
    async fn run(&self, thread: Rc<Thread>, client: Client) -> (Client, bool) {
        let exchange = (self.make)(thread, client);
        let free = self.free.borrow_mut().pop();
        let mut memory = match free {
            Some(mut memory) => {
                memory.set(exchange);
                memory
            }
            None => Box::pin(exchange),
        };
        let ended = memory.as_mut().await;
        let mut free = self.free.borrow_mut();
        if free.len() < FREE_EXCHANGES {
            free.push(memory);
        }
        ended
    }
}

pub(crate) fn spawn(thread: Rc<Thread>, exchanges: Rc<impl Exchanges>, stream: Stream, address: SocketAddr) {
    thread.counts().connections.add(1);
    thread.counts().open.add(1);
    let open = Open(thread);
    tokio::task::spawn_local(async move {
        let thread = &open.0;
        let deadline = thread.clock.deadline();
        // Boxed, so that connections of others have no memory for it.
        let opened = match &thread.settings.inner {
            Some(inner) => Box::pin(inner.open(thread, stream, address.ip(), &deadline)).await,
            None => Some(stream),
        };
        let Some(stream) = opened else {
            thread.counts().refused.add(1);
            return;
        };
        let revoked = thread.settings.inner.as_ref().map_or(0, Inner::revoked);
        let mut client = Client { stream, address, buffer: Buffer::default(), deadline, revoked };
        if !introduce(thread, &mut client).await {
            thread.counts().refused.add(1);
            return;
        }
        let mut grace = FIRST_REQUEST_GRACE_MS;
        while wait(thread, &mut client, grace).await {
            grace = 0;
            let goes_on;
            (client, goes_on) = exchanges.run(Rc::clone(thread), client).await;
            if !goes_on {
                break;
            }
        }
        client.buffer.consume(usize::MAX);
        client.buffer.rest(&thread.buffers);
    });
}

/// Lets a proxy say who its client is. False: it did not, as it should have.
async fn introduce(thread: &Thread, client: &mut Client) -> bool {
    let Client { stream, buffer, deadline, address, .. } = client;
    if !thread.is_proxy(address.ip()) {
        return true;
    }
    deadline.set(thread.timeouts().header_ms);
    loop {
        match proxy::read(buffer.data()) {
            Ok(Some(introduced)) => {
                buffer.consume(introduced.length);
                *address = introduced.client.unwrap_or(*address);
                return true;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!("closed a connection of {address}: {error}");
                return false;
            }
        }
        let filled = std::future::poll_fn(|context| match deadline.check(context) {
            Ok(()) => stream.poll_fill(context, buffer, &thread.buffers),
            Err(_) => Poll::Ready(Ok(0)),
        });
        if !filled.await.is_ok_and(|count| count > 0) {
            return false;
        }
    }
}

/// Waits for the next request without holding memory for it. False when there will be none. While the thread
/// drains, this is `grace_ms` more.
async fn wait(thread: &Thread, client: &mut Client, grace_ms: u64) -> bool {
    let mut granted_ms = None;
    if !client.buffer.is_empty() {
        return true;
    }
    client.buffer.rest(&thread.buffers);
    client.deadline.set(thread.timeouts().idle_ms);
    std::future::poll_fn(|context| {
        if let Poll::Ready(result) = client.stream.poll_readable(context) {
            return Poll::Ready(result.is_ok());
        }
        // What came before the order to end is still answered; poll_readable above has looked.
        if thread.draining.get() {
            let grace_ms = grace_ms.max(thread.idle_grace_ms.get());
            if grace_ms == 0 {
                return Poll::Ready(false);
            }
            // The order may have become a stricter one.
            if granted_ms.replace(grace_ms) != Some(grace_ms) {
                client.deadline.shorten(grace_ms);
            }
        }
        if client.deadline.check(context).is_ok() { Poll::Pending } else { Poll::Ready(false) }
    })
    .await
}

/// One request and its answer. False when the connection is to end.
async fn exchange<H: Handler>(thread: Rc<Thread>, mut client: Client, handler: Rc<H>) -> (Client, bool) {
    let mut head = thread.take_request_head();
    let goes_on = answer(&thread, &mut client, &*handler, &mut head).await;
    thread.give_request_head(head);
    (client, goes_on)
}

async fn answer<H: Handler>(
    thread: &Rc<Thread>,
    client: &mut Client,
    handler: &H,
    head: &mut RequestHead,
) -> bool {
    let (body, head_bytes) = match read_head(thread, client, head).await {
        Ok(read) => read,
        Err(none) => {
            Box::pin(refuse(thread, client, none)).await;
            return false;
        }
    };
    thread.counts().requests.add(1);
    let mut outcome = Outcome::new(thread.fresh_id(), client.address, Instant::now());
    outcome.bytes_in = head_bytes;
    let mut exchange = Exchange::new(thread, client, head, body, outcome);
    let result = handler.handle(&mut exchange).await;
    if result.is_ok() && !exchange.is_answered() {
        // A handler that answers nothing is broken, but its client still gets to know.
        exchange.because(Cause::Internal);
        let _ = Box::pin(exchange.reply(500, &[], b"")).await;
    }
    let (outcome, goes_on, lingers) = exchange.finish(result.is_ok());
    over(thread, Some(head), &outcome);
    if lingers {
        Box::pin(linger(thread, client)).await;
    }
    goes_on
}

/// Counts what became of an exchange, and notes it in the access log.
fn over(thread: &Thread, request: Option<&RequestHead>, outcome: &Outcome) {
    let counts = thread.counts();
    counts.answers[usize::from(outcome.status / 100).min(5)].add(1);
    if let Some(cause) = outcome.cause {
        counts.causes[cause as usize].add(1);
    }
    if let Some(meter) = &outcome.meter {
        meter.pool().unwrap_or(meter).ended(thread.index, outcome);
    }
    if let Some(log) = thread.settings.access_log.as_ref().filter(|log| outcome.is_logged && log.is_on()) {
        let open = thread.counters().open();
        let began = thread.clock.wall_at(outcome.began);
        log.note(thread.index, &Entry { request, outcome, began, open });
    }
}

/// Why there is no request.
enum NoHead {
    /// The client closed, or the connection broke, before the first byte of one.
    Never,
    /// The same, within one.
    Gone,
    Late,
    Refused(Refusal),
}

async fn read_head(
    thread: &Thread,
    client: &mut Client,
    head: &mut RequestHead,
) -> Result<(Body, u64), NoHead> {
    let Client { stream, buffer, deadline, .. } = client;
    let mut scan = Scan::default();
    deadline.set(thread.timeouts().header_ms);
    loop {
        match scan.advance(buffer.data()) {
            Found::Head { begin, end } => {
                let body = head.load(&buffer.data()[begin..end]).map_err(NoHead::Refused)?;
                thread.counts().bytes_in.add(end as u64);
                buffer.consume(end);
                return Ok((body, end as u64));
            }
            Found::Partial if scan.is_hopeless(buffer.data()) => {
                return Err(NoHead::Refused(Refusal::Malformed));
            }
            Found::Partial => {}
            Found::BareLineFeed => return Err(NoHead::Refused(Refusal::BareLineFeed)),
            Found::FirstLineTooLong => return Err(NoHead::Refused(Refusal::TargetTooLong)),
            Found::HeadTooLong => return Err(NoHead::Refused(Refusal::HeadTooLong)),
        }
        if buffer.is_full() {
            buffer.enlarge();
        }
        let filled = std::future::poll_fn(|context| {
            if let Poll::Ready(result) = stream.poll_fill(context, buffer, &thread.buffers) {
                return Poll::Ready(result.map_err(|_| NoHead::Gone));
            }
            deadline.check(context).map_err(|_| NoHead::Late)?;
            Poll::Pending
        });
        match filled.await {
            Ok(count) if count > 0 => {}
            // A client that was only waiting to be asked, or sent nothing but empty lines, is told nothing.
            _ if scan.is_blank(buffer.data()) => return Err(NoHead::Never),
            Ok(_) => return Err(NoHead::Gone),
            Err(error) => return Err(error),
        }
    }
}

/// Answers what is no request, or none that we take.
async fn refuse(thread: &Thread, client: &mut Client, none: NoHead) {
    let mut outcome = Outcome::new(thread.fresh_id(), client.address, Instant::now());
    outcome.bytes_in = client.buffer.len() as u64;
    (outcome.status, outcome.cause, outcome.refusal) = match none {
        NoHead::Never => return,
        NoHead::Gone => (0, Some(Cause::ClientLeft), None),
        NoHead::Late => (408, Some(Cause::HeaderLate), None),
        NoHead::Refused(refusal) => (refusal.status(), Some(Cause::BadRequest), Some(refusal)),
    };
    thread.counts().refused.add(1);
    let mut text = Vec::new();
    if outcome.status > 0 {
        let page = thread.pages().page(outcome.status, &outcome.id_text());
        let length = Some(page.len() as u64);
        write::answer(&mut text, outcome.status, &[page::TYPE], Keep::Close, length, &thread.date());
        outcome.head_out = text.len() as u64;
        text.extend_from_slice(page.as_bytes());
    }
    let sent = send_all(thread, client, &text).await.is_ok();
    outcome.bytes_out = if sent { text.len() as u64 } else { 0 };
    outcome.total = outcome.began.elapsed();
    over(thread, None, &outcome);
    if sent && outcome.status > 0 {
        linger(thread, client).await;
    }
}

/// Sends all of it, or says that the client does not take it.
pub(crate) async fn send_all(thread: &Thread, client: &mut Client, mut bytes: &[u8]) -> Result<(), Cause> {
    client.deadline.set(thread.timeouts().body_ms);
    while !bytes.is_empty() {
        let sent = std::future::poll_fn(|context| {
            if let Poll::Ready(result) = client.stream.poll_send(context, bytes) {
                return Poll::Ready(result.map_err(|_| Cause::ClientLeft));
            }
            client.deadline.check(context).map_err(|_| Cause::ClientLate)?;
            Poll::Pending
        });
        let count = sent.await?;
        thread.counts().bytes_out.add(count as u64);
        client.deadline.set(thread.timeouts().body_ms);
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Reads and forgets what the client still sends, for a while: a close with unread bytes would be a reset, and
/// the client might never see the answer (RFC 9112 section 9.6).
async fn linger(thread: &Thread, client: &mut Client) {
    client.stream.end_sending();
    client.buffer.consume(usize::MAX);
    client.deadline.set(LINGER_QUIET_MS);
    let end = thread.clock.after_ms(LINGER_MS);
    loop {
        let mut seen = 0;
        let goes_on = std::future::poll_fn(|context| {
            if thread.draining.get() {
                client.deadline.shorten(LINGER_DRAINING_MS);
            }
            while seen < LINGER_SLICE_BYTES {
                if client.deadline.check(context).is_err() || thread.clock.now() >= end {
                    return Poll::Ready(false);
                }
                match ready!(client.stream.poll_fill(context, &mut client.buffer, &thread.buffers)) {
                    Ok(0) | Err(_) => return Poll::Ready(false),
                    Ok(count) => seen += count,
                }
                client.buffer.consume(usize::MAX);
                client.deadline.set(LINGER_QUIET_MS);
            }
            Poll::Ready(true)
        });
        if !goes_on.await {
            return;
        }
        thread.give_way().await;
    }
}
