//! The agent API's server side: who may ask what, and where the answer comes from.
//!
//! It reads the machine's report and the peers' reports; orders go to the agent's loop, which alone changes
//! anything.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use link::api::{Answer, ApiError, Ask, Caller, Conversation, Door, Fingerprint, Join};
use link::report::{MachineReport, SiteReport};
use plan::Plan;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::logs::Logs;
use super::peers::Peers;
use super::{Happening, Order};
use crate::machines::desk::Desk;
use crate::machines::transfer;
use crate::site::ReleaseStore;

/// Connections at one time; more wait to be accepted.
const CONNECTIONS: usize = 64;

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
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, peer) = match door.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection to the agent: {error}");
                sleep(LOG_POLL).await;
                continue;
            }
        };
        let (door, sources) = (Rc::clone(&door), Rc::clone(&sources));
        tokio::task::spawn_local(async move {
            if let Err(error) = talk(&door, &sources, stream, peer).await {
                tracing::debug!("a connection from {peer} ended: {error}");
            }
            drop(place);
        });
    }
}

async fn talk(
    door: &Door,
    sources: &Sources,
    stream: TcpStream,
    peer: std::net::SocketAddr,
) -> Result<(), ApiError> {
    let (mut conversation, caller) = door.welcome(stream, peer).await?;
    let ask = timeout(HEARTBEAT, conversation.asked()).await.map_err(|_| ApiError::Slow(peer))??;
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
        Ask::Join(_) => Answer::Refused { because: "this machine belongs to the site already".into() },
        Ask::Control(_) => Answer::Refused { because: "this is an agent, not a control server".into() },
        order if caller != Caller::Operator => {
            Answer::Refused { because: format!("only the operator may ask for {order:?}") }
        }
        Ask::Kill { server } => sources.order(Order::Kill { server }).await,
        Ask::Start { server } => sources.order(Order::Start { server }).await,
        Ask::Stop { servers, within_ms } => sources.order(Order::Stop { servers, within_ms }).await,
        Ask::Reload { generation } => sources.order(Order::Reload { generation }).await,
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
