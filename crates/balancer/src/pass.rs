//! One request: what clients may ask, who they are, and a server that answers.

use std::sync::Arc;

use relay::{Edits, Ended, Exchange, Fleet, Handler, HeadEdits, Introduction, Tried, Via, page};

use crate::choose::Chooser;
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
        let edits = Edits {
            request: HeadEdits { set: &set, via: Via::Add(&self.via), ..HeadEdits::default() },
            answer: HeadEdits {
                via: if self.shows_via { Via::Add(&self.via) } else { Via::Remove },
                ..HeadEdits::default()
            },
        };
        let mut tried = Tried::default();
        let mut status = 503;
        while let Some(index) = self.chooser.next(&self.fleet, &tried) {
            tried.add(index);
            let target = self.fleet.target(index).address;
            match exchange.forward(target, self.fleet.source(index), &edits).await {
                Ok(_) => {
                    self.fleet.served(index);
                    return Ok(());
                }
                Err(error) => {
                    self.fleet.failed(index, &error);
                    if !error.elsewhere() {
                        status = error.status();
                        break;
                    }
                }
            }
        }
        fail(exchange, status, introduction.id()).await
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
