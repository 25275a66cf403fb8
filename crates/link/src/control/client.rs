//! The way of a server to the control servers: its own machine's first, then any other.
//!
//! A proposal is sent again, to another control server, when an answer does not come: it carries a number by
//! which it is made once. So the death of one control server, the leader's too, costs a caller time but no
//! certainty. What stays unknown at the end of the caller's patience is said to be unknown.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plan::{Plan, Role};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::wire::{ControlAnswer, ControlAsk, HEARTBEAT, LISTEN};
use super::{Change, Control, ControlError, Outcome, Record, Seen, Soon, take_in};
use crate::api::{Answer, ApiError, Ask, Conversation, Identity, call};

/// A control server that is watched and says nothing for this long is not there.
const SILENCE: Duration = HEARTBEAT.saturating_mul(3);

/// Each control server gets this part of the caller's patience, so that a hung one leaves time for two more.
const TRIES: u32 = 3;

/// The pause after each round in which nobody could answer.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a control server that did not answer is asked last.
const AVOID: Duration = Duration::from_secs(2);

/// Open connections to each that wait for the next ask; more are closed.
const IDLE: usize = 4;

/// Clones share connections. Use it on the runtime that it was first used on.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    site: String,
    /// Where this is.
    machine: String,
    peers: Mutex<Vec<Arc<Peer>>>,
}

/// A control server.
#[derive(Debug)]
struct Peer {
    machine: String,
    address: SocketAddr,
    state: Mutex<PeerState>,
}

#[derive(Debug, Default)]
struct PeerState {
    idle: Vec<Conversation>,
    /// Until when it is asked last.
    avoid: Option<Instant>,
}

impl Client {
    /// For a process on `machine`. Without control servers in the plan every ask is [`ControlError::Unavailable`].
    pub fn new(identity: Identity, plan: &Plan, machine: &str) -> Self {
        let (site, machine) = (plan.site.clone(), machine.to_owned());
        let client = Self { shared: Arc::new(Shared { identity, site, machine, peers: Mutex::default() }) };
        client.follow(plan);
        client
    }

    /// Asks the control servers of this plan from now on.
    pub fn follow(&self, plan: &Plan) {
        let mut peers = self.shared.peers();
        let peer = |server: &plan::Server| {
            let (machine, address) = (&server.machine, server.listens(LISTEN)?);
            let known = peers.iter().find(|peer| peer.machine == *machine && peer.address == address);
            let new = || Arc::new(Peer { machine: machine.clone(), address, state: Mutex::default() });
            Some(known.cloned().unwrap_or_else(new))
        };
        let mut now: Vec<_> = plan.role(Role::Control).filter_map(peer).collect();
        now.sort_by_key(|peer| peer.machine != self.shared.machine);
        *peers = now;
    }
}

impl Control for Client {
    fn propose<'a>(
        &'a self,
        key: &'a str,
        expected_version: u64,
        value: Value,
        within: Duration,
    ) -> Soon<'a, u64> {
        Box::pin(async move {
            let proposal = random().map_err(|error| ControlError::Unavailable(error.to_string()))?;
            let change = Change { key: key.to_owned(), expected_version, value, proposal };
            self.shared.propose(change, within).await
        })
    }

    fn read<'a>(&'a self, key: &'a str, within: Duration) -> Soon<'a, Option<Record>> {
        Box::pin(async move {
            let until = Instant::now() + within;
            let mut asking = Asking::new(&self.shared, until, within / TRIES);
            loop {
                let ask = ControlAsk::Read {
                    key: key.to_owned(),
                    within_ms: asking.patience_ms(),
                    forwarded: false,
                };
                match asking.next(ask).await.map_err(ControlError::Unavailable)? {
                    ControlAnswer::Record(record) => return Ok(record),
                    other => asking.unavailable(other),
                }
            }
        })
    }

    fn watch(&self, key: &str) -> watch::Receiver<Option<Seen>> {
        let (sender, seen) = watch::channel(None);
        let (shared, key) = (Arc::clone(&self.shared), key.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = shared.follow(&key, &sender) => {}
            }
        });
        seen
    }
}

impl Shared {
    async fn propose(&self, change: Change, within: Duration) -> Result<u64, ControlError> {
        let expected = change.expected_version;
        let mut asking = Asking::new(self, Instant::now() + within, within / TRIES);
        loop {
            let ask = ControlAsk::Propose {
                change: change.clone(),
                within_ms: asking.patience_ms(),
                forwarded: false,
            };
            let answer = asking.next(ask).await;
            let outcome = match answer.map_err(|because| asking.end(because))? {
                ControlAnswer::Outcome(outcome) => outcome,
                other => {
                    asking.unavailable(other);
                    continue;
                }
            };
            return match outcome {
                Outcome::Made { version } => Ok(version),
                Outcome::Refused { because } => Err(ControlError::Refused(because)),
                // Ours may have been made, and others after it. At the next version it would be known again.
                Outcome::Changed { current: Some(current) }
                    if asking.maybe_made && current.version > expected + 1 =>
                {
                    Err(ControlError::Unknown(format!("the record is at version {} now", current.version)))
                }
                Outcome::Changed { current } => Err(ControlError::Changed(current)),
            };
        }
    }

