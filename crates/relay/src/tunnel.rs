//! Bytes both ways, after a connection was handed to another protocol (RFC 9110 section 7.8).
//!
//! An end on one side is passed on as such and the other direction goes on. Buffers are held only while there is
//! something in them: a WebSocket is idle most of its life.

use std::task::{Context, Poll};

use crate::buffer::Buffer;
use crate::connection::Client;
use crate::stream::Stream;
use crate::thread::Thread;

/// One direction.
#[derive(Debug, Default)]
struct Way {
    moved: u64,
    ended: bool,
}

/// Moves bytes until both sides have ended, one is broken, or nothing came for the tunnel's idle time.
/// Says how many went to the target, how many came back, and whether it was the time that ended it.
pub(crate) async fn run(
    thread: &Thread,
    client: &mut Client,
    target: &mut Stream,
    from_target: &mut Buffer,
) -> (u64, u64, bool) {
    let (mut there, mut back) = (Way::default(), Way::default());
    client.deadline.set(thread.timeouts().tunnel_ms);
    let late = std::future::poll_fn(|context| {
        let before = there.moved + back.moved;
        let Client { stream, buffer, deadline, .. } = &mut *client;
        let broken = there.poll(context, thread, stream, buffer, target).is_err()
            || back.poll(context, thread, target, from_target, stream).is_err();
        if there.moved + back.moved != before {
            deadline.set(thread.timeouts().tunnel_ms);
        }
        if broken || there.ended && back.ended {
            return Poll::Ready(false);
        }
        if deadline.check(context).is_ok() { Poll::Pending } else { Poll::Ready(true) }
    })
    .await;
    thread.counts().bytes_in.add(there.moved);
    thread.counts().bytes_out.add(back.moved);
    from_target.consume(usize::MAX);
    from_target.rest(&thread.buffers);
    (there.moved, back.moved, late)
}

/// One of the two connections is of no more use.
struct Broken;

impl Way {
    /// Moves on as far as it goes without waiting.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        thread: &Thread,
        from: &mut Stream,
        buffer: &mut Buffer,
        to: &mut Stream,
    ) -> Result<(), Broken> {
        while !self.ended {
            while !buffer.is_empty() {
                match to.poll_send(context, buffer.data()) {
                    Poll::Ready(Ok(count)) => {
                        buffer.consume(count);
                        self.moved += count as u64;
                    }
                    Poll::Ready(Err(_)) => return Err(Broken),
                    Poll::Pending => return Ok(()),
                }
            }
            buffer.rest(&thread.buffers);
            match from.poll_fill(context, buffer, &thread.buffers) {
                Poll::Ready(Ok(0)) => {
                    self.ended = true;
                    to.end_sending();
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(Broken),
                Poll::Pending => break,
            }
        }
        // poll_fill may have taken memory for a read that found nothing.
        buffer.rest(&thread.buffers);
        Ok(())
    }
}
