//! The agent: the one process on each machine that starts its servers and holds their sockets.
//!
//! It carries no traffic and makes no decision about the site, so that it seldom has a reason to fail; and when
//! it does, its servers go on and its successor takes them over. What becomes of a server is decided in
//! `life`; this file is the loop that feeds it with what happened and carries its actions out.

mod door;
mod hold;
pub mod keys;
pub mod life;
mod logs;
pub mod peers;
pub mod record;
mod reload;
mod servant;
pub mod spawn;
mod succession;
mod surroundings;
mod upgrade;

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::agent_end::{Down, Hello, Knock, Up};
use link::api::{Answer, Door, Guests, Identity};
use link::report::{MachineReport, MachineState, SiteReport};
use link::short_path;
use plan::{Listen, Plan, Role, Server};
use tokio::sync::{mpsc, oneshot, watch};

use crate::machines::agreed::AgreedError;
use crate::machines::follow::{Trouble, agree};
use crate::site::{MachineFolder, State};
use keys::{CertificateNote, Keys};
use peers::Peers;
use record::{Process, Record};
use servant::Servant;
use surroundings::Surroundings;

/// What is said of a machine of which nothing else is to be said.
pub const ANSWERS: &str = "its agent answers";

/// Events that wait for the loop. Those who send wait when it is full.
const QUEUE: usize = 1024;

/// Connections whose hello is waited for at one time; more are cut off.
const READERS: usize = 64;

/// How long servers that outlived an earlier agent may take to come back.
const ADOPTION: Duration = Duration::from_secs(3);

/// After an accept that failed (no descriptors left), so that the thread does not spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How long the loop sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(1);

/// What the loop is told by those around it.
pub enum Happening {
    Knock(Knock),
    Hello(Box<Hello>),
    Said {
        server: String,
        connection: u64,
        up: Up,
    },
    Parted {
        server: String,
        connection: u64,
    },
    Ended {
        server: String,
        process: u64,
    },
    /// The machine has another certificate, or other keys were revoked.
    NewKeys,
    Order {
        order: Order,
        reply: oneshot::Sender<Answer>,
    },
}

