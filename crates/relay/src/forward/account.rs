//! What forwarding notes of itself: for the access log, and for the meters of the server that was asked.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::exchange::{Answer, Exchange};
use crate::outcome::Cause;

use super::error::ForwardError;
use super::pump::Pump;
use super::upstream::Upstream;
use super::way::Way;

impl Exchange<'_> {
    /// A target is asked, the first or another.
    pub(super) fn asks(&mut self, target: SocketAddr) {
        let again = self.outcome.tries > 0;
        let waited = !self.outcome.queue.is_zero();
        self.outcome.asked = if again || waited { Instant::now() } else { self.outcome.began };
        self.outcome.tries += 1;
        self.outcome.target = Some(target);
        self.outcome.first_byte = None;
        if again {
            self.thread.counts().retries.add(1);
        }
        if let Some(meter) = &self.outcome.meter {
            meter.asked(self.thread.index, again);
        }
    }

    /// Whether the connection was there already.
    pub(super) fn reuses(&mut self, reused: bool) {
        self.outcome.reused = reused;
        self.outcome.connect = reused.then_some(Duration::ZERO);
    }

    pub(super) async fn connect(&mut self, way: &Way<'_>) -> Result<Upstream, ForwardError> {
        self.reuses(false);
        let began = Instant::now();
        let connected = Upstream::connect(self.thread, &self.client.deadline, way).await;
        self.outcome.connect = connected.is_ok().then(|| began.elapsed());
        connected
    }

    /// The answer of the target that was asked begins; no other can be given.
    pub(super) fn answers(&mut self, status: u16) {
        self.answer = Answer::Begun;
        self.outcome.status = status;
        self.outcome.cause = None;
        if let Some(meter) = &self.outcome.meter {
            meter.answered(self.thread.index, status, self.outcome.answered_in());
        }
    }

    /// So much of the request's body went to the target, and so much came back, its head included.
    pub(super) fn moved(&mut self, request: &Pump, back: u64) {
        let there = request.moved.saturating_sub(request.head_bytes);
        self.thread.counts().bytes_in.add(there);
        self.thread.counts().bytes_out.add(back);
        self.count(there, back);
    }

    /// A tunnel is over, which counts its bytes itself.
    pub(super) fn tunnelled(&mut self, there: u64, back: u64, late: bool) {
        self.outcome.head_out = self.outcome.bytes_out;
        self.count(there, back);
        if late {
            self.outcome.cause = Some(Cause::TunnelLate);
        }
    }

    fn count(&mut self, there: u64, back: u64) {
        self.outcome.bytes_in += there;
        self.outcome.bytes_out += back;
        if let Some(meter) = &self.outcome.meter {
            meter.moved(self.thread.index, there, back);
        }
    }

    /// Notes why an attempt failed, and closes the client's connection when nothing else can be done.
    pub(super) fn note(&mut self, error: ForwardError) -> ForwardError {
        let cause = error.cause();
        self.outcome.cause = Some(cause);
        if let Some(meter) = &self.outcome.meter {
            meter.failed(self.thread.index, cause);
        }
        if !self.body.is_done() && !error.elsewhere() {
            self.keep = false;
        }
        error
    }
}
