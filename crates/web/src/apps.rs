//! Which app server gets a request, or straight which of its workers.
//!
//! The app server on this machine publishes its ready workers; a request that is its turn goes to the least busy
//! of them without the step over the app server. Any other app server is asked over the network.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use link::board::{Board, Claim, Column, SLOTS};
use plan::{Plan, Server};
use relay::{Edits, Ended, Exchange, Fleet, ForwardError, Introduction, Tried, Way};

/// What a client is told to wait, in seconds, when no app server is up.
const RETRY_AFTER: (&str, &str) = ("retry-after", "1");

/// Workers that one request may try: as many as may have died since they were last looked at.
const WORKER_TRIES: usize = 4;

/// See the head of this file. Clones share the turns.
#[derive(Clone, Debug)]
pub(crate) struct Apps {
    fleet: Arc<Fleet>,
    turn: Arc<AtomicUsize>,
    /// The app server on this machine, and its workers.
    here: Option<(usize, Board)>,
    source: Option<IpAddr>,
    /// Whether clients come here themselves, with no balancer before us that has said who they are.
    introduces: bool,
    /// What goes into `Via` on the way to an app server, on the way to a worker, and back from each.
    via: String,
    via_worker: String,
    via_back: String,
}

impl Apps {
    pub(crate) fn new(plan: &Plan, me: &Server, fleet: Arc<Fleet>, board: Option<Board>) -> Self {
        let is_here = |index: &usize| fleet.target(*index).machine.as_deref() == Some(&me.machine);
        let here = (0..fleet.len()).find(is_here);
        let via = format!("1.1 {}", me.name);
        let (via_worker, via_back) = match here {
            Some(index) => {
                let app = &fleet.target(index).name;
                (format!("{via}, 1.1 {app}"), format!("1.1 {app}, {via}"))
            }
            None => (via.clone(), via.clone()),
        };
        let source = here.and_then(|index| fleet.source(index));
        Self {
            here: here.zip(board),
            fleet,
            turn: Arc::new(AtomicUsize::new(0)),
            source,
            introduces: plan.balancer.is_none(),
            via,
            via_worker,
            via_back,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fleet.is_empty()
    }

    /// Sends the request to one app server after the other, each once, until one answers or none is left.
    pub(crate) async fn pass(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let introduction = self.introduces.then(|| Introduction::of(exchange, &[]));
        let host = exchange.request().host();
        let fields = introduction.as_ref().map(|introduction| introduction.fields(host));
        let set = fields.as_ref().map_or(&[][..], |fields| &fields[..]);
        let mut tried = Tried::default();
        let mut status = 503;
        while let Some(index) = self.next(&tried) {
            tried.add(index);
            match self.at(exchange, index, &tried, set).await {
                Ok(()) => return Ok(()),
                Err(error) if error.elsewhere() => {}
                Err(error) => {
                    status = error.status();
                    break;
                }
            }
        }
        let id = introduction.as_ref().map(Introduction::id);
        fail(exchange, status, id.or(exchange.request().field("x-request-id"))).await
    }

    /// The next app server in turn that can take a request and was not tried.
    fn next(&self, tried: &Tried) -> Option<usize> {
        let count = self.fleet.len();
        let turn = if count == 0 { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) % count };
        let open = |index: &usize| !tried.has(*index) && self.can_serve(*index);
        let order = || (turn..count).chain(0..turn);
        let is_backup = |index: &usize| self.fleet.target(*index).backup;
        order().filter(open).find(|index| !is_backup(index)).or_else(|| order().find(open))
    }

    fn is_another_open(&self, tried: &Tried) -> bool {
        (0..self.fleet.len()).any(|index| !tried.has(index) && self.can_serve(index))
    }

    /// Up by its checks; the one on this machine also while it has ready workers, checks or not.
    fn can_serve(&self, index: usize) -> bool {
        !self.fleet.is_drained(index) && self.is_there(index)
    }

    fn is_there(&self, index: usize) -> bool {
        self.fleet.is_up(index) || self.workers_of(index).is_some_and(|board| board.ready() > 0)
    }

    fn workers_of(&self, index: usize) -> Option<&Board> {
        self.here.as_ref().filter(|(here, _)| *here == index).map(|(_, board)| board)
    }

    /// Sends the request to this app server, by way of its workers where they are published.
    async fn at(
        &self,
        exchange: &mut Exchange<'_>,
        index: usize,
        tried: &Tried,
        set: &[(&str, &str)],
    ) -> Result<(), ForwardError> {
        if let Some(board) = self.workers_of(index)
            && let Some(result) = self.straight(exchange, board, set).await
        {
            return result;
        }
        let edits = Edits::new(set, &self.via, &self.via);
        let way = self.fleet.way(index);
        // A frozen app server is left as soon as its checks say so, where another can take the request.
        let leave = || self.fleet.losses(index) != way.losses && self.is_another_open(tried);
        match exchange.forward(way.leaving(&leave), &edits).await {
            Ok(_) => {
                self.fleet.served(index);
                Ok(())
            }
            Err(error) => {
                self.fleet.failed(index, &error);
                Err(error)
            }
        }
    }

    /// Hands the request straight to the least busy worker, or to another when that one refuses. None when no
    /// worker could be tried, and it may go to the app server.
    async fn straight(
        &self,
        exchange: &mut Exchange<'_>,
        board: &Board,
        set: &[(&str, &str)],
    ) -> Option<Result<(), ForwardError>> {
        let edits = Edits::new(set, &self.via_worker, &self.via_back);
        let mut refused = Refused::default();
        for _ in 0..WORKER_TRIES {
            let claim: Claim = board.claim(Column::Web, |slot| refused.has(slot))?;
            match exchange.forward(Way::new(claim.address.into(), self.source), &edits).await {
                Ok(_) => return Some(Ok(())),
                Err(error) if error.elsewhere() => {
                    tracing::debug!("worker {}: {error}", claim.address);
                    refused.add(claim.slot);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// The workers that refused this request, by slot.
#[derive(Default)]
struct Refused([u64; SLOTS.div_ceil(64)]);

impl Refused {
    fn add(&mut self, slot: usize) {
        self.0[slot / 64] |= 1 << (slot % 64);
    }

    fn has(&self, slot: usize) -> bool {
        self.0[slot / 64] >> (slot % 64) & 1 == 1
    }
}

/// No app server answered. With 503 nothing was done with the request, and the client may try again soon.
async fn fail(exchange: &mut Exchange<'_>, status: u16, id: Option<&str>) -> Result<(), Ended> {
    let fields = [("cache-control", "no-store"), RETRY_AFTER];
    let used = if status == 503 { fields.len() } else { fields.len() - 1 };
    exchange.fail(status, &fields[..used], id.unwrap_or("without an id")).await
}
