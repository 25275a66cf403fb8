//! One server in the agent's hands: its life, its process, its sockets and its connection.
//!
//! `life` decides; here the actions are carried out, and what came of them is told to it.

mod successor;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use link::agent_end::{Down, Hello, Peer, Taken, Up, Welcome};
use link::board::Board;
use link::report::{PoolTraffic, ServerReport, State};
use plan::{Plan, Role, Server};

use super::hold::Held;
use super::life::{Action, Event, Life};
use super::record::{Entry, Process, Record};
use super::surroundings::{Running, Surroundings};
use super::{Happening, spawn};
use successor::{Retired, Successor};

pub struct Servant {
    pub server: Server,
    pub life: Life,
    running: Option<Running>,
    /// None until the first start, or until a server that outlived an agent brings them back.
    held: Option<Held>,
    peer: Option<(u64, Peer)>,
    /// Whether its process has said how it is since it is in our hands.
    heard: bool,
    successor: Option<Successor>,
    retired: Vec<Retired>,
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
            heard: false,
            successor: None,
            retired: Vec::new(),
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

    /// Lets all that waits for a time know it.
    pub fn time(&mut self, now_ms: u64, around: &mut Surroundings, record: &mut Record) {
        self.step(now_ms, Event::Time, around, record);
        self.time_others(now_ms, around, record);
    }

    /// When [`Servant::time`] would change something.
    pub fn due_ms(&self, around: &Surroundings) -> Option<u64> {
        self.life.due_ms().into_iter().chain(self.others_due_ms(&around.in_force.plan)).min()
    }

    /// Whether all its processes have ended for good, until somebody starts it.
    pub fn is_over(&self) -> bool {
        self.life.over() && self.successor.is_none() && self.retired.is_empty()
    }

    /// Feeds one event to the life, and carries out what it says.
    pub fn step(&mut self, now_ms: u64, event: Event, around: &mut Surroundings, record: &mut Record) {
        if self.expected && event == Event::Time {
            return;
        }
        match event {
            Event::Kill => self.end_others(now_ms, None, record),
            Event::Stop { within_ms } => self.end_others(now_ms, Some(within_ms), record),
            _ => {}
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
                let frozen = self.life.pid().is_some_and(spawn::is_frozen);
                if (frozen || !self.tell(&Down::Stop { within_ms }))
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
        self.write_down(record, |entry| entry.process = None);
        match self.make_process(around) {
            Ok((pid, running)) => {
                self.running = Some(running);
                self.write_down(record, |entry| entry.process = Process::living(pid));
                Event::Spawned { pid }
            }
            Err(because) => {
                tracing::error!("cannot start {}: {because}", self.server.name);
                self.forget(record);
                Event::SpawnFailed { because }
            }
        }
    }

    /// Changes what the record says of this server's processes.
    fn write_down(&self, record: &mut Record, change: impl FnOnce(&mut Entry)) {
        let name = self.server.name.clone();
        record.change(|content| change(content.servers.entry(name).or_default()));
    }

    /// Takes out of the record the process that served; of others it goes on telling.
    fn forget(&self, record: &mut Record) {
        if self.successor.is_none() && self.retired.is_empty() {
            record.change(|content| drop(content.servers.remove(&self.server.name)));
        }
    }

    fn make_process(&mut self, around: &mut Surroundings) -> Result<(u32, Running), String> {
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
        Ok((pid, around.watch(name, pid).map_err(text)?))
    }

    /// Whether this process may be this server: the one that we started, or one of the server's account while
    /// the record has only the intent to start it.
    pub fn may_be(&self, pid: u32, uid: u32, around: &Surroundings) -> bool {
        match self.life.pid() {
            _ if self.is_other(pid) => true,
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
        if self.is_other(hello.pid) {
            return self.hello_other(connection, hello, around);
        }
        if self.life.pid().is_none() {
            // The record had only the intent; here is the process.
            let process = Process::living(hello.pid);
            self.find(now_ms, process, around);
            self.write_down(record, |entry| entry.process = process);
        }
        self.expected = false;
        self.heard = false;
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
            // Those before it may still finish what they began.
            let generation = self.welcome(&hello.peer, !self.retired.is_empty(), around)?;
            self.taken = Taken { generation, ..Taken::default() };
        }
        self.hear(connection, &hello.peer, around)?;
        self.peer = Some((connection, hello.peer));
        Ok(())
    }

    /// Has the loop told what this process says.
    fn hear(&self, connection: u64, peer: &Peer, around: &Surroundings) -> std::io::Result<()> {
        let reader = peer.second()?;
        let (sender, server) = (around.sender(), self.server.name.clone());
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

    /// Says which generation the process goes by. `succeeds`: whether others of this server are still at work.
    fn welcome(
        &self,
        peer: &Peer,
        succeeds: bool,
        around: &mut Surroundings,
    ) -> Result<u64, link::frame::FrameError> {
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
            succeeds,
            holds: Vec::new(),
        };
        let generation = welcome.given.plan.generation;
        if let Some(board) = around.board(role)? {
            names.push(Board::NAME.to_owned());
            descriptors.push(board.as_fd());
        }
        peer.welcome(Welcome { holds: names, ..welcome }, &descriptors)?;
        Ok(generation)
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
            return self.said_other(now_ms, connection, up, around, record);
        }
        match up {
            Up::Report(report) => {
                self.heard = true;
                self.step(now_ms, Event::Report(report), around, record);
            }
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
        self.parted_other(connection);
    }

    pub fn ended(&mut self, now_ms: u64, process: u64, around: &mut Surroundings, record: &mut Record) {
        let Some(running) = self.running.take_if(|running| running.process == process) else {
            return self.ended_other(now_ms, process, around, record);
        };
        let how = spawn::how_it_ended(&running.handle);
        if let Some((_, peer)) = self.peer.take() {
            peer.close();
        }
        self.counters.clear();
        self.traffic.clear();
        if self.server.role == Role::App
            && self.retired.is_empty()
            && let Some(board) = &around.board
        {
            board.clear();
        }
        tracing::info!("{}: its process {how}", self.server.name);
        self.forget(record);
        self.step(now_ms, Event::Ended { how }, around, record)
    }

    /// Sends an order or, to the roles that need it, the site's report. False when it did not arrive.
    pub fn tell(&mut self, down: &Down) -> bool {
        if matches!(down, Down::Site(_))
            && !matches!(self.server.role, Role::Dns | Role::Gate | Role::Database)
        {
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
            other_build: self.is_of_another_build(),
            finishing: self.finishing(),
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
