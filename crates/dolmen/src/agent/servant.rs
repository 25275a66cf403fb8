//! One server in the agent's hands: its life, its process, its sockets and its connection.
//!
//! `life` decides; here the actions are carried out, and what came of them is told to it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use link::Secrets;
use link::agent_end::{Down, Given, Hello, Peer, Taken, Up, Welcome};
use link::api::Identity;
use link::board::Board;
use link::report::{PoolTraffic, ServerReport, State};
use plan::{Plan, Role, Server};
use tokio::sync::mpsc;

use super::hold::Held;
use super::life::{Action, Event, Life};
use super::record::{Entry, Process, Record};
use super::{Happening, spawn};
use crate::site::{self, Account, InForce, MachineFolder, StateError};

/// What all servants of an agent share.
pub struct Surroundings {
    pub in_force: InForce,
    folder: MachineFolder,
    state: site::State,
    /// The ready workers of this machine's app server; made when the first server needs it.
    board: Option<Board>,
    sender: mpsc::Sender<Happening>,
    processes: u64,
}

impl Surroundings {
    pub fn new(
        state: &site::State,
        folder: &MachineFolder,
        in_force: InForce,
        sender: mpsc::Sender<Happening>,
    ) -> Self {
        Self { in_force, folder: folder.clone(), state: state.clone(), board: None, sender, processes: 0 }
    }

    /// The board, for the two roles that share it on a machine with an app server.
    fn board(&mut self, role: Role) -> std::io::Result<Option<&Board>> {
        if !matches!(role, Role::App | Role::Web) {
            return Ok(None);
        }
        if self.board.is_none() {
            self.board = Some(Board::create()?);
        }
        Ok(self.board.as_ref())
    }

    fn account(&self, role: Role) -> Option<Account> {
        self.state.account(role)
    }

    /// The way to the loop.
    pub fn sender(&self) -> mpsc::Sender<Happening> {
        self.sender.clone()
    }

    /// Who servers of this role run as.
    fn uid(&self, role: Role) -> u32 {
        self.account(role).map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid)
    }

    /// What servers of this role need to know; with this machine's identity for those that talk to control.
    fn secrets(&self, role: Role) -> std::io::Result<Secrets> {
        let mut secrets = self.state.secrets_for(role)?;
        if matches!(role, Role::Gate | Role::Database | Role::Control) {
            secrets.extend(Identity::secrets(self.folder.path())?);
        }
        Ok(secrets)
    }

    /// What a server of this role works by.
    fn given(&self, role: Role) -> std::io::Result<Given> {
        let InForce { plan, release } = &self.in_force;
        Ok(Given {
            plan: plan.clone(),
            files: release.files.clone(),
            programs: release.programs.clone(),
            secrets: self.secrets(role)?,
        })
    }

    pub fn read_in_force(&self) -> Result<InForce, StateError> {
        self.state.in_force()
    }

    pub fn stamp(&self) -> std::io::Result<(u64, i64, i64)> {
        self.state.stamp()
    }

    /// Has the loop told when this process ends.
    fn watch(&mut self, server: &str, pid: u32) -> std::io::Result<Running> {
        self.processes += 1;
        let process = self.processes;
        let handle = Arc::new(spawn::watch(pid)?);
        let end = spawn::end(Arc::clone(&handle));
        let (sender, server) = (self.sender.clone(), server.to_owned());
        tokio::task::spawn_local(async move {
            if let Err(error) = end.await {
                tracing::error!("cannot watch the process of {server}: {error}");
            } else if sender.send(Happening::Ended { server, process }).await.is_err() {
                tracing::debug!("a server ended after its agent");
            }
        });
        Ok(Running { process, handle })
    }
}

/// A process, and the number by which the loop is told of its end.
struct Running {
    process: u64,
    handle: Arc<OwnedFd>,
}

