//! The agent API's server side: who may ask what, and where the answer comes from.
//!
//! It reads the machine's report and the peers' reports; orders go to the agent's loop, which alone changes
//! anything.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Caller, Conversation, Door, Fingerprint, Join};
use link::report::{MachineReport, SiteReport};
use plan::Plan;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::logs::Logs;
use super::peers::Peers;
use super::{Happening, Order};
use crate::machines::desk::Desk;
use crate::machines::transfer;
use crate::site::ReleaseStore;

/// Conversations at one time; those that come with one too many are closed.
const CONVERSATIONS: usize = 64;

/// The same for whoever has only a token, used or not: they keep no machine out.
const GUESTS: usize = 4;

/// Connections at one time whose other end has not shown who it is, in all and from one address. One too many takes
/// the place of the oldest: whoever has a certificate needs milliseconds, and idle strangers keep nobody out.
const HANDSHAKES: usize = 128;
const HANDSHAKES_OF_ONE: usize = 32;

/// The largest ask in bytes: a machine that joins sends its request for a certificate.
const ASK: usize = 64 * 1024;

/// An agent that watches hears something at least this often.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How often followed logs are looked at.
const LOG_POLL: Duration = Duration::from_millis(100);

/// The most lines of one log that are sent at first.
const LOG_LINES: usize = 10_000;

/// What answers are made of.
pub struct Sources {
    pub plan: watch::Receiver<Arc<Plan>>,
    pub machine: String,
    pub logs: PathBuf,
    pub mine: watch::Receiver<MachineReport>,
    pub peers: Arc<Peers>,
    pub orders: mpsc::Sender<Happening>,
    /// On real machines: who takes others in.
    pub desk: Option<Desk>,
    pub releases: ReleaseStore,
}

/// The whole site: this machine as it is, the others as they last said.
pub fn site(plan: &Plan, mine: &MachineReport, peers: &Peers) -> SiteReport {
    let machines = plan.machines.iter().filter_map(|machine| {
        if machine.name == mine.name { Some(mine.clone()) } else { peers.get(&machine.name) }
    });
    SiteReport { machines: machines.collect() }
}

/// Answers until the agent ends. Must run on a `LocalSet`.
pub async fn serve(door: Door, sources: Sources) {
    let (door, sources) = (Rc::new(door), Rc::new(sources));
    let (places, guests) = (Arc::new(Semaphore::new(CONVERSATIONS)), Arc::new(Semaphore::new(GUESTS)));
    let mut handshakes = Handshakes::default();
    loop {
        let (stream, peer) = match door.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection to the agent: {error}");
                sleep(LOG_POLL).await;
                continue;
            }
        };
        let (door, sources) = (Rc::clone(&door), Rc::clone(&sources));
        let (places, guests) = (Arc::clone(&places), Arc::clone(&guests));
        let cut_off = handshakes.begin(peer.ip());
        tokio::task::spawn_local(async move {
            let welcomed = tokio::select! {
                welcomed = door.welcome(stream, peer) => welcomed,
                _ = cut_off => return tracing::debug!("{peer} did not show who it is, and others came"),
            };
            let places = match &welcomed {
                Ok((_, Caller::Guest(_))) => guests,
                _ => places,
            };
            let talked = match (welcomed, places.try_acquire()) {
                (Ok((conversation, caller)), Ok(_place)) => talk(&sources, conversation, caller, peer).await,
                (Ok(_), Err(_)) => {
                    return tracing::warn!("too many conversations are under way; {peer} has to try again");
                }
                (Err(error), _) => Err(error),
            };
            if let Err(error) = talked {
                tracing::debug!("a connection from {peer} ended: {error}");
            }
        });
    }
}

/// The connections that are being welcomed, the oldest first.
#[derive(Debug, Default)]
struct Handshakes(VecDeque<(IpAddr, oneshot::Sender<()>)>);

impl Handshakes {
    /// Makes room for one more; what is returned tells it when somebody else needs that.
    fn begin(&mut self, address: IpAddr) -> oneshot::Receiver<()> {
        self.0.retain(|(_, over)| !over.is_closed());
        let mut of_one = self.0.iter().enumerate().filter(|(_, (other, _))| *other == address);
        let oldest_of_one = of_one.next().map(|(index, _)| index);
        if let Some(index) = oldest_of_one.filter(|_| of_one.count() + 1 >= HANDSHAKES_OF_ONE) {
            self.0.remove(index);
        } else if self.0.len() >= HANDSHAKES {
            self.0.pop_front();
        }
        let (over, cut_off) = oneshot::channel();
        self.0.push_back((address, over));
        cut_off
    }
}

