//! What an action does to postgres and its disk, and how long it takes.

use database::failover::{Action, Names, Progress, Stamp};

use super::control::{Gives, Proposal};
use super::postgres::{Entry, Primary, Process, Role, Standby, accepts, is_beginning};
use super::world::{Broken, Event, MS, SECOND, World, name, number};

impl World {
    pub fn act(&mut self, node: usize, life: u64, action: Action) {
        let Some(manager) = self.nodes[node].manager.as_mut().filter(|manager| manager.life == life) else {
            return;
        };
        manager.acting = false;
        let boot = manager.boot.clone();
        match action {
            Action::Wait | Action::End | Action::EndLeftovers => {}
            Action::Create(group) => {
                let number = self.chance.number();
                let sent = self.nodes[node].clock(self.now);
                self.say(|| format!("{} creates the record as {boot}", name(node)));
                self.send(Proposal {
                    from: node,
                    life,
                    number,
                    expected: 0,
                    next: (*group).into(),
                    sent,
                    gives: Gives::Nothing,
                });
            }
            Action::Propose(command) => self.propose(node, &command, false),
            Action::Initialise => self.busy(node, 300 * MS, SECOND, Event::Initialised(node, life)),
            Action::Clone { from, epoch, reinit, .. } => {
                self.busy(node, SECOND, 3 * SECOND, Event::Copied(node, life, number(&from), epoch, reinit));
            }
            Action::Start { .. } => self.start(node),
            Action::Follow { server, epoch, confirmed } => {
                self.follow(node, number(&server), epoch, confirmed)
            }
            Action::Seal => self.seal(node),
            Action::Rewind { from, epoch, .. } => {
                self.end_postgres(node);
                if let Some(stamp) = &mut self.nodes[node].disk.stamp {
                    (stamp.spoiled, stamp.rewound_in) = (true, epoch);
                }
                self.busy(node, SECOND / 2, 2 * SECOND, Event::Rewound(node, life, number(&from), epoch));
            }
            Action::Promote { names, epoch, confirmed } => self.promote(node, names, epoch, confirmed),
            Action::CommitEpoch(epoch) => self.commit_epoch(node, epoch),
            Action::SetUp => self.as_primary_mut(node, |primary| primary.set_up = true),
            Action::SetNames(names) => {
                self.on_postgres(node, 5 * MS, 30 * MS, |process| Event::NamesInForce(node, process, names))
            }
            Action::Checkpoint => {
                self.as_primary_mut(node, |primary| primary.checkpoint = Progress::UnderWay);
                self.on_postgres(node, 10 * MS, 300 * MS, |process| Event::Checkpointed(node, process));
            }
            Action::Stop => self.stop(node),
            Action::Fence => self.fence(node),
        }
    }

    fn busy(&mut self, node: usize, low: u64, high: u64, end: Event) {
        if let Some(manager) = &mut self.nodes[node].manager {
            if manager.busy {
                return;
            }
            manager.busy = true;
        }
        self.within(low, high, end);
    }

    /// Whether this life still waits for the end of its long action; then it is over.
    fn done(&mut self, node: usize, life: u64) -> bool {
        let manager =
            self.nodes[node].manager.as_mut().filter(|manager| manager.life == life && manager.busy);
        manager.map(|manager| manager.busy = false).is_some()
    }

    fn on_postgres(&mut self, node: usize, low: u64, high: u64, event: impl FnOnce(u64) -> Event) {
        if let Some(process) = self.nodes[node].postgres.as_ref().map(|process| process.id) {
            self.within(low, high, event(process));
        }
    }

    fn as_primary_mut(&mut self, node: usize, change: impl FnOnce(&mut Primary)) {
        if let Some(Role::Primary(primary)) =
            self.nodes[node].postgres.as_mut().map(|process| &mut process.role)
        {
            change(primary);
        }
    }

