//! The second process of a server, which takes its place on the same sockets, and those before it, which finish what
//! they began.
//!
//! `succession` decides; here it is carried out. The order of steps makes each of them survivable: the record says
//! who serves before the new process takes its first connection, and it does so before the old one takes its last.

use link::agent_end::{Down, Hello, Peer, Taken, Up};
use link::api::Answer;
use link::report::Report;
use plan::Role;
use rustix::process::Signal;
use tokio::sync::oneshot;

use super::super::record::{self, Entry, Process, Record};
use super::super::succession::{self, Seen, Verdict};
use super::super::surroundings::{Running, Surroundings};
use super::super::{answer, life, spawn};
use super::Servant;

/// Processes of one server that finish what they began, at one time.
const RETIRED: usize = 4;

/// How long a process may take beyond the time it was given to finish.
const GRACE_MS: u64 = 5_000;

/// How long a server that cannot have a successor may take to end before it starts again.
const RESTART_MS: u64 = 5_000;

/// A process that is to take over.
pub(super) struct Successor {
    process: Option<Process>,
    pid: u32,
    running: Running,
    began_ms: u64,
    drain_ms: u64,
    peer: Option<(u64, Peer)>,
    report: Option<Report>,
    taken: Taken,
    reply: oneshot::Sender<Answer>,
}

/// A process that was taken over from, or was given up.
pub(super) struct Retired {
    process: Process,
    running: Running,
    peer: Option<(u64, Peer)>,
    within_ms: u64,
    /// None once it was killed.
    kill_at_ms: Option<u64>,
}

impl Servant {
    /// Has this server's process replaced by one of the agent's own build, without the loss of a request.
    pub fn succeed(
        &mut self,
        now_ms: u64,
        drain_ms: u64,
        reply: oneshot::Sender<Answer>,
        around: &mut Surroundings,
        record: &mut Record,
    ) {
        let refused = |because: String| Answer::Refused { because };
        let name = self.server.name.clone();
        let Some(pid) = self.life.pid().filter(|pid| runs_another_build(*pid)) else {
            return answer(reply, Answer::Done);
        };
        if self.life.is_ending() || self.successor.is_some() {
            return answer(reply, refused(format!("{name} is being ended or replaced already")));
        }
        if !self.heard {
            return answer(reply, refused(format!("{name} has not said yet how it is")));
        }
        match self.server.role {
            Role::Database => answer(reply, self.renew(pid)),
            Role::Control | Role::Monitor => self.restart(now_ms, reply, around, record),
            _ if self.life.serving().is_none() => self.restart(now_ms, reply, around, record),
            // Which half of the board is whose is told by the workers that are ready.
            Role::App if around.board.as_ref().is_none_or(|board| board.ready() == 0) => {
                self.restart(now_ms, reply, around, record);
            }
            _ if self.retired.len() >= RETIRED => {
                let because = format!(
                    "{name} has {RETIRED} earlier processes that still finish what they began ({}); \
                     when one of them has ended there is room for another",
                    self.finishing().iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
                );
                answer(reply, refused(because));
            }
            _ => self.begin_successor(now_ms, drain_ms, reply, around, record),
        }
    }

    /// The manager of a database becomes the program on disk in its own process; postgres goes on.
    fn renew(&self, pid: u32) -> Answer {
        let Some(running) = &self.running else { return Answer::Done };
        tracing::info!("{}: process {pid} is to become the program on disk", self.server.name);
        match rustix::process::pidfd_send_signal(&running.handle, Signal::USR2) {
            Ok(()) => Answer::Done,
            Err(errno) => {
                Answer::Refused { because: format!("{} takes no order: {errno}", self.server.name) }
            }
        }
    }

    /// Two processes cannot share what a control server has on disk, and one that serves nobody needs no successor.
    fn restart(
        &mut self,
        now_ms: u64,
        reply: oneshot::Sender<Answer>,
        around: &mut Surroundings,
        record: &mut Record,
    ) {
        self.step(now_ms, life::Event::Stop { within_ms: RESTART_MS }, around, record);
        self.step(now_ms, life::Event::Start, around, record);
        answer(reply, Answer::Done);
    }

