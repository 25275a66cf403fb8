//! One request: what clients may ask, who they are, and a server that answers.

use std::sync::Arc;
use std::time::Instant;

use relay::{
    Edits, Ended, Exchange, Fleet, ForwardError, Handler, HeadEdits, Introduction, Tried, Via, page,
};

use crate::choose::{Asked, Chooser, Next};
use crate::reserved::{self, HEALTH};

/// What a client is told to wait, in seconds, when no server is up: about as long as a restart takes.
const RETRY_AFTER: (&str, &str) = ("retry-after", "1");

/// See the head of this file. One for each thread.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    /// What this server adds to `Via`, for example `1.1 balancer-1`.
    via: String,
    shows_via: bool,
    fleet: Arc<Fleet>,
    chooser: Arc<Chooser>,
}

impl Pass {
    pub(crate) fn new(name: &str, shows_via: bool, fleet: Arc<Fleet>, chooser: Arc<Chooser>) -> Self {
        Self { via: format!("1.1 {name}"), shows_via, fleet, chooser }
    }

    /// Tries server after server, each once, until one answers or none is left.
    async fn pass(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let introduction = Introduction::of(exchange);
        let set = introduction.fields(exchange.request().host());
        let asked =
            Asked { client: exchange.client().ip(), request: exchange.request(), now: exchange.began() };
        let mut tried = Tried::default();
        let mut status = 503;
        while let Next::Server(index, _slot) = self.chooser.next(&self.fleet, &tried, &asked) {
            tried.add(index);
            match self.at(exchange, index, &set).await {
                Ok(()) => return Ok(()),
                Err(error) if error.elsewhere() => {}
                Err(error) => {
                    status = error.status();
                    break;
                }
            }
        }
        fail(exchange, status, introduction.id()).await
    }

    /// Sends the request to one server, and notes how that went.
    async fn at(
        &self,
        exchange: &mut Exchange<'_>,
        index: usize,
        set: &[(&str, &str)],
    ) -> Result<(), ForwardError> {
        let told = self.chooser.sticky.as_ref().and_then(|sticky| sticky.tells(exchange.request(), index));
        let cookie = [("set-cookie", told.unwrap_or_default())];
        let edits = Edits {
            request: HeadEdits { set, via: Via::Add(&self.via), ..HeadEdits::default() },
            answer: HeadEdits {
                add: &cookie[..usize::from(told.is_some())],
                via: if self.shows_via { Via::Add(&self.via) } else { Via::Remove },
                ..HeadEdits::default()
            },
        };
        let asked = self.chooser.goes_by_time().then(Instant::now);
        let result =
            exchange.forward(self.fleet.target(index).address, self.fleet.source(index), &edits).await;
        if let (Some(asked), Some(first_byte)) = (asked, exchange.first_byte()) {
            let answered = exchange.began() + first_byte;
            self.chooser.answered(index, answered.saturating_duration_since(asked), answered);
        }
        match result {
            Ok(forwarded) => {
                self.fleet.answered(index, forwarded.status);
                Ok(())
            }
            Err(error) => {
                self.fleet.failed(index, &error);
                Err(error)
            }
        }
    }
}

impl Handler for Pass {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        match exchange.request().path() {
            HEALTH => exchange.reply(200, &[("content-type", "text/plain")], b"ok\n").await,
            path if reserved::is_reserved(path) => {
                let page = page::error(404, &exchange.fresh_id());
                exchange.reply(404, &[page::TYPE], page.as_bytes()).await
            }
            _ => self.pass(exchange).await,
        }
    }
}

/// No server answered. With 503 nothing was done with the request, and the client may try again soon.
async fn fail(exchange: &mut Exchange<'_>, status: u16, id: &str) -> Result<(), Ended> {
    let page = page::error(status, id);
    let fields = [page::TYPE, ("cache-control", "no-store"), RETRY_AFTER];
    let used = if status == 503 { fields.len() } else { fields.len() - 1 };
    exchange.reply(status, &fields[..used], page.as_bytes()).await
}
