//! One request: what clients may ask, who they are, and a server that answers.

use std::sync::Arc;

use relay::{Edits, Ended, Exchange, Handler, HeadEdits, Introduction, Via, page};

use crate::gate::{Gate, Refused};
use crate::pool::Pool;
use crate::reserved::{self, HEALTH};

/// What a client is told to wait, in seconds, when no server is up: about as long as a restart takes.
const RETRY_AFTER_S: u64 = 1;

/// See the head of this file. One for each thread.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    /// What this server adds to `Via`, for example `1.1 balancer-1`.
    pub(crate) via: String,
    pub(crate) shows_via: bool,
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: Arc<Pool>,
}

impl Pass {
    async fn pass(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let introduction = Introduction::of(exchange);
        let set = introduction.fields(exchange.request().host());
        let edits = Edits {
            request: HeadEdits { set: &set, via: Via::Add(&self.via), ..HeadEdits::default() },
            answer: HeadEdits {
                via: if self.shows_via { Via::Add(&self.via) } else { Via::Remove },
                ..HeadEdits::default()
            },
        };
        match self.pool.pass(exchange, &edits).await {
            Ok(()) => Ok(()),
            Err(503) => refuse(exchange, 503, Some(RETRY_AFTER_S), introduction.id()).await,
            Err(status) => refuse(exchange, status, None, introduction.id()).await,
        }
    }
}

impl Handler for Pass {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let path = exchange.request().path();
        if path == HEALTH {
            return exchange.reply(200, &[("content-type", "text/plain")], b"ok\n").await;
        }
        let admitted = self.gate.admit(exchange.client().ip(), exchange.request(), exchange.began());
        let (status, retry_after) = match admitted {
            Ok(()) if reserved::is_reserved(path) => (404, None),
            Ok(()) => return self.pass(exchange).await,
            Err(Refused::TooMany(seconds)) => (429, Some(seconds)),
            Err(Refused::HeadTooLarge) => (431, None),
            Err(Refused::BodyTooLarge) => (413, None),
        };
        let id = exchange.fresh_id();
        refuse(exchange, status, retry_after, &id).await
    }
}

/// An answer of our own, with the request's id. After so many seconds it may be worth trying again.
async fn refuse(
    exchange: &mut Exchange<'_>,
    status: u16,
    retry_after_s: Option<u64>,
    id: &str,
) -> Result<(), Ended> {
    let page = page::error(status, id);
    let retry_after = retry_after_s.unwrap_or_default().to_string();
    let fields = [page::TYPE, ("cache-control", "no-store"), ("retry-after", &retry_after)];
    let used = if retry_after_s.is_some() { fields.len() } else { fields.len() - 1 };
    exchange.reply(status, &fields[..used], page.as_bytes()).await
}