    fn begin_successor(
        &mut self,
        now_ms: u64,
        drain_ms: u64,
        reply: oneshot::Sender<Answer>,
        around: &mut Surroundings,
        record: &mut Record,
    ) {
        let name = self.server.name.clone();
        let (pid, running) = match self.make_process(around) {
            Ok(made) => made,
            Err(because) => {
                let because = format!("cannot start a successor of {name}: {because}");
                return answer(reply, Answer::Refused { because });
            }
        };
        tracing::info!("{name}: process {pid} is to take over");
        let process = Process::living(pid);
        self.write_down(record, |entry| entry.successor = process);
        let (peer, report, taken) = (None, None, Taken::default());
        let began_ms = now_ms;
        let successor = Successor { process, pid, running, began_ms, drain_ms, peer, report, taken, reply };
        self.successor = Some(successor);
        if !record.is_written() {
            self.give_up("its record cannot be written".into(), record);
        }
    }

    /// Gives the successor its verdict.
    fn judge(&mut self, now_ms: u64, ended: Option<&str>, around: &mut Surroundings, record: &mut Record) {
        let Some(successor) = &self.successor else { return };
        let Some(serving) = self.life.serving() else {
            return self.give_up("the process that served ended meanwhile".into(), record);
        };
        let seen = match (ended, &successor.report) {
            (Some(how), _) => Seen::Ended(how),
            (None, Some(report)) => Seen::Said(report),
            (None, None) => Seen::Silent,
        };
        let role = self.server.role;
        let within_ms = succession::within_ms(role, &around.in_force.plan);
        let waited_ms = now_ms.saturating_sub(successor.began_ms);
        match succession::judge(role, serving.state, seen, waited_ms, within_ms) {
            Verdict::Wait => {}
            Verdict::GiveUp(because) => self.give_up(because, record),
            Verdict::TakeOver => self.take_over(now_ms, around, record),
        }
    }

    /// The one that serves goes on; the other is ended.
    fn give_up(&mut self, because: String, record: &mut Record) {
        let Some(successor) = self.successor.take() else { return };
        tracing::warn!("{} goes on as it is: {because}", self.server.name);
        spawn::kill(&successor.running.handle);
        let process = successor.process.unwrap_or(Process { pid: successor.pid, began: 0 });
        self.write_down(record, |entry| {
            entry
                .retired
                .extend(entry.successor.take().map(|process| record::Retired { process, within_ms: 0 }));
        });
        let (running, peer) = (successor.running, successor.peer);
        self.retired.push(Retired { process, running, peer, within_ms: 0, kill_at_ms: None });
        answer(successor.reply, Answer::Refused { because });
    }

    fn take_over(&mut self, now_ms: u64, around: &mut Surroundings, record: &mut Record) {
        let before = record.content().servers.get(&self.server.name).cloned().unwrap_or_default();
        let Some(drain_ms) = self.successor.as_ref().map(|successor| successor.drain_ms) else { return };
        self.write_down(record, |entry| {
            let retired = entry.process.map(|process| record::Retired { process, within_ms: drain_ms });
            entry.retired.extend(retired);
            entry.process = entry.successor.take();
        });
        if !record.is_written() {
            // Killed now, we would leave two processes of which the next agent knows one.
            self.write_down(record, |entry| *entry = before);
            return self.give_up("its record cannot be written".into(), record);
        }
        let Some(Successor { pid, running, peer, report, taken, reply, .. }) = self.successor.take() else {
            return;
        };
        let (old, old_peer) = (self.running.replace(running), std::mem::replace(&mut self.peer, peer));
        self.counters.clear();
        self.traffic.clear();
        self.taken = taken;
        if let Some(report) = report {
            self.step(now_ms, life::Event::Succeeded { pid, report }, around, record);
        }
        if let (Some(running), Some(process)) = (old, before.process) {
            let kill_at_ms = Some(now_ms + drain_ms + GRACE_MS);
            tracing::info!(
                "{}: process {pid} serves; {} finishes what it began",
                self.server.name,
                process.pid
            );
            let mut retired = Retired { process, running, peer: old_peer, within_ms: drain_ms, kill_at_ms };
            retired.tell(&Down::Retire { within_ms: drain_ms });
            self.retired.push(retired);
        }
        if self.taken.generation < around.in_force.plan.generation {
            self.follow_plan(around);
        }
        answer(reply, Answer::Done);
    }