pub enum Order {
    Kill { server: String },
    Start { server: String },
    Stop { servers: Vec<String>, within_ms: u64 },
    Reload { generation: u64 },
    Program,
    Become { id: String },
    Succeed { server: String, drain_ms: u64 },
    End,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the plan has no machine {0}")]
    NoSuchMachine(String),
    #[error("cannot answer at {address}: {error}")]
    Door { address: std::net::SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Authority(#[from] link::api::AuthorityError),
    #[error(transparent)]
    Agreed(#[from] AgreedError),
    #[error(transparent)]
    State(#[from] crate::site::StateError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The URLs that `status` shows for a server.
pub fn urls(server: &Server) -> Vec<String> {
    let url = |listen: &Listen| match (server.role, listen.name.as_str()) {
        (Role::Dns, "dns") => Some(format!("dns://{}", listen.address)),
        (Role::Dns, _) => None,
        (Role::Control, _) => None,
        (Role::Gate | Role::Database, _) => Some(format!("postgres://{}", listen.address)),
        _ => Some(format!("http://{}", listen.address)),
    };
    server.listen.iter().filter_map(url).collect()
}

/// Runs one machine's part until it is told to end.
pub fn run(state: &State, machine: &str) -> Result<(), AgentError> {
    let folder = state.machine(machine);
    let _lock = folder.lock()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (mut agent, happenings) = Agent::open(state, machine, &folder).await?;
        agent.adopt(happenings).await;
        Ok(())
    })
}

struct Agent {
    machine: plan::Machine,
    plan: Arc<Plan>,
    /// The same for those who answer for this agent.
    plans: watch::Sender<Arc<Plan>>,
    servants: BTreeMap<String, Servant>,
    /// The names in the order of a request, in which servers are started.
    order: Vec<String>,
    record: Record,
    around: Surroundings,
    peers: Arc<Peers>,
    report: watch::Sender<MachineReport>,
    /// What gates and databases were told last.
    told: SiteReport,
    /// Those who asked for servers to stop, and wait for it.
    waiting: Vec<(Vec<String>, oneshot::Sender<Answer>)>,
    connections: u64,
    /// Has a clone in each thread that waits for a hello.
    readers: Arc<()>,
    /// Set when the agent is to end after its servers.
    ending: bool,
    started: Instant,
    looked: reload::Looked,
    /// Why it does not go by what the machines agreed on, on real machines.
    trouble: Trouble,
    certificate: CertificateNote,
    /// What this machine's operator should know of its program.
    notes: upgrade::Notes,
}

impl Agent {
    async fn open(
        state: &State,
        name: &str,
        folder: &MachineFolder,
    ) -> Result<(Self, mpsc::Receiver<Happening>), AgentError> {
        let in_force = state.in_force()?;
        let plan = Arc::new(in_force.plan.clone());
        let machine = plan.machine(name).cloned().ok_or_else(|| AgentError::NoSuchMachine(name.into()))?;
        let (sender, happenings) = mpsc::channel(QUEUE);
        let guests = Guests::default();
        guests.revoke(state.revoked()?);
        let identity = Identity::open(folder.path())?.welcoming(guests.clone())?;
        let listener = tokio::net::TcpListener::bind(machine.agent)
            .await
            .map_err(|error| AgentError::Door { address: machine.agent, error })?;
        let door = Door { listener, identity: identity.clone(), site: plan.site.clone() };
        let peers = Peers::watch(&plan, name, &identity);
        let (desk, trouble) = agree(state, &plan, &machine, (&identity, guests), (&sender, &peers))?;
        let link = folder.link();
        let listener = short_path::listen(&link)?;
        state.open_link(&link)?;
        take_knocks(listener, sender.clone())?;
        let record = Record::open(&folder.record())?;
        let (report, mine) = watch::channel(MachineReport {
            name: name.to_owned(),
            address: machine.address.to_string(),
            state: MachineState::Up,
            because: ANSWERS.into(),
            notes: Vec::new(),
            servers: Vec::new(),
        });
        let (plans, newest) = watch::channel(Arc::clone(&plan));
        let certificate = Keys::begin((state, name), newest.clone(), identity, sender.clone());
        let sources = door::Sources {
            plan: newest,
            machine: name.to_owned(),
            logs: folder.logs(),
            mine,
            peers: Arc::clone(&peers),
            orders: sender.clone(),
            desk,
            releases: state.releases(),
        };
        tokio::task::spawn_local(door::serve(door, sources));
        let killed = record.content().killed.clone();
        let servants = plan.on(name).map(|server| {
            let killed = killed.contains(&server.name);
            (server.name.clone(), Servant::new(server.clone(), killed))
        });
        let agent = Self {
            servants: servants.collect(),
            order: plan.on(name).map(|server| server.name.clone()).collect(),
            around: Surroundings::new(state, folder, in_force, sender),
            machine,
            plan,
            plans,
            record,
            peers,
            report,
            told: SiteReport::default(),
            waiting: Vec::new(),
            connections: 0,
            readers: Arc::default(),
            ending: false,
            started: Instant::now(),
            looked: reload::Looked::default(),
            trouble,
            certificate,
            notes: upgrade::Notes::default(),
        };
        Ok((agent, happenings))
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Takes over what an earlier agent left, then runs.
    async fn adopt(&mut self, mut happenings: mpsc::Receiver<Happening>) {
        self.record.change(|content| content.agent = Process::living(std::process::id()));
        self.end_strays();
        let now_ms = self.now_ms();
        let mut expected = 0;
        for (name, entry) in self.record.content().servers.clone() {
            let Some(servant) = self.servants.get_mut(&name) else { continue };
            servant.find_others(now_ms, &entry, &mut self.around);
            expected += usize::from(servant.find(now_ms, entry.process, &mut self.around));
        }
        let deadline = Instant::now() + ADOPTION;
        while expected > 0 && self.servants.values().any(Servant::is_expected) {
            // Whoever asks meanwhile must not take a machine without servers for a healthy one.
            self.publish();
            match tokio::time::timeout_at(deadline.into(), happenings.recv()).await {
                Ok(Some(happening)) => drop(self.take(happening)),
                Ok(None) | Err(_) => break,
            }
        }
        for servant in self.servants.values_mut() {
            servant.give_up_expecting();
        }
        if expected > 0 {
            tracing::info!("took over {} servers that outlived an earlier agent", self.adopted());
        }
        self.run(happenings).await;
    }

    fn adopted(&self) -> usize {
        self.servants.values().filter(|servant| servant.is_connected()).count()
    }

    async fn run(&mut self, mut happenings: mpsc::Receiver<Happening>) {
        loop {
            self.look_for_changes();
            self.look_at_program();
            self.time();
            self.record.catch_up();
            self.publish();
            let due = self.servants.values().filter_map(|servant| servant.due_ms(&self.around)).min();
            let wait =
                due.map_or(IDLE, |due| Duration::from_millis(due.saturating_sub(self.now_ms())).min(IDLE));
            let ended = tokio::select! {
                happening = happenings.recv() => match happening {
                    Some(happening) => self.take(happening),
                    None => return,
                },
                () = tokio::time::sleep(wait) => false,
                () = self.peers.changed() => false,
            };
            if ended {
                self.record.change(|content| content.agent = None);
                return;
            }
        }
    }

    /// Lets every server's life know the time, in the order of a request.
    fn time(&mut self) {
        let now_ms = self.now_ms();
        let going: Vec<String> =
            self.servants.keys().filter(|name| !self.order.contains(name)).cloned().collect();
        for name in self.order.iter().chain(&going) {
            let Some(servant) = self.servants.get_mut(name) else { continue };
            servant.time(now_ms, &mut self.around, &mut self.record);
        }
        self.let_go();
    }

    /// Returns true when the agent is to end.
    fn take(&mut self, happening: Happening) -> bool {
        let now_ms = self.now_ms();
        match happening {
            Happening::Knock(knock) => self.knock(knock),
            Happening::Hello(hello) => self.hello(now_ms, *hello),
            Happening::Said { server, connection, up } => {
                let Some(servant) = self.servants.get_mut(&server) else { return false };
                servant.said(now_ms, connection, up, &mut self.around, &mut self.record);
            }
            Happening::Parted { server, connection } => {
                if let Some(servant) = self.servants.get_mut(&server) {
                    servant.parted(connection);
                }
            }
            Happening::Ended { server, process } => {
                let Some(servant) = self.servants.get_mut(&server) else { return false };
                servant.ended(now_ms, process, &mut self.around, &mut self.record);
            }
            Happening::NewKeys => self.give_keys(),
            Happening::Order { order, reply } => return self.order(now_ms, order, reply),
        }
        self.answer_waiting()
    }

    /// Gives the servers that hold the machine's key, or one of their own, what has changed about keys; to the plan that
    /// they go by nothing has.
    fn give_keys(&mut self) {
        let servants = self.servants.values_mut();
        for servant in servants.filter(|servant| self.around.gives_keys(servant.server.role)) {
            servant.follow_plan(&self.around);
        }
    }

    /// Reads on a thread what a process of ours has to say; others are cut off without a word.
    fn knock(&self, knock: Knock) {
        let known = self.servants.values().any(|servant| servant.may_be(knock.pid, knock.uid, &self.around));
        if !known || Arc::strong_count(&self.readers) > READERS {
            return tracing::debug!("process {} connected to the link and is no server", knock.pid);
        }
        let (sender, reader) = (self.around.sender(), Arc::clone(&self.readers));
        let read = move || {
            match knock.hello() {
                Ok(hello) => drop(sender.blocking_send(Happening::Hello(Box::new(hello)))),
                Err(error) => tracing::warn!("a connection to the link said no hello: {error}"),
            }
            drop(reader);
        };
        let thread = std::thread::Builder::new().name("hello".into()).stack_size(128 * 1024).spawn(read);
        if let Err(error) = thread {
            tracing::error!("cannot hear who connects to the link: {error}");
        }
    }

    fn hello(&mut self, now_ms: u64, hello: Hello) {
        self.connections += 1;
        let connection = self.connections;
        let name = hello.server.clone();
        let Some(servant) = self.servants.get_mut(&name) else {
            tracing::warn!("process {} says it is {name}, which is not a server of this machine", hello.pid);
            return;
        };
        servant.hello(now_ms, connection, hello, &mut self.around, &mut self.record);
        servant.tell(&Down::Site(self.told.clone()));
    }

    fn order(&mut self, now_ms: u64, order: Order, reply: oneshot::Sender<Answer>) -> bool {
        let order = match order {
            Order::Reload { generation } => return self.told(reply, |agent| agent.reload(generation)),
            Order::Become { id } => return self.told(reply, |agent| agent.become_program(&id)),
            Order::Program => return self.say_program(reply),
            Order::Succeed { server, drain_ms } => return self.succeed(&server, drain_ms, reply),
            order => order,
        };
        let (names, event, killed) = match order {
            Order::Kill { server } => (vec![server], life::Event::Kill, Some(true)),
            Order::Start { server } => (vec![server], life::Event::Start, Some(false)),
            Order::Stop { servers, within_ms } => (servers, life::Event::Stop { within_ms }, None),
            _ => {
                // The one who asks has stopped the servers before; what is left has no time.
                self.ending = true;
                (self.order.clone(), life::Event::Stop { within_ms: 0 }, None)
            }
        };
        if let Some(unknown) = names.iter().find(|name| !self.servants.contains_key(*name)) {
            let because = format!("machine {} has no server {unknown}", self.machine.name);
            answer(reply, Answer::Refused { because });
            return false;
        }
        if let Some(killed) = killed {
            self.record.change(|content| {
                content.killed.retain(|name| !names.contains(name));
                content.killed.extend(names.iter().filter(|_| killed).cloned());
            });
        }
        for name in &names {
            let Some(servant) = self.servants.get_mut(name) else { continue };
            servant.step(now_ms, event.clone(), &mut self.around, &mut self.record);
        }
        match event {
            life::Event::Start => answer(reply, Answer::Done),
            _ => self.waiting.push((names, reply)),
        }
        self.answer_waiting()
    }

    /// Answers at once; nothing that was ordered before is over by it.
    fn told(&mut self, reply: oneshot::Sender<Answer>, order: impl FnOnce(&mut Self) -> Answer) -> bool {
        let said = order(self);
        answer(reply, said);
        false
    }

    /// Answers those whose servers have ended. True when the agent is to end as well.
    fn answer_waiting(&mut self) -> bool {
        let over = |servants: &BTreeMap<String, Servant>, names: &[String]| {
            names.iter().all(|name| servants.get(name).is_none_or(Servant::is_over))
        };
        for (names, reply) in std::mem::take(&mut self.waiting) {
            if over(&self.servants, &names) {
                answer(reply, Answer::Done);
            } else {
                self.waiting.push((names, reply));
            }
        }
        self.ending && over(&self.servants, &self.order)
    }

    /// Says how this machine is, to whoever watches, and how the site is, to the servers that need it.
    fn publish(&mut self) {
        let now_ms = self.now_ms();
        let servers: Vec<_> = self
            .order
            .iter()
            .filter_map(|name| self.servants.get(name))
            .map(|s| s.report(now_ms, &self.plan))
            .collect();
        let left_over = self.peers.left_over();
        self.report.send_if_modified(|report| {
            let because = self.trouble.sentence().unwrap_or_else(|| ANSWERS.into());
            let notes = self.notes.sentences().iter().cloned();
            let notes: Vec<String> = notes.chain(self.certificate.sentence()).chain(left_over).collect();
            let changed = report.servers != servers || report.because != because || report.notes != notes;
            (report.servers, report.because, report.notes) = (servers, because, notes);
            changed
        });
        let site = door::site(&self.plan, &self.report.borrow(), &self.peers).without_counts();
        if site != self.told {
            let down = Down::Site(site.clone());
            for servant in self.servants.values_mut() {
                servant.tell(&down);
            }
            self.told = site;
        }
    }
}

fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    if reply.send(answer).is_err() {
        tracing::debug!("whoever gave an order did not wait for its end");
    }
}

/// Tells the loop, which knows our processes, of each connection to the link.
fn take_knocks(listener: UnixListener, sender: mpsc::Sender<Happening>) -> std::io::Result<()> {
    std::thread::Builder::new().name("link".into()).stack_size(128 * 1024).spawn(move || {
        for stream in listener.incoming() {
            match stream.and_then(Knock::of) {
                Ok(knock) => {
                    if sender.blocking_send(Happening::Knock(knock)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot take a connection to the link: {error}");
                    std::thread::sleep(ACCEPT_AGAIN);
                }
            }
        }
    })?;
    Ok(())
}
