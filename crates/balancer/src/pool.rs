//! Servers that do the same: who of them is up, who is next, and how often a request may be sent again.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use link::api::{AuthorityError, Delegate};
use plan::{Place, Plan, Server};
use relay::{Alarm, Cause, Edits, Exchange, Fleet, ForwardError, HeadEdits, Meter, Resolver, Tried};

use crate::budget::Budget;
use crate::choose::load::Slot;
use crate::choose::{Asked, Chooser, Without, key};

/// Servers that one request may be sent to after the first, unless the plan says otherwise. More would only share the
/// trouble.
const RETRIES: u32 = 7;

/// See the head of this file. Shared by all threads.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Empty for the servers of `[balancer]` itself.
    pub(crate) name: String,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) chooser: Chooser,
    /// What was counted of all, and of each server.
    pub(crate) meter: Arc<Meter>,
    pub(crate) meters: Vec<Arc<Meter>>,
    retries: u32,
    budget: Arc<Budget>,
    began: Instant,
}

/// Why a request got no answer from the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// What the client is told. 503: nobody answered it, which may be worth another try.
    Status(u16),
    /// There are other settings meanwhile, and with those it may.
    Changed,
    /// There is nobody to tell.
    ClientGone,
}

/// What all pools of a balancer have in common.
#[derive(Debug)]
pub(crate) struct Around {
    /// Where connections come from, when that matters.
    pub(crate) source: Option<IpAddr>,
    /// See [`Chooser::new`].
    pub(crate) seed: u64,
    /// Rings whenever a server comes or goes.
    pub(crate) alarm: Alarm,
    /// Says where the names of servers lead.
    pub(crate) resolver: Resolver,
    /// How many threads the engine has.
    pub(crate) threads: usize,
    /// This balancer, and by what servers of other machines know it.
    pub(crate) me: Server,
    pub(crate) keys: Option<Delegate>,
}

impl Around {
    pub(crate) fn of(
        plan: &Plan,
        me: &Server,
        keys: Option<Delegate>,
        resolver: Resolver,
        threads: usize,
    ) -> Self {
        Self {
            source: matches!(plan.place, Place::Up { .. }).then_some(me.address),
            seed: key::hash(me.name.as_bytes()),
            alarm: Alarm::default(),
            resolver,
            threads,
            me: me.clone(),
            keys,
        }
    }
}

/// All pools of the balancer: its own servers first, if it has any.
#[derive(Debug)]
pub(crate) struct Pools(Vec<Pool>);

impl Pools {
    /// `before`: the pools until now. One of the same name goes on with what it knows.
    pub(crate) fn new(
        planned: &plan::Balancer,
        plan: &Plan,
        around: &Around,
        before: Option<&Pools>,
    ) -> Result<Self, AuthorityError> {
        // Without any pool there is still one, empty, that answers 503.
        let own = Some(&planned.pool).filter(|own| !own.servers.is_empty() || planned.pools.is_empty());
        let pool = |planned: &plan::Pool| {
            Pool::new(planned, plan, around, before.and_then(|before| before.get(&planned.name)))
        };
        Ok(Self(own.into_iter().chain(&planned.pools).map(pool).collect::<Result<_, _>>()?))
    }