    fn as_standby_mut(&mut self, node: usize) -> Option<&mut Standby> {
        match self.nodes[node].postgres.as_mut().map(|process| &mut process.role) {
            Some(Role::Standby(standby)) => Some(standby),
            _ => None,
        }
    }

    pub fn initialised(&mut self, node: usize, life: u64) {
        if self.done(node, life) {
            let disk = &mut self.nodes[node].disk;
            disk.present = true;
            disk.stamp = Some(Stamp { system_identifier: 7, ..Stamp::default() });
        }
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].postgres.is_some() {
            return;
        }
        if self.nodes[node].disk_full > 0 {
            return self.in_trouble(node, "postgres ended: no space left on device");
        }
        self.processes += 1;
        let ready_at = self.now + self.chance.between(100 * MS, 600 * MS);
        let role = Role::Standby(Standby::default());
        self.nodes[node].disk.closed = None;
        self.nodes[node].postgres = Some(Process { id: self.processes, ready_at, role });
        if let Some(manager) = &mut self.nodes[node].manager {
            manager.trouble = None;
        }
    }

    fn follow(&mut self, node: usize, from: usize, epoch: u64, confirmed: u64) {
        let clock = self.nodes[node].clock(self.now);
        let Some(standby) = self.as_standby_mut(node) else { return };
        (standby.follows, standby.waits_since) = (Some(from), clock);
        let stamp = self.nodes[node].disk.stamp.unwrap_or_default();
        self.nodes[node].disk.stamp = Some(Stamp { confirmed, following: epoch, ..stamp });
        self.on_postgres(node, 10 * MS, 60 * MS, |process| Event::Connect(node, process));
    }

    fn seal(&mut self, node: usize) {
        if self.broken == Broken::VoteWithoutSeal {
            return;
        }
        let Some(standby) = self.as_standby_mut(node) else { return };
        standby.follows = None;
        let session = standby.receiver.as_mut().map(|receiver| {
            receiver.ending = true;
            receiver.session
        });
        if let Some(session) = session {
            self.within(4 * MS, 40 * MS, Event::ReceiverEnds(node, session));
        }
    }

    pub fn receiver_ends(&mut self, node: usize, session: u64) {
        if let Some(standby) = self.as_standby_mut(node)
            && standby.receiver.as_ref().is_some_and(|receiver| receiver.session == session)
        {
            standby.receiver = None;
            self.look_soon(node, MS);
        }
    }

    fn promote(&mut self, node: usize, names: Names, epoch: u64, confirmed: u64) {
        let Some(standby) = self.as_standby_mut(node) else { return };
        let begins = !std::mem::replace(&mut standby.promoting, true);
        standby.names = names;
        let stamp = self.nodes[node].disk.stamp.unwrap_or_default();
        self.nodes[node].disk.stamp = Some(Stamp { confirmed, following: epoch, ..stamp });
        if !begins {
            return;
        }
        self.on_postgres(node, 30 * MS, 150 * MS, |process| Event::Promoted(node, process));
    }

    pub fn promoted(&mut self, node: usize, process: u64) {
        let Some(it) = self.nodes[node].postgres.as_ref().filter(|it| it.id == process) else { return };
        let Role::Standby(standby) = &it.role else { return };
        let names = standby.names.clone();
        let disk = &self.nodes[node].disk;
        let (epoch, switch) = (disk.stamp.unwrap_or_default().following, disk.end());
        // The next number that this server knows of: another one may have taken the same.
        let timeline = disk.timeline() + 1;
        self.append(node, timeline);
        let disk = &mut self.nodes[node].disk;
        disk.flushed = disk.log.len();
        let primary = Primary::new(epoch, switch, names, super::world::MACHINES);
        if let Some(process) = &mut self.nodes[node].postgres {
            process.role = Role::Primary(primary);
        }
        self.say(|| format!("{} promoted: timeline {timeline} from {switch} for epoch {epoch}", name(node)));
        self.look_soon(node, MS);
    }

    pub fn append(&mut self, node: usize, timeline: u32) -> (u64, u32) {
        self.entries += 1;
        let id = self.entries;
        let log = &mut self.nodes[node].disk.log;
        log.push(Entry { id, timeline });
        let end = log.len() as u64;
        self.on_postgres(node, MS / 2, 6 * MS, |process| Event::Flush(node, process));
        (end, id)
    }

    fn commit_epoch(&mut self, node: usize, epoch: u64) {
        let Some(Role::Primary(primary)) = self.nodes[node].postgres.as_ref().map(|process| &process.role)
        else {
            return;
        };
        if primary.committing.is_some() || primary.committed == Some(epoch) {
            return;
        }
        let timeline = self.nodes[node].disk.timeline();
        let (end, _) = self.append(node, timeline);
        self.as_primary_mut(node, |primary| primary.committing = Some((epoch, end)));
    }

    pub fn names_in_force(&mut self, node: usize, process: u64, names: Names) {
        if self.nodes[node].postgres.as_ref().is_none_or(|it| it.id != process) {
            return;
        }
        self.say(|| format!("{} waits for {names:?}", name(node)));
        let end = self.nodes[node].disk.end();
        self.as_primary_mut(node, |primary| (primary.names, primary.names_since) = (names, Some(end)));
        self.acknowledge(node);
        self.look_soon(node, MS);
    }

    pub fn checkpointed(&mut self, node: usize, process: u64) {
        if self.nodes[node].postgres.as_ref().is_some_and(|it| it.id == process) {
            self.as_primary_mut(node, |primary| primary.checkpoint = Progress::Done);
        }
    }

    /// Fast: no new writes; what is written reaches the standbys; after 2 s by force.
    fn stop(&mut self, node: usize) {
        let stuck = self.nodes[node].postgres_frozen();
        let Some(process) = &mut self.nodes[node].postgres else { return };
        let id = process.id;
        if let Role::Primary(primary) = &mut process.role {
            if primary.closing {
                return;
            }
            primary.closing = true;
            let timeline = self.nodes[node].disk.timeline();
            self.append(node, timeline);
        }
        let (low, high) = if stuck { (2000 * MS, 2010 * MS) } else { (30 * MS, 150 * MS) };
        self.within(low, high, Event::Stopped(node, id));
    }

    pub fn stopped(&mut self, node: usize, process: u64) {
        let Some(it) = self.nodes[node].postgres.as_ref().filter(|it| it.id == process) else { return };
        let end = self.nodes[node].disk.end();
        if let Role::Primary(primary) = &it.role {
            let connected = |other: &usize| self.session(node, *other).is_some();
            let behind = (0..self.servers)
                .filter(connected)
                .any(|other| primary.heard[other].is_none_or(|heard| heard.flushed < end));
            if behind && !self.nodes[node].postgres_frozen() && !self.chance.clone().one_in(8) {
                // Waits for its senders, up to 2 s; then it is killed.
                self.chance.number();
                return self.within(10 * MS, 50 * MS, Event::Stopped(node, process));
            }
            if !behind && !self.nodes[node].postgres_frozen() {
                self.nodes[node].disk.closed = Some(end);
            }
        }
        self.end_postgres(node);
        self.look_soon(node, 0);
    }

    /// The session of a standby's receiver on this primary.
    fn session(&self, node: usize, other: usize) -> Option<u64> {
        let process = self.nodes[node].postgres.as_ref()?.id;
        match &self.nodes[other].postgres.as_ref()?.role {
            Role::Standby(Standby { receiver: Some(receiver), .. }) if receiver.from_process == process => {
                Some(receiver.session)
            }
            _ => None,
        }
    }

    fn fence(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.deadline = None;
        if let Some(manager) = &mut it.manager {
            manager.lease = None;
        }
        self.on_postgres(node, MS, 120 * MS, |process| Event::Kill(node, process));
    }

    pub fn kill(&mut self, node: usize, process: u64) {
        if self.nodes[node].postgres.as_ref().is_some_and(|it| it.id == process) {
            self.end_postgres(node);
            self.look_soon(node, MS);
        }
    }

    pub fn end_postgres(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].postgres.take() {
            self.say(|| format!("{} postgres {} is gone", name(node), process.id));
        }
    }

    /// The guard: at the deadline nothing may be left.
    pub fn deadline(&mut self, node: usize) {
        let it = &self.nodes[node];
        if self.broken.has_leases()
            && it.powered
            && it.deadline.is_some_and(|deadline| it.clock(self.now) >= deadline)
        {
            self.nodes[node].deadline = None;
            self.say(|| format!("{} the guard ends postgres", name(node)));
            self.on_postgres(node, MS, 130 * MS, |process| Event::Kill(node, process));
        }
    }

    pub fn copied(&mut self, node: usize, life: u64, from: usize, epoch: u64, reinit: bool) {
        if !self.done(node, life) {
            return;
        }
        if !self.serves(node, from, epoch) || self.nodes[node].disk_full > 0 {
            return self.in_trouble(node, "the copy failed");
        }
        self.end_postgres(node);
        self.take_log(
            node,
            from,
            Stamp { system_identifier: 7, confirmed: epoch, following: epoch, ..Stamp::default() },
        );
        if reinit {
            let command = database::group::Command::ReinitDone { server: name(node) };
            self.propose(node, &command, false);
        }
    }

    pub fn rewound(&mut self, node: usize, life: u64, from: usize, epoch: u64) {
        if !self.done(node, life) {
            return;
        }
        // pg_rewind believes the numbers of timelines.
        let fooled = self.nodes[node].disk.timeline() == self.nodes[from].disk.timeline();
        if !self.serves(node, from, epoch) || fooled || self.chance.one_in(6) {
            return self.in_trouble(node, "the rewind failed");
        }
        let stamp = self.nodes[node].disk.stamp.unwrap_or_default();
        self.take_log(node, from, Stamp { spoiled: false, confirmed: epoch, following: epoch, ..stamp });
    }

    fn serves(&self, node: usize, from: usize, epoch: u64) -> bool {
        let role = self.nodes[from].postgres.as_ref().map(|process| &process.role);
        matches!(role, Some(Role::Primary(primary)) if primary.epoch == epoch)
            && self.linked(node, from)
            && self.linked(from, node)
            && !self.nodes[from].postgres_frozen()
    }

    fn take_log(&mut self, node: usize, from: usize, stamp: Stamp) {
        let log = self.nodes[from].disk.log.clone();
        let disk = &mut self.nodes[node].disk;
        (disk.flushed, disk.log, disk.stamp) = (log.len(), log, Some(stamp));
        (disk.present, disk.closed) = (true, None);
        self.look_soon(node, MS);
    }

    pub fn connect(&mut self, node: usize, process: u64) {
        let Some(it) = self.nodes[node].postgres.as_ref().filter(|it| it.id == process) else { return };
        let Role::Standby(standby) = &it.role else { return };
        let (Some(from), None) = (standby.follows, &standby.receiver) else { return };
        let retry = Event::Connect(node, process);
        let server = self.nodes[from].postgres.as_ref();
        let serves =
            server.is_some_and(|server| matches!(&server.role, Role::Primary(primary) if !primary.closing));
        let reached =
            self.linked(node, from) && self.linked(from, node) && !self.nodes[from].postgres_frozen();
        if !(serves && reached && accepts(&self.nodes[from].disk, &self.nodes[node].disk)) {
            return self.within(90 * MS, 130 * MS, retry);
        }
        if !is_beginning(&self.nodes[from].disk, &self.nodes[node].disk) {
            let text =
                format!("{} streams from {} although its log is no beginning of it", name(node), name(from));
            return self.violate(text);
        }
        let from_process = server.map_or(0, |server| server.id);
        self.begin_session(node, from, from_process);
    }
}