pub struct Servant {
    pub server: Server,
    pub life: Life,
    running: Option<Running>,
    /// None until the first start, or until a server that outlived an agent brings them back.
    held: Option<Held>,
    peer: Option<(u64, Peer)>,
    counters: BTreeMap<String, u64>,
    traffic: Vec<PoolTraffic>,
    /// What its process goes by.
    taken: Taken,
    /// Whether an earlier agent's record says that it lives, or was about to.
    expected: bool,
    /// The last state and sentence in the log.
    told: String,
}

impl Servant {
    pub fn new(server: Server, killed: bool) -> Self {
        let life = Life::new(0, killed);
        // The application's workers begin first, which takes as long as they like.
        let life = if server.role == Role::App { life.slow_to_start() } else { life };
        Self {
            server,
            life,
            running: None,
            held: None,
            peer: None,
            counters: BTreeMap::new(),
            traffic: Vec::new(),
            taken: Taken::default(),
            expected: false,
            told: String::new(),
        }
    }

    /// Looks for the process of an earlier agent's record. True when it may come back.
    pub fn find(&mut self, now_ms: u64, process: Option<Process>, around: &mut Surroundings) -> bool {
        match process {
            Some(process) if process.is_alive() => match around.watch(&self.server.name, process.pid) {
                Ok(running) => {
                    self.running = Some(running);
                    self.life.step(now_ms, Event::Found { pid: process.pid });
                    self.expected = true;
                }
                Err(error) => tracing::info!("{} has just ended: {error}", self.server.name),
            },
            // It ended while no agent was there.
            Some(_) => {}
            // The agent died between the intent and the process: if there is one, it says hello.
            None => self.expected = true,
        }
        self.expected
    }

    pub fn is_expected(&self) -> bool {
        self.expected
    }

    pub fn is_connected(&self) -> bool {
        self.peer.is_some()
    }

    /// A server that did not come back in time is hung: it is ended, and started anew when it has.
    pub fn give_up_expecting(&mut self) {
        if std::mem::take(&mut self.expected)
            && let Some(running) = &self.running
        {
            tracing::warn!("{} does not speak to its new agent and is ended", self.server.name);
            spawn::kill(&running.handle);
        }
    }