    /// Whether each server of each pool was checked at least once.
    pub(crate) fn are_known(&self) -> bool {
        self.0.iter().all(|pool| pool.fleet.is_known())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Pool> {
        self.0.iter().find(|pool| pool.name == name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.0.iter()
    }
}

impl Pool {
    fn new(
        planned: &plan::Pool,
        plan: &Plan,
        around: &Around,
        before: Option<&Pool>,
    ) -> Result<Self, AuthorityError> {
        let mut fleet = Fleet::new(planned.servers.clone(), planned.check.clone(), around.source)
            .ejecting(planned.eject)
            .starting_slowly(planned.slow_start_ms)
            .alarming(around.alarm.clone())
            .resolving(around.resolver.clone(), planned.resolve_ms)
            .without(&plan.drained)
            .secured(|target| Delegate::way(around.keys.as_ref(), plan, &around.me, target))?;
        if let Some(before) = before {
            fleet = fleet.following(&before.fleet);
        }
        let meter = before.map_or_else(
            || Meter::of_pool(&planned.name, around.threads),
            |before| Arc::clone(&before.meter),
        );
        let meters = fleet.targets().map(|target| {
            let old = before.and_then(|before| Some(&before.meters[before.fleet.index_of(target)?]));
            old.map_or_else(|| Meter::of_server(&target.name, &meter), Arc::clone)
        });
        let known = before.map(|before| (&before.chooser, &*before.fleet));
        Ok(Self {
            name: planned.name.clone(),
            chooser: Chooser::new(planned, &fleet, around.seed, known),
            meters: meters.collect(),
            meter,
            fleet: Arc::new(fleet),
            retries: planned.retries.unwrap_or(RETRIES),
            budget: before.map_or_else(Arc::default, |before| Arc::clone(&before.budget)),
            began: before.map_or_else(Instant::now, |before| before.began),
        })
    }

    /// Sends the request to one server after the other until one answers.
    pub(crate) async fn pass(&self, exchange: &mut Exchange<'_>, edits: &Edits<'_>) -> Result<(), Failed> {
        let asked =
            Asked { client: exchange.client().ip(), request: exchange.request(), now: exchange.began() };
        self.budget.request(self.second(exchange.began()));
        let mut tried = Tried::default();
        // The first try needs none.
        let mut granted = true;
        for number in 0..=self.retries {
            if !granted && !self.may_retry() {
                tracing::debug!("no second try for {exchange:?}: too many others had one");
                break;
            }
            let (index, _slot) = match self.take(exchange, &mut tried, &asked).await {
                Ok(taken) => taken,
                // Why the servers that were tried could not answer says more.
                Err(Without::Because(Cause::NoServer)) if !tried.is_empty() => break,
                Err(Without::Changed) => return Err(Failed::Changed),
                Err(Without::ClientLeft) => {
                    exchange.counts_for(&self.meter);
                    exchange.because(Cause::ClientLeft);
                    return Err(Failed::ClientGone);
                }
                Err(Without::Because(cause)) => {
                    exchange.counts_for(&self.meter);
                    exchange.because(cause);
                    break;
                }
            };
            tried.add(index);
            let leave = |losses| {
                number < self.retries
                    && self.fleet.losses(index) != losses
                    && self.is_another_open(&tried)
                    && self.may_retry()
            };
            match self.at(exchange, (index, &tried), &leave, edits).await {
                Ok(()) => return Ok(()),
                // It has left with what the budget granted.
                Err(ForwardError::Lost) => granted = true,
                Err(error) if error.elsewhere() => granted = false,
                Err(ForwardError::ClientGone) => return Err(Failed::ClientGone),
                Err(error) => return Err(Failed::Status(error.status())),
            }
        }
        Err(Failed::Status(503))
    }

    /// A server for this request, after a wait where all have as many as they may. After a wait those that were tried
    /// may be tried again. A client that leaves meanwhile leaves its place to others.
    async fn take(
        &self,
        exchange: &mut Exchange<'_>,
        tried: &mut Tried,
        asked: &Asked<'_>,
    ) -> Result<(usize, Slot<'_>), Without> {
        if let Some(taken) = self.chooser.at_once(&self.fleet, tried, asked) {
            return taken;
        }
        *tried = Tried::default();
        let began = Instant::now();
        let waited = exchange.queued();
        let turn = async {
            tokio::select! {
                biased;
                taken = self.chooser.wait(&self.fleet, asked, waited) => taken,
                () = exchange.client_left() => Err(Without::ClientLeft),
            }
        };
        // Boxed, so that a request that need not wait has no memory for it.
        let taken = Box::pin(turn).await;
        exchange.waited(began.elapsed());
        taken
    }

    /// Takes one retry from the budget, if there is one.
    fn may_retry(&self) -> bool {
        self.budget.retry(self.second(Instant::now()))
    }

    fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.began).as_secs() as u32
    }

    fn is_another_open(&self, tried: &Tried) -> bool {
        (0..self.fleet.len())
            .any(|index| !tried.has(index) && self.fleet.is_up(index) && self.fleet.target(index).weight > 0)
    }

    /// Sends the request to one server, the last of those tried; it leaves again when `leave` says so, given how often
    /// the server had been lost when it was asked. Notes how that went.
    async fn at(
        &self,
        exchange: &mut Exchange<'_>,
        (index, tried): (usize, &Tried),
        leave: &dyn Fn(u32) -> bool,
        edits: &Edits<'_>,
    ) -> Result<(), ForwardError> {
        let sticky = self.chooser.sticky.as_ref();
        let goes_back = |own| self.fleet.is_up(own) && !tried.has(own);
        let told = sticky.and_then(|sticky| sticky.tells(exchange.request(), index, goes_back));
        let add: Vec<_>;
        let edits = match told {
            Some(told) => {
                add = edits.answer.add.iter().copied().chain([("set-cookie", told)]).collect();
                Edits { answer: HeadEdits { add: &add, ..edits.answer }, ..*edits }
            }
            None => *edits,
        };
        exchange.counts_for(&self.meters[index]);
        let timed = self.chooser.timed(index);
        let (is_timed, timed) = (timed.is_some(), Cell::new(timed));
        let answers = || {
            if let Some(timed) = timed.take() {
                timed.answered();
            }
        };
        let way = self.fleet.way(index).telling(is_timed.then_some(&answers));
        let leave = || leave(way.losses);
        let result = exchange.forward(way.leaving(&leave), &edits).await;
        if let (Err(error), Some(timed)) = (&result, timed.take())
            && error.is_of_target()
        {
            timed.failed();
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