    /// Takes in hand what an earlier agent left beside the process that serves.
    pub fn find_others(&mut self, now_ms: u64, entry: &Entry, around: &mut Surroundings) {
        // One that did not serve yet is not needed: whoever ordered it orders it again.
        let given_up = entry.successor.map(|process| record::Retired { process, within_ms: 0 });
        for found in entry.retired.iter().copied().chain(given_up).filter(|found| found.process.is_alive()) {
            let record::Retired { process, within_ms } = found;
            match around.watch(&self.server.name, process.pid) {
                Ok(running) => {
                    let grace_ms = if within_ms == 0 { 0 } else { GRACE_MS };
                    let kill_at_ms = Some(now_ms + within_ms + grace_ms);
                    self.retired.push(Retired { process, running, peer: None, within_ms, kill_at_ms });
                }
                Err(error) => tracing::info!("process {} has just ended: {error}", process.pid),
            }
        }
    }

    /// Whether a second process of this server has this id.
    pub(super) fn is_other(&self, pid: u32) -> bool {
        let successor = self.successor.as_ref().is_some_and(|successor| successor.pid == pid);
        successor || self.retired.iter().any(|retired| retired.process.pid == pid)
    }

    /// A second process says hello.
    pub(super) fn hello_other(&mut self, connection: u64, hello: Hello, around: &mut Surroundings) {
        if let Err(error) = self.connect_other(connection, hello, around) {
            tracing::error!("cannot welcome a second process of {}: {error}", self.server.name);
        }
    }

    fn connect_other(
        &mut self,
        connection: u64,
        hello: Hello,
        around: &mut Surroundings,
    ) -> Result<(), link::frame::FrameError> {
        self.hear(connection, &hello.peer, around)?;
        if self.successor.as_ref().is_some_and(|successor| successor.pid == hello.pid) {
            let generation = self.welcome(&hello.peer, true, around)?;
            if let Some(successor) = &mut self.successor {
                successor.taken = Taken { generation, ..Taken::default() };
                successor.peer = Some((connection, hello.peer));
            }
            return Ok(());
        }
        // What it holds, its successor holds as well.
        hello.peer.adopted()?;
        if let Some(retired) = self.retired.iter_mut().find(|retired| retired.process.pid == hello.pid) {
            retired.peer = Some((connection, hello.peer));
            retired.tell(&Down::Retire { within_ms: retired.within_ms });
        }
        Ok(())
    }

    /// A second process says something; false when it is none of its connections.
    pub(super) fn said_other(
        &mut self,
        now_ms: u64,
        connection: u64,
        up: Up,
        around: &mut Surroundings,
        record: &mut Record,
    ) {
        let Some(successor) = &mut self.successor else { return };
        if successor.peer.as_ref().map(|(current, _)| *current) != Some(connection) {
            return;
        }
        match up {
            Up::Report(report) => {
                successor.report = Some(report);
                self.judge(now_ms, None, around, record);
            }
            Up::Took(taken) => successor.taken = taken,
            // Counted from the time on when it serves.
            Up::Counters(_) | Up::Traffic(_) | Up::Hello { .. } => {}
        }
    }

    pub(super) fn parted_other(&mut self, connection: u64) {
        let of =
            |peer: &Option<(u64, Peer)>| peer.as_ref().is_some_and(|(current, _)| *current == connection);
        for retired in self.retired.iter_mut().filter(|retired| of(&retired.peer)) {
            retired.peer = None;
        }
        if let Some(successor) = self.successor.as_mut().filter(|successor| of(&successor.peer)) {
            successor.peer = None;
        }
    }