async fn talk(
    sources: &Sources,
    mut conversation: Conversation,
    caller: Caller,
    peer: SocketAddr,
) -> Result<(), ApiError> {
    let ask = timeout(HEARTBEAT, conversation.asked(ASK)).await.map_err(|_| ApiError::Slow(peer))??;
    if let Caller::Guest(key) = caller {
        let answer = match ask {
            Ask::Join(join) => sources.join(key, &join).await,
            _ => Answer::Refused { because: "a token is for joining, and for nothing else".into() },
        };
        return Ok(conversation.say(&answer).await?);
    }
    let answer = match ask {
        Ask::Status => sources.status(),
        Ask::Watch => return sources.watch(&mut conversation).await,
        Ask::Logs { server, lines, follow } => {
            return sources.logs(&mut conversation, server, lines, follow).await;
        }
        Ask::Release { digest } => {
            return transfer::send(&mut conversation, &sources.releases, &digest).await;
        }
        Ask::Renew { clock_s } if caller == Caller::Agent => sources.renew(&conversation, clock_s),
        Ask::Renew { .. } => Answer::Refused { because: "only a machine renews its certificate here".into() },
        Ask::Join(_) => Answer::Refused { because: "this machine belongs to the site already".into() },
        Ask::Control(_) => Answer::Refused { because: "this is an agent, not a control server".into() },
        order if caller != Caller::Operator => {
            Answer::Refused { because: format!("only the operator may ask for {order:?}") }
        }
        Ask::Kill { server } => sources.order(Order::Kill { server }).await,
        Ask::Start { server } => sources.order(Order::Start { server }).await,
        Ask::Stop { servers, within_ms } => sources.order(Order::Stop { servers, within_ms }).await,
        Ask::Reload { generation } => sources.order(Order::Reload { generation }).await,
        Ask::Program => sources.order(Order::Program).await,
        Ask::Become { id } => sources.order(Order::Become { id }).await,
        Ask::Succeed { server, drain_ms } => sources.order(Order::Succeed { server, drain_ms }).await,
        Ask::End => sources.order(Order::End).await,
        Ask::Token { machine, minutes } => sources.token(&machine, minutes),
    };
    Ok(conversation.say(&answer).await?)
}

impl Sources {
    fn token(&self, machine: &str, minutes: u32) -> Answer {
        match &self.desk {
            Some(desk) => desk.token(&self.plan.borrow(), machine, minutes),
            None => Answer::Refused { because: "on `up` no machine joins".into() },
        }
    }

    fn renew(&self, conversation: &Conversation, clock_s: u64) -> Answer {
        match &self.desk {
            Some(desk) => desk.renew(&self.plan.borrow(), conversation.certificate(), clock_s),
            None => Answer::Refused { because: "on `up` each machine renews its own".into() },
        }
    }

    async fn join(&self, key: Fingerprint, join: &Join) -> Answer {
        let plan = self.plan.borrow().clone();
        match &self.desk {
            Some(desk) => desk.join(&plan, key, join).await,
            None => Answer::Refused { because: "on `up` no machine joins".into() },
        }
    }

    fn status(&self) -> Answer {
        let plan = self.plan.borrow().clone();
        let report = site(&plan, &self.mine.borrow(), &self.peers);
        Answer::Site { generation: plan.generation, report }
    }

    async fn watch(&self, conversation: &mut Conversation) -> Result<(), ApiError> {
        let mut mine = self.mine.clone();
        loop {
            let report = mine.borrow_and_update().clone();
            conversation.say(&Answer::Machine(report)).await?;
            // A change or the heartbeat; an error means that the agent ends.
            if let Ok(Err(_)) = timeout(HEARTBEAT, mine.changed()).await {
                return Ok(());
            }
        }
    }

    async fn logs(
        &self,
        conversation: &mut Conversation,
        server: Option<String>,
        lines: usize,
        follow: bool,
    ) -> Result<(), ApiError> {
        let plan = self.plan.borrow().clone();
        let servers = plan.on(&self.machine).map(|server| server.name.clone());
        let agent = format!("agent-{}", self.machine);
        let all = servers.chain([agent]).filter(|name| server.as_ref().is_none_or(|wanted| wanted == name));
        let mut logs = Logs::of(&self.logs, all.collect());
        let mut found = logs.tail(lines.min(LOG_LINES));
        loop {
            let new = match found {
                Ok(new) => new,
                Err(error) => {
                    let because = format!("cannot read the logs: {error}");
                    return Ok(conversation.say(&Answer::Refused { because }).await?);
                }
            };
            for (server, line) in new {
                conversation.say(&Answer::Log { server, line }).await?;
            }
            if !follow {
                return Ok(conversation.say(&Answer::Done).await?);
            }
            sleep(LOG_POLL).await;
            found = logs.more();
        }
    }

    async fn order(&self, order: Order) -> Answer {
        let (reply, answer) = oneshot::channel();
        let gone = || Answer::Refused { because: "the agent is ending".into() };
        if self.orders.send(Happening::Order { order, reply }).await.is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_has_not_shown_who_it_is_gives_way() {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut handshakes = Handshakes::default();
        let mut first = handshakes.begin(address(1));
        let mut of_one: Vec<_> = (1..HANDSHAKES_OF_ONE).map(|_| handshakes.begin(address(1))).collect();
        let mut other = handshakes.begin(address(2));
        assert!(first.try_recv() == Err(oneshot::error::TryRecvError::Empty), "there is room for so many");
        let _one_more = handshakes.begin(address(1));
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(of_one[0].try_recv(), Err(oneshot::error::TryRecvError::Empty));
        // Those that are over take no room.
        of_one.clear();
        let many: Vec<_> =
            (3..=u8::try_from(HANDSHAKES).unwrap()).map(|last| handshakes.begin(address(last))).collect();
        assert_eq!(other.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(handshakes.0.len(), many.len() + 2);
        let _beyond = [handshakes.begin(address(200)), handshakes.begin(address(201))];
        assert_eq!(other.try_recv(), Err(oneshot::error::TryRecvError::Closed), "the oldest of all");
        assert_eq!(handshakes.0.len(), HANDSHAKES);
    }
}
