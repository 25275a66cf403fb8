//! One request: what clients may ask, who they are, and a server that answers.

use std::sync::Arc;

use plan::To;
use relay::{Cause, Current, Edits, Ended, Exchange, Handler, HeadEdits, Introduction, Via};

use crate::gate::Refused;
use crate::pool::Failed;
use crate::reserved::{self, HEALTH};
use crate::routes;
use crate::setup::Setup;

/// What a client is told to wait, in seconds, when no server is up: about as long as a restart takes.
const RETRY_AFTER_S: u64 = 1;

/// See the head of this file. One for each thread.
#[derive(Debug)]
pub(crate) struct Pass {
    /// What this server adds to `Via`, for example `1.1 balancer-1`.
    pub(crate) via: Arc<str>,
    pub(crate) setup: Current<Setup>,
}

/// Whether a request is over, or begins anew since there are other settings.
enum Passed {
    Over,
    Anew,
}

/// One request's view of it all.
struct Passage<'a> {
    via: &'a str,
    setup: &'a Setup,
}

impl Passage<'_> {
    /// Follows the route of this request, or goes to the balancer's own servers when it has none.
    async fn follow(
        &self,
        exchange: &mut Exchange<'_>,
        introduction: &Introduction,
    ) -> Result<Passed, Ended> {
        let request = exchange.request();
        let Some(route) = routes::find(&self.setup.routes, request) else {
            return self.pass(exchange, "", introduction, &self.edits()).await;
        };
        let pool = match &route.to {
            To::Redirect { location, status } => {
                let location = routes::location(location, request);
                exchange.reply(*status, &[("location", &location)], b"").await?;
                return Ok(Passed::Over);
            }
            To::Pool(pool) => pool,
        };
        let target = routes::rewritten(&route.rewrite, request);
        let path = target.as_deref().and_then(|target| target.split('?').next()).unwrap_or_default();
        if reserved::is_reserved(path) {
            refuse(exchange, 404, None).await?;
            return Ok(Passed::Over);
        }
        let (set, set_back): (Vec<_>, Vec<_>) =
            (routes::set(&route.request).collect(), routes::set(&route.answer).collect());
        let (add, add_back) = (routes::added(&route.request), routes::added(&route.answer));
        let plain = self.edits();
        let edits = Edits {
            request: HeadEdits { set: &set, add: &add, target: target.as_deref(), ..plain.request },
            answer: HeadEdits { set: &set_back, add: &add_back, ..plain.answer },
        };
        self.pass(exchange, pool, introduction, &edits).await
    }

    fn edits(&self) -> Edits<'_> {
        let back = if self.setup.shows_via { Via::Add(self.via) } else { Via::Remove };
        Edits {
            request: HeadEdits { via: Via::Add(self.via), ..HeadEdits::default() },
            answer: HeadEdits { via: back, ..HeadEdits::default() },
        }
    }

    /// Sends the request to this pool, with who the client is and with these edits besides.
    async fn pass(
        &self,
        exchange: &mut Exchange<'_>,
        pool: &str,
        introduction: &Introduction,
        edits: &Edits<'_>,
    ) -> Result<Passed, Ended> {
        let Some(pool) = self.setup.pools.get(pool) else {
            refuse(exchange, 404, None).await?;
            return Ok(Passed::Over);
        };
        let fields = introduction.fields(exchange.request().host());
        // Most requests have no edits of a route, and so need no list of their own.
        let joined: Vec<_>;
        let set = match edits.request.set {
            [] => &fields[..],
            set => {
                joined = fields.iter().chain(set).copied().collect();
                &joined
            }
        };
        let edits = Edits { request: HeadEdits { set, ..edits.request }, ..*edits };
        match pool.pass(exchange, &edits).await {
            Ok(()) => {}
            Err(Failed::Changed) => return Ok(Passed::Anew),
            Err(Failed::ClientGone) => return Err(Ended),
            Err(Failed::Status(503)) => refuse(exchange, 503, Some(RETRY_AFTER_S)).await?,
            Err(Failed::Status(status)) => refuse(exchange, status, None).await?,
        }
        Ok(Passed::Over)
    }
}

impl Handler for Pass {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let path = exchange.request().path();
        if path == HEALTH {
            exchange.unlogged();
            return exchange.reply(200, &[("content-type", "text/plain")], b"ok\n").await;
        }
        let mut setup = self.setup.get();
        let introduction = Introduction::of(exchange, &setup.trusted);
        let (status, retry_after, cause) = match setup.gate.admit(exchange) {
            Ok(()) if reserved::is_reserved(path) => return refuse(exchange, 404, None).await,
            Ok(()) => loop {
                let passage = Passage { via: &self.via, setup: &setup };
                match passage.follow(exchange, &introduction).await? {
                    Passed::Over => return Ok(()),
                    Passed::Anew => setup = self.setup.get(),
                }
            },
            Err(Refused::TooMany(seconds)) => (429, Some(seconds), Cause::RateLimit),
            Err(Refused::HeadTooLarge) => (431, None, Cause::HeadTooLarge),
            Err(Refused::BodyTooLarge) => (413, None, Cause::BodyTooLarge),
        };
        exchange.because(cause);
        refuse(exchange, status, retry_after).await
    }
}

/// An answer of our own, with the request's id. After so many seconds it may be worth trying again.
async fn refuse(exchange: &mut Exchange<'_>, status: u16, retry_after_s: Option<u64>) -> Result<(), Ended> {
    let retry_after = retry_after_s.unwrap_or_default().to_string();
    let fields = [("cache-control", "no-store"), ("retry-after", &retry_after)];
    let used = if retry_after_s.is_some() { fields.len() } else { fields.len() - 1 };
    let id = exchange.id();
    // Boxed, so that a request that is passed on has no memory for it.
    Box::pin(exchange.fail(status, &fields[..used], &id)).await
}
