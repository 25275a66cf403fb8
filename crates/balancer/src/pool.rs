//! Servers that do the same: who of them is up, who is next, and how often a request may be sent again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use relay::{Edits, Exchange, Fleet, ForwardError, HeadEdits, Tried};

use crate::budget::Budget;
use crate::choose::{Asked, Chooser};

/// Servers that one request may be sent to, the first included. More would only share the trouble.
const TRIES: u32 = 8;

/// See the head of this file. Shared by all threads.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Empty for the servers of `[balancer]` itself.
    pub(crate) name: String,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) chooser: Chooser,
    budget: Budget,
    began: Instant,
}

/// All pools of the balancer: its own servers first, if it has any.
#[derive(Debug)]
pub(crate) struct Pools(Vec<Pool>);

impl Pools {
    pub(crate) fn new(planned: &plan::Balancer, source: Option<IpAddr>, seed: u64) -> Self {
        // Without any pool there is still one, empty, that answers 503.
        let own = Some(&planned.pool).filter(|own| !own.servers.is_empty() || planned.pools.is_empty());
        Self(own.into_iter().chain(&planned.pools).map(|planned| Pool::new(planned, source, seed)).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Pool> {
        self.0.iter().find(|pool| pool.name == name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.0.iter()
    }
}

impl Pool {
    /// `source`: where connections come from, when that matters. `seed`: see [`Chooser::new`].
    pub(crate) fn new(planned: &plan::Pool, source: Option<IpAddr>, seed: u64) -> Self {
        let fleet = Fleet::new(planned.servers.clone(), planned.check.clone(), source)
            .ejecting(planned.eject)
            .starting_slowly(planned.slow_start_ms);
        Self {
            name: planned.name.clone(),
            chooser: Chooser::new(planned, &fleet, seed),
            fleet: Arc::new(fleet),
            budget: Budget::default(),
            began: Instant::now(),
        }
    }

    /// Sends the request to one server after the other until one answers. The error is the status for the client;
    /// 503 means that nothing was done with the request.
    pub(crate) async fn pass(&self, exchange: &mut Exchange<'_>, edits: &Edits<'_>) -> Result<(), u16> {
        let asked =
            Asked { client: exchange.client().ip(), request: exchange.request(), now: exchange.began() };
        let second = exchange.began().saturating_duration_since(self.began).as_secs() as u32;
        self.budget.request(second);
        let mut tried = Tried::default();
        for number in 0..TRIES {
            if number > 0 && !self.budget.retry(second) {
                tracing::debug!("no second try for {exchange:?}: too many others had one");
                break;
            }
            let Some((index, _slot)) = self.chooser.take(&self.fleet, &mut tried, &asked).await else {
                break;
            };
            tried.add(index);
            match self.at(exchange, index, edits).await {
                Ok(()) => return Ok(()),
                Err(error) if error.elsewhere() => {}
                Err(error) => return Err(error.status()),
            }
        }
        Err(503)
    }

    /// Sends the request to one server, and notes how that went.
    async fn at(
        &self,
        exchange: &mut Exchange<'_>,
        index: usize,
        edits: &Edits<'_>,
    ) -> Result<(), ForwardError> {
        let sticky = self.chooser.sticky.as_ref();
        let told = sticky.and_then(|sticky| sticky.tells(exchange.request(), index));
        let add: Vec<_>;
        let edits = match told {
            Some(told) => {
                add = edits.answer.add.iter().copied().chain([("set-cookie", told)]).collect();
                Edits { answer: HeadEdits { add: &add, ..edits.answer }, ..*edits }
            }
            None => *edits,
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