    /// Feeds one event to the life, and carries out what it says.
    pub fn step(&mut self, now_ms: u64, event: Event, around: &mut Surroundings, record: &mut Record) {
        if self.expected && event == Event::Time {
            return;
        }
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.life.step(now_ms, event) {
                events.extend(self.carry_out(action, around, record));
            }
        }
        self.log(now_ms);
    }

    fn carry_out(&mut self, action: Action, around: &mut Surroundings, record: &mut Record) -> Option<Event> {
        match action {
            Action::Spawn => return Some(self.spawn(around, record)),
            Action::Kill => {
                if let Some(running) = &self.running {
                    spawn::kill(&running.handle);
                }
            }
            Action::AskToStop { within_ms } => {
                if !self.tell(&Down::Stop { within_ms })
                    && let Some(running) = &self.running
                {
                    spawn::kill(&running.handle);
                }
            }
            Action::Refuse => self.held.iter().for_each(Held::refuse),
            Action::Accept => {
                self.held.iter().for_each(Held::accept);
                self.tell(&Down::Admit);
            }
        }
        None
    }

    /// Makes the process.
    fn spawn(&mut self, around: &mut Surroundings, record: &mut Record) -> Event {
        let name = self.server.name.clone();
        record.change(|content| {
            content.servers.insert(name.clone(), Entry { process: None });
        });
        let event = match self.try_spawn(around) {
            Ok(pid) => Event::Spawned { pid },
            Err(because) => {
                tracing::error!("cannot start {name}: {because}");
                Event::SpawnFailed { because }
            }
        };
        record.change(|content| {
            if let Event::Spawned { pid } = event {
                content.servers.insert(name, Entry { process: Process::living(pid) });
            } else {
                content.servers.remove(&name);
            }
        });
        event
    }

    fn try_spawn(&mut self, around: &mut Surroundings) -> Result<u32, String> {
        let text = |error: std::io::Error| error.to_string();
        if self.held.is_none() {
            self.held = Some(Held::open(&self.server).map_err(|error| error.to_string())?);
        }
        let (name, role) = (&self.server.name, self.server.role);
        let account = around.account(role);
        around.folder.prepare(name, account).map_err(text)?;
        let log = link::log::open(&around.folder.log(name)).map_err(text)?;
        let link = around.folder.link();
        let pid = spawn::server(name, &link, log, account).map_err(text)?;
        self.running = Some(around.watch(name, pid).map_err(text)?);
        Ok(pid)
    }

    /// Whether this process may be this server: the one that we started, or one of the server's account while
    /// the record has only the intent to start it.
    pub fn may_be(&self, pid: u32, uid: u32, around: &Surroundings) -> bool {
        match self.life.pid() {
            Some(known) => known == pid,
            None => self.expected && uid == around.uid(self.server.role),
        }
    }

    /// A process says that it is this server.
    pub fn hello(
        &mut self,
        now_ms: u64,
        connection: u64,
        hello: Hello,
        around: &mut Surroundings,
        record: &mut Record,
    ) {
        if !self.may_be(hello.pid, hello.uid, around) {
            tracing::warn!("process {} says it is {}, but is not", hello.pid, self.server.name);
            return;
        }
        if self.life.pid().is_none() {
            // The record had only the intent; here is the process.
            let process = Process::living(hello.pid);
            self.find(now_ms, process, around);
            let name = self.server.name.clone();
            record.change(|content| {
                content.servers.insert(name, Entry { process });
            });
        }
        self.expected = false;
        let again = hello.again;
        if let Err(error) = self.connect(connection, hello, around) {
            tracing::error!("cannot welcome {}: {error}", self.server.name);
            return;
        }
        if again {
            // It may go by an earlier plan.
            self.follow_plan(around);
        }
        self.step(now_ms, Event::Hello, around, record)
    }

    fn connect(
        &mut self,
        connection: u64,
        hello: Hello,
        around: &mut Surroundings,
    ) -> Result<(), link::frame::FrameError> {
        if hello.again {
            self.take_back(hello.holds, around)?;
            hello.peer.adopted()?;
        } else {
            self.welcome(&hello.peer, around)?;
        }
        let reader = hello.peer.second()?;
        let (sender, server) = (around.sender.clone(), self.server.name.clone());
        std::thread::Builder::new().name(server.clone()).stack_size(128 * 1024).spawn(move || {
            while let Ok(up) = reader.receive() {
                let said = Happening::Said { server: server.clone(), connection, up };
                if sender.blocking_send(said).is_err() {
                    return;
                }
            }
            // The loop may have ended, and then nobody needs to know.
            drop(sender.blocking_send(Happening::Parted { server, connection }));
        })?;
        self.peer = Some((connection, hello.peer));
        Ok(())
    }

    fn take_back(
        &mut self,
        holds: Vec<(String, OwnedFd)>,
        around: &mut Surroundings,
    ) -> Result<(), link::frame::FrameError> {
        let (boards, sockets): (Vec<_>, Vec<_>) =
            holds.into_iter().partition(|(name, _)| name == Board::NAME);
        for (_, descriptor) in boards {
            if around.board.is_none() {
                around.board = Some(Board::open(descriptor)?);
            }
        }
        if self.held.is_none() {
            self.held = Some(Held::taken_back(sockets));
        }
        Ok(())
    }

    /// Tells its process of the plan that the agent goes by.
    pub fn follow_plan(&mut self, around: &Surroundings) {
        match around.given(self.server.role) {
            Ok(given) => drop(self.tell(&Down::Plan(Box::new(given)))),
            Err(error) => tracing::error!("cannot tell {} of the plan: {error}", self.server.name),
        }
    }

    fn welcome(&mut self, peer: &Peer, around: &mut Surroundings) -> Result<(), link::frame::FrameError> {
        let role = self.server.role;
        let mut names = Vec::new();
        let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
        for (name, socket) in self.held.iter().flat_map(Held::each) {
            names.push(name.to_owned());
            descriptors.push(socket.as_fd());
        }
        let welcome = Welcome {
            server: self.server.name.clone(),
            folder: around.folder.server(&self.server.name),
            given: around.given(role)?,
            succeeds: false,
            holds: Vec::new(),
        };
        let generation = welcome.given.plan.generation;
        if let Some(board) = around.board(role)? {
            names.push(Board::NAME.to_owned());
            descriptors.push(board.as_fd());
        }
        peer.welcome(Welcome { holds: names, ..welcome }, &descriptors)?;
        self.taken = Taken { generation, ..Taken::default() };
        Ok(())
    }

    pub fn said(
        &mut self,
        now_ms: u64,
        connection: u64,
        up: Up,
        around: &mut Surroundings,
        record: &mut Record,
    ) {
        if self.peer.as_ref().map(|(current, _)| *current) != Some(connection) {
            return;
        }
        match up {
            Up::Report(report) => self.step(now_ms, Event::Report(report), around, record),
            Up::Counters(counters) => self.counters = counters,
            Up::Traffic(traffic) => self.traffic = traffic,
            Up::Took(taken) => self.taken = taken,
            Up::Hello { .. } => tracing::warn!("{} said hello twice", self.server.name),
        }
    }

    pub fn parted(&mut self, connection: u64) {
        if self.peer.as_ref().is_some_and(|(current, _)| *current == connection) {
            self.peer = None;
        }
    }

    pub fn ended(&mut self, now_ms: u64, process: u64, around: &mut Surroundings, record: &mut Record) {
        let Some(running) = self.running.take_if(|running| running.process == process) else {
            return;
        };
        let how = spawn::how_it_ended(&running.handle);
        if let Some((_, peer)) = self.peer.take() {
            peer.close();
        }
        self.counters.clear();
        self.traffic.clear();
        if self.server.role == Role::App
            && let Some(board) = &around.board
        {
            board.clear();
        }
        tracing::info!("{}: its process {how}", self.server.name);
        let name = self.server.name.clone();
        record.change(|content| {
            content.servers.remove(&name);
        });
        self.step(now_ms, Event::Ended { how }, around, record)
    }

    /// Sends an order or, to the roles that need it, the site's report. False when it did not arrive.
    pub fn tell(&mut self, down: &Down) -> bool {
        if matches!(down, Down::Site(_)) && !matches!(self.server.role, Role::Gate | Role::Database) {
            return true;
        }
        let Some((_, peer)) = &self.peer else { return false };
        if let Err(error) = peer.send(down) {
            tracing::info!("{} does not take orders now: {error}", self.server.name);
            peer.close();
            self.peer = None;
            return false;
        }
        true
    }

    /// `plan`: what the agent goes by; a process that is yet to start will go by it, too.
    pub fn report(&self, now_ms: u64, plan: &Plan) -> ServerReport {
        let name = &self.server.name;
        let mut report = self.life.state(now_ms);
        if report.state == State::Healthy && plan.drained.contains(name) {
            report.state = State::Draining;
            report.because =
                format!("taken out of rotation by `dolmen drain`; `dolmen ready {name}` brings it back");
        }
        let pid = self.life.pid();
        ServerReport {
            name: name.clone(),
            role: self.server.role,
            machine: self.server.machine.clone(),
            pid,
            state: report.state,
            because: report.because,
            generation: if pid.is_none() { plan.generation } else { self.taken.generation },
            did: self.taken.did.clone(),
            refused: self.taken.refused,
            listen: super::urls(&self.server),
            counters: self.counters.clone(),
            traffic: self.traffic.clone(),
            database: self.life.database(),
        }
    }

    fn log(&mut self, now_ms: u64) {
        let report = self.life.state(now_ms);
        // The seconds until the next try count down; that is no news.
        let because = report.because.split("; next try").next().unwrap_or_default();
        let line = format!("{} is {}: {because}", self.server.name, report.state);
        if line != self.told {
            tracing::info!("{line}");
            self.told = line;
        }
    }
}