    /// Watches one control server after another, for ever.
    async fn follow(&self, key: &str, seen: &watch::Sender<Option<Seen>>) {
        let mut told = String::new();
        loop {
            for peer in self.order() {
                let Err(error) = self.listen(&peer, key, seen).await;
                peer.failed();
                let because = format!("control on {} is not watched: {error}", peer.machine);
                if because != told {
                    tracing::debug!("{because}");
                    told = because;
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn listen(
        &self,
        peer: &Peer,
        key: &str,
        seen: &watch::Sender<Option<Seen>>,
    ) -> Result<std::convert::Infallible, ApiError> {
        let slow = |_| ApiError::Slow(peer.address);
        let mut conversation = self.call(peer, Instant::now() + SILENCE).await?;
        conversation.ask(&Ask::Control(ControlAsk::Watch { key: key.to_owned() })).await?;
        loop {
            let answer = timeout_at(Instant::now() + SILENCE, conversation.answer()).await;
            match answer.map_err(slow)?? {
                Answer::Control(ControlAnswer::Record(Some(record))) => take_in(seen, record),
                Answer::Control(ControlAnswer::Record(None) | ControlAnswer::Alive) => {}
                Answer::Control(ControlAnswer::Unavailable { because, .. }) => {
                    return Err(ApiError::Refused(because));
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    async fn call(&self, peer: &Peer, until: Instant) -> Result<Conversation, ApiError> {
        let called = call(&self.identity, &self.site, &peer.machine, peer.address);
        timeout_at(until, called).await.unwrap_or(Err(ApiError::Slow(peer.address)))
    }

    /// The peers in the order in which they are asked: those that did not answer lately come last.
    fn order(&self) -> Vec<Arc<Peer>> {
        let (mut order, now) = (self.peers().clone(), Instant::now());
        order.sort_by_cached_key(|peer| peer.state().avoid.filter(|until| *until > now));
        order
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn failed(&self) {
        self.state().avoid = Some(Instant::now() + AVOID);
    }

    fn take_idle(&self) -> Option<Conversation> {
        self.state().idle.pop()
    }

    fn put_idle(&self, conversation: Conversation) {
        let mut state = self.state();
        if state.idle.len() < IDLE {
            state.idle.push(conversation);
        }
    }

    fn state(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One question, put to one control server after another until the caller's time is over.
struct Asking<'a> {
    shared: &'a Shared,
    until: Instant,
    patience: Duration,
    /// Who is asked next in this round, the last one first.
    next: Vec<Arc<Peer>>,
    rounds: u32,
    /// Whether the change may have been made by an ask that got no answer.
    maybe_made: bool,
    because: String,
}

impl<'a> Asking<'a> {
    fn new(shared: &'a Shared, until: Instant, patience: Duration) -> Self {
        let because = "no control server was reached".to_owned();
        Self { shared, until, patience, next: Vec::new(), rounds: 0, maybe_made: false, because }
    }

    fn patience_ms(&self) -> u64 {
        self.patience.as_millis() as u64
    }

    /// The next answer of anybody, or why there was none until the end.
    async fn next(&mut self, ask: ControlAsk) -> Result<ControlAnswer, String> {
        if self.shared.peers().is_empty() {
            return Err("this site runs no control".into());
        }
        let ask = Ask::Control(ask);
        while Instant::now() < self.until {
            let Some(peer) = self.next.pop() else {
                if self.rounds > 0 {
                    sleep(PAUSE).await;
                }
                self.rounds += 1;
                self.next = self.shared.order();
                self.next.reverse();
                continue;
            };
            let kept = peer.take_idle();
            let was_kept = kept.is_some();
            match self.put(&peer, kept, &ask).await {
                Ok(answer) => return Ok(answer),
                // It ended while nobody used it, for example because its server was started anew.
                Err(ApiError::Frame(_)) if was_kept => self.next.push(peer),
                Err(error) => {
                    peer.failed();
                    self.because = format!("{}: {error}", peer.machine);
                }
            }
        }
        Err(std::mem::take(&mut self.because))
    }

    /// Puts the question to one control server. The connection is kept only after a whole answer: a future that
    /// is dropped in the middle drops it too.
    async fn put(
        &mut self,
        peer: &Peer,
        kept: Option<Conversation>,
        ask: &Ask,
    ) -> Result<ControlAnswer, ApiError> {
        let until = self.until.min(Instant::now() + self.patience);
        let mut conversation = match kept {
            Some(conversation) => conversation,
            None => self.shared.call(peer, until).await?,
        };
        let before = std::mem::replace(&mut self.maybe_made, true);
        let answer = async {
            conversation.ask(ask).await?;
            conversation.answer().await
        };
        let slow = ApiError::Slow(peer.address);
        match timeout_at(until, answer).await.unwrap_or(Err(slow))? {
            Answer::Control(answer) => {
                self.maybe_made = before;
                peer.put_idle(conversation);
                Ok(answer)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Notes an answer that is none.
    fn unavailable(&mut self, answer: ControlAnswer) {
        match answer {
            ControlAnswer::Unavailable { because, maybe_made } => {
                self.maybe_made |= maybe_made;
                self.because = because;
            }
            other => self.because = format!("an unexpected answer: {other:?}"),
        }
    }

    /// What is known of a proposal at the end of the caller's time.
    fn end(&self, because: String) -> ControlError {
        if self.maybe_made { ControlError::Unknown(because) } else { ControlError::Unavailable(because) }
    }
}

fn unexpected(answer: &Answer) -> ApiError {
    ApiError::Frame(crate::frame::FrameError::Unexpected(format!("{answer:?}")))
}

fn random() -> Result<u64, rustix::io::Errno> {
    let mut bytes = [0; 8];
    // The kernel gives so few at once.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}
