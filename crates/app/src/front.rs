//! Requests from web servers on other machines: each to the least busy ready worker.
//!
//! The web server on this machine reads the same board and goes to the workers by itself.

use link::board::{Board, Column};
use relay::{Edits, Ended, Exchange, Way};

/// Where the web servers ask whether this server can take requests.
pub(crate) const HEALTH: &str = "/.dolmen/health";
/// When a client that met no ready worker may try again: a worker is restarted in less.
const RETRY: (&str, &str) = ("retry-after", "1");
const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");
const NEVER_KEEP: (&str, &str) = ("cache-control", "no-store");

/// One for each thread.
pub(crate) struct Front {
    pub(crate) board: Board,
    /// `1.1 app-1`
    pub(crate) via: String,
}

impl relay::Handler for Front {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        if exchange.request().path() == HEALTH {
            return self.health(exchange).await;
        }
        let mut tried = Vec::new();
        let mut last = None;
        while let Some(claim) = self.board.claim(Column::App, |slot| tried.contains(&slot)) {
            let way = Way::new(claim.address.into(), None);
            match exchange.forward(way, &Edits::via(&self.via, &self.via)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.elsewhere() => {
                    tracing::debug!("worker {} did not take a request: {error}", claim.slot + 1);
                    tried.push(claim.slot);
                    last = Some(error.status());
                }
                Err(error) => return self.sorry(exchange, error.status(), &error.to_string()).await,
            }
        }
        match last {
            Some(status) => self.sorry(exchange, status, "no worker took the request").await,
            None => self.sorry(exchange, 503, "no worker is ready").await,
        }
    }
}

impl Front {
    async fn health(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let ready = self.board.ready();
        let text = format!("{ready} workers ready\n");
        let status = if ready > 0 { 200 } else { 503 };
        exchange.reply(status, &[TEXT, NEVER_KEEP], text.as_bytes()).await
    }

    async fn sorry(&self, exchange: &mut Exchange<'_>, status: u16, why: &str) -> Result<(), Ended> {
        let text = format!("{why}\n");
        let fields = [TEXT, NEVER_KEEP, ("via", self.via.as_str()), RETRY];
        let count = if status == 503 { fields.len() } else { fields.len() - 1 };
        exchange.reply(status, &fields[..count], text.as_bytes()).await
    }
}
