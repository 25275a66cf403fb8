//! What became of one exchange: all that an access log and the counters need, gathered as it happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::request::Refusal;
use crate::codec::text::Text;
use crate::meter::Meter;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The name of this request, which no other has, and the one that a trusted proxy gave it before.
    pub(crate) id: [u64; 2],
    pub(crate) given_id: Option<String>,
    pub(crate) client: SocketAddr,
    /// When the head of the request was complete.
    pub(crate) began: Instant,
    /// 0: nothing was answered.
    pub(crate) status: u16,
    /// What the client sent and was sent, heads included.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// The part of `bytes_out` that was the head.
    pub(crate) head_out: u64,
    /// Of the server that was tried last, or of the pool when none was.
    pub(crate) meter: Option<Arc<Meter>>,
    /// The last target that was tried.
    pub(crate) target: Option<SocketAddr>,
    /// Targets that were tried, beginning with 1; 0 for an answer of our own.
    pub(crate) tries: u32,
    pub(crate) reused: bool,
    /// When the last target was asked.
    pub(crate) asked: Instant,
    /// How long it waited until a server had room.
    pub(crate) queue: Duration,
    /// How long the last connection took to make; zero for one that was there, None when there was none.
    pub(crate) connect: Option<Duration>,
    /// From the beginning until the first byte of the target's answer.
    pub(crate) first_byte: Option<Duration>,
    pub(crate) total: Duration,
    /// Why it ended before its time, or was answered by us.
    pub(crate) cause: Option<Cause>,
    /// What was wrong with a request that was none.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) is_logged: bool,
}

impl Outcome {
    pub(crate) fn new(id: [u64; 2], client: SocketAddr, now: Instant) -> Self {
        Self {
            id,
            given_id: None,
            client,
            began: now,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            head_out: 0,
            meter: None,
            target: None,
            tries: 0,
            reused: false,
            asked: now,
            queue: Duration::ZERO,
            connect: None,
            first_byte: None,
            total: Duration::ZERO,
            cause: None,
            refusal: None,
            is_logged: true,
        }
    }

    pub(crate) fn id_text(&self) -> String {
        self.given_id.clone().unwrap_or_else(|| Text::of_id(self.id).as_str().to_owned())
    }

    /// The answer of the last target, as time since it was asked.
    pub(crate) fn answered_in(&self) -> Option<Duration> {
        Some((self.began + self.first_byte?).saturating_duration_since(self.asked))
    }
}

/// Why an exchange ended before its time, or why it was answered without a server. `docs/balancer.md` says for each
/// what HAProxy calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What came is no request that we take.
    BadRequest,
    /// The request's head did not come in time.
    HeaderLate,
    ClientLeft,
    /// The client stopped sending or reading.
    ClientLate,
    /// The request's body is not valid.
    BadBody,
    RateLimit,
    HeadTooLarge,
    BodyTooLarge,
    /// No server is up, or all that are have been tried.
    NoServer,
    QueueFull,
    /// No server had room in time.
    QueueLate,
    ConnectFailed,
    ConnectLate,
    /// The server closed the connection before it answered.
    ServerLeft,
    /// Its checks failed while the request waited, and it left for another.
    ServerLost,
    FirstByteLate,
    /// The server's answer is not valid.
    BadAnswer,
    /// The server's answer ended before it was complete.
    CutShort,
    BodyLate,
    /// Nothing came through an upgraded connection for too long.
    TunnelLate,
    /// A file became shorter while it was sent, or could not be read.
    FileBroken,
    /// We gave no answer, which is our fault.
    Internal,
}

impl Cause {
    /// All, in the order of their numbers.
    pub const ALL: [(Cause, &'static str); 22] = [
        (Cause::BadRequest, "bad-request"),
        (Cause::HeaderLate, "header-late"),
        (Cause::ClientLeft, "client-left"),
        (Cause::ClientLate, "client-late"),
        (Cause::BadBody, "bad-body"),
        (Cause::RateLimit, "rate-limit"),
        (Cause::HeadTooLarge, "head-too-large"),
        (Cause::BodyTooLarge, "body-too-large"),
        (Cause::NoServer, "no-server"),
        (Cause::QueueFull, "queue-full"),
        (Cause::QueueLate, "queue-late"),
        (Cause::ConnectFailed, "connect-failed"),
        (Cause::ConnectLate, "connect-late"),
        (Cause::ServerLeft, "server-left"),
        (Cause::ServerLost, "server-lost"),
        (Cause::FirstByteLate, "first-byte-late"),
        (Cause::BadAnswer, "bad-answer"),
        (Cause::CutShort, "cut-short"),
        (Cause::BodyLate, "body-late"),
        (Cause::TunnelLate, "tunnel-late"),
        (Cause::FileBroken, "file-broken"),
        (Cause::Internal, "internal"),
    ];

    /// As logs and counters write it.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stand_in_the_order_of_their_numbers() {
        for (number, (cause, name)) in Cause::ALL.into_iter().enumerate() {
            assert_eq!((cause as usize, cause.name()), (number, name));
        }
    }
}