    /// The process of this number has ended, and is not the one that serves.
    pub(super) fn ended_other(
        &mut self,
        now_ms: u64,
        process: u64,
        around: &mut Surroundings,
        record: &mut Record,
    ) {
        if let Some(index) = self.retired.iter().position(|retired| retired.running.process == process) {
            let retired = self.retired.swap_remove(index);
            let how = spawn::how_it_ended(&retired.running.handle);
            tracing::info!("{}: its earlier process {} {how}", self.server.name, retired.process.pid);
            let gone = retired.process.pid;
            return self
                .write_down(record, |entry| entry.retired.retain(|retired| retired.process.pid != gone));
        }
        let Some(successor) = self.successor.as_ref().filter(|other| other.running.process == process) else {
            return;
        };
        let how = spawn::how_it_ended(&successor.running.handle);
        self.judge(now_ms, Some(&how), around, record);
        // No second word about its end will come.
        self.retired.retain(|retired| retired.running.process != process);
        self.write_down(record, |entry| entry.retired.retain(|retired| retired.process.is_alive()));
    }

    /// Second processes whose time is over.
    pub(super) fn time_others(&mut self, now_ms: u64, around: &mut Surroundings, record: &mut Record) {
        for retired in &mut self.retired {
            if retired.kill_at_ms.is_some_and(|at| at <= now_ms) {
                retired.kill_at_ms = None;
                spawn::kill(&retired.running.handle);
            }
        }
        self.judge(now_ms, None, around, record);
    }

    /// When [`Servant::time`] would change something about them.
    pub(super) fn others_due_ms(&self, plan: &plan::Plan) -> Option<u64> {
        let successor = self.successor.as_ref();
        let given_up = successor.map(|other| other.began_ms + succession::within_ms(self.server.role, plan));
        self.retired.iter().filter_map(|retired| retired.kill_at_ms).chain(given_up).min()
    }

    /// The server as a whole is to end: the second processes too, within this time or at once.
    pub(super) fn end_others(&mut self, now_ms: u64, within_ms: Option<u64>, record: &mut Record) {
        if self.successor.is_some() {
            self.give_up(format!("{} is to end", self.server.name), record);
        }
        for retired in &mut self.retired {
            let told = within_ms.is_some_and(|within_ms| retired.tell(&Down::Stop { within_ms }));
            let at_ms = now_ms + if told { within_ms.unwrap_or_default() + life::STOP_GRACE_MS } else { 0 };
            retired.kill_at_ms = retired.kill_at_ms.map(|before| before.min(at_ms));
        }
        for retired in
            self.retired.iter_mut().filter(|retired| retired.kill_at_ms.is_some_and(|at| at <= now_ms))
        {
            retired.kill_at_ms = None;
            spawn::kill(&retired.running.handle);
        }
    }

    /// The processes that finish what they began.
    pub fn finishing(&self) -> Vec<u32> {
        self.retired.iter().map(|retired| retired.process.pid).collect()
    }

    /// Whether this server's process runs another build than the agent.
    pub fn is_of_another_build(&self) -> bool {
        self.life.pid().is_some_and(runs_another_build)
    }

    /// Whether nothing is under way that the next agent would not find as it is.
    pub fn is_settled(&self) -> bool {
        self.successor.is_none() && !self.life.is_ending()
    }
}

impl Retired {
    /// False when it did not arrive.
    fn tell(&mut self, down: &Down) -> bool {
        let Some((_, peer)) = &self.peer else { return false };
        let sent = peer.send(down);
        if let Err(error) = &sent {
            // It comes back when it goes on, and is told then.
            tracing::info!("process {} does not take orders now: {error}", self.process.pid);
            peer.close();
            self.peer = None;
        }
        sent.is_ok()
    }
}

/// Whether this process was made from another program file than the agent's. One that has ended was not.
fn runs_another_build(pid: u32) -> bool {
    match (link::program::of(pid), link::program::mine()) {
        (Ok(theirs), Ok(mine)) => theirs != mine,
        _ => false,
    }
}
