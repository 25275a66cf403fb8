//! The way to the other control servers: kept connections of the agent API, one ask after another on each.
//!
//! An ask of Raft has some dozens of milliseconds. Opening a connection takes several ways to and fro, and a good deal of
//! a busy processor: it goes on when the ask that began it is over, for the next one to use. Otherwise, on a network with
//! 20 ms or a machine with much to do, none would ever be opened.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Conversation, Identity, call};
use link::control::wire::{ControlAnswer, ControlAsk, LISTEN};
use link::frame::FrameError;
use plan::{Plan, Role};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// A connection that is not open after this time is tried once more beside: its first packet may have been lost.
const OPEN_BESIDE: Duration = Duration::from_millis(250);

/// How many are tried beside each other.
const OPENINGS: usize = 4;

/// Open connections to each server that wait for the next ask that is passed on; more are closed.
const IDLE: usize = 4;

/// All control servers of the plan, which come and go with machines.
#[derive(Debug)]
pub(crate) struct Peers {
    identity: Identity,
    site: String,
    planned: Mutex<Planned>,
    idle: Mutex<BTreeMap<String, Vec<Kept>>>,
    /// Who cannot be reached from here, for tests of a network that is cut.
    #[cfg(test)]
    pub(crate) cut: std::sync::Mutex<std::collections::BTreeSet<String>>,
}

/// What the newest plan says of control.
#[derive(Debug, Default)]
struct Planned {
    places: BTreeMap<String, Place>,
    voters: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Place {
    machine: String,
    address: SocketAddr,
}

/// A connection to one of them, made when it is needed and kept after a whole answer.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    open: Option<Conversation>,
    /// Ended when this is dropped.
    opening: JoinSet<Result<Conversation, ApiError>>,
    begun: Option<Instant>,
}

impl Peers {
    pub(crate) fn new(identity: Identity, plan: &Plan) -> Self {
        let peers = Self {
            identity,
            site: plan.site.clone(),
            planned: Mutex::default(),
            idle: Mutex::default(),
            #[cfg(test)]
            cut: std::sync::Mutex::default(),
        };
        peers.follow(plan);
        peers
    }

    /// Knows the control servers of this plan from now on.
    pub(crate) fn follow(&self, plan: &Plan) {
        let place = |server: &plan::Server| {
            let place = Place { machine: server.machine.clone(), address: server.listens(LISTEN)? };
            Some((server.name.clone(), place))
        };
        let places: BTreeMap<_, _> = plan.role(Role::Control).filter_map(place).collect();
        let voters = plan.control.as_ref().map(|control| control.voters.clone()).unwrap_or_default();
        let mut planned = self.planned();
        // A connection leads to whoever had the name when it was opened.
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|name, _| places.get(name) == planned.places.get(name));
        *planned = Planned { places, voters };
    }

    /// Asks the server of this name. A kept connection may have ended while nobody used it, so that one failure
    /// of it is tried again on a new one: whatever is asked here may be asked twice.
    pub(crate) async fn ask(
        &self,
        server: &str,
        kept: &mut Kept,
        ask: ControlAsk,
        within: Duration,
    ) -> Result<ControlAnswer, ApiError> {
        let until = Instant::now() + within;
        let ask = Ask::Control(ask);
        if let Some(conversation) = kept.open.take() {
            match self.put(server, conversation, kept, &ask, until).await {
                Err(ApiError::Frame(_)) => {}
                other => return other,
            }
        }
        let conversation = self.open(server, kept, until).await?;
        self.put(server, conversation, kept, &ask, until).await
    }

    /// The same on a connection that several callers share by turns.
    pub(crate) async fn pass_on(
        &self,
        server: &str,
        ask: ControlAsk,
        within: Duration,
    ) -> Result<ControlAnswer, ApiError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = idle().get_mut(server).and_then(Vec::pop).unwrap_or_default();
        let answer = self.ask(server, &mut kept, ask, within).await;
        let mut idle = idle();
        let others = idle.entry(server.to_owned()).or_default();
        if others.len() < IDLE {
            others.push(kept);
        }
        answer
    }

    /// The first that is opened of those that were begun.
    pub(crate) async fn open(
        &self,
        server: &str,
        kept: &mut Kept,
        until: Instant,
    ) -> Result<Conversation, ApiError> {
        let place = self.place(server)?;
        let rested = kept.begun.is_none_or(|begun| begun.elapsed() >= OPEN_BESIDE);
        if kept.opening.is_empty() || rested && kept.opening.len() < OPENINGS {
            let (identity, site) = (self.identity.clone(), self.site.clone());
            let (machine, address) = (place.machine.clone(), place.address);
            kept.opening.spawn(async move { call(&identity, &site, &machine, address).await });
            kept.begun = Some(Instant::now());
        }
        let opened = timeout_at(until, kept.opening.join_next()).await;
        match opened.map_err(|_| ApiError::Slow(place.address))? {
            Some(Ok(Ok(conversation))) => {
                kept.opening = JoinSet::new();
                Ok(conversation)
            }
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(ApiError::Refused(error.to_string())),
            None => Err(ApiError::Slow(place.address)),
        }
    }

    async fn put(
        &self,
        server: &str,
        mut conversation: Conversation,
        kept: &mut Kept,
        ask: &Ask,
        until: Instant,
    ) -> Result<ControlAnswer, ApiError> {
        let place = self.place(server)?;
        let answer = async {
            conversation.ask(ask).await?;
            conversation.answer().await
        };
        let answer = timeout_at(until, answer).await;
        match answer.map_err(|_| ApiError::Slow(place.address))?? {
            Answer::Control(answer) => {
                kept.open = Some(conversation);
                Ok(answer)
            }
            other => Err(FrameError::Unexpected(format!("{other:?}")).into()),
        }
    }

    fn place(&self, server: &str) -> Result<Place, ApiError> {
        #[cfg(test)]
        if self.cut.lock().unwrap().contains(server) {
            return Err(ApiError::Refused(format!("the test cut the way to {server}")));
        }
        let unknown = || ApiError::Refused(format!("the plan has no {server}"));
        self.planned().places.get(server).cloned().ok_or_else(unknown)
    }

    pub(crate) fn has(&self, server: &str) -> bool {
        self.planned().places.contains_key(server)
    }

    /// All but this one.
    pub(crate) fn others(&self, me: &str) -> Vec<String> {
        self.planned().places.keys().filter(|name| *name != me).cloned().collect()
    }

    /// The servers that are to vote.
    pub(crate) fn voters(&self) -> Vec<String> {
        self.planned().voters.clone()
    }

    fn planned(&self) -> MutexGuard<'_, Planned> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
