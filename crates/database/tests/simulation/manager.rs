//! The manager: it looks, decides by the real function, and acts; and the thread that renews the lease.

use std::sync::Arc;
use std::time::Duration;

use database::failover::lease::{Holding, Renewal, renewal};
use database::failover::synchrony::REPLY_LIMIT;
use database::failover::{
    Action, Answer, AsPrimary, AsReplica, Data, HeldLease, Names, Orders, Postgres, Record, Replica, Seen,
    Trouble, Upstream, decide,
};
use database::group::{Command, Group, Lsn, Phase};

use super::control::{Gives, Proposal};
use super::node::{Manager, View, duration};
use super::postgres::Role;
use super::world::{Broken, Event, MS, SECOND, World, name, number};

const CLUSTER: u64 = 7;
const ANSWER_LIMIT: u64 = 400 * MS;
const REPLY_LIMIT_MICROS: u64 = REPLY_LIMIT.as_micros() as u64;

impl World {
    pub fn manager_starts(&mut self, node: usize) {
        if !self.nodes[node].powered || self.nodes[node].manager.is_some() {
            return;
        }
        let clock = self.nodes[node].clock(self.now);
        let it = &mut self.nodes[node];
        it.lives += 1;
        let life = it.lives;
        it.manager = Some(Manager {
            life,
            boot: format!("boot-{node}-{life}"),
            look_token: 0,
            look_at: 0,
            acting: false,
            busy: false,
            view: None,
            absent: false,
            in_touch: false,
            lease: None,
            heartbeat: clock,
            trouble: None,
            failovers: Vec::new(),
            streamed: vec![clock; super::world::MACHINES],
            asked: None,
            renewing: None,
        });
        // Kill first, ask later: nothing that an earlier life left may live beside this one.
        self.end_postgres(node);
        self.say(|| format!("{} manager starts, life {life}", name(node)));
        self.at(self.now, Event::Poll(node, life));
        self.at(self.now, Event::Renew(node, life));
        self.look_soon(node, MS);
    }

    pub fn look_soon(&mut self, node: usize, after: u64) {
        let time = self.now + after;
        let Some(manager) = &mut self.nodes[node].manager else { return };
        if manager.look_at > self.now && manager.look_at <= time {
            return;
        }
        manager.look_at = time;
        manager.look_token += 1;
        let token = manager.look_token;
        self.at(time, Event::Look(node, token));
    }

    pub fn look(&mut self, node: usize, token: u64) {
        let Some(manager) = &self.nodes[node].manager else { return };
        if manager.look_token != token {
            return;
        }
        if manager.acting {
            return self.look_soon(node, MS);
        }
        let (life, busy) = (manager.life, manager.busy || manager.asked.is_some());
        let Some(seen) = self.seen(node) else { return };
        let decision = decide(&seen);
        // A fence waits for nothing.
        if busy && decision.action != Action::Fence {
            return self.look_soon(node, 20 * MS);
        }
        let action = self.break_rule(node, decision.action);
        if action == Action::Wait {
            let calm = matches!(seen.postgres, Postgres::Running { .. });
            return self.look_soon(node, if calm { 80 * MS } else { 100 * MS });
        }
        self.say(|| format!("{} {:?}: {} -> {action:?}", name(node), decision.standing, decision.because));
        if let Some(manager) = &mut self.nodes[node].manager {
            manager.acting = true;
        }
        // It may be stopped between deciding and doing.
        self.within(MS / 10, 2 * MS, Event::Act(node, life, Box::new(action)));
        self.look_soon(node, 5 * MS);
    }

    fn seen(&self, node: usize) -> Option<Seen> {
        let it = &self.nodes[node];
        let manager = it.manager.as_ref()?;
        let clock = it.clock(self.now);
        let hurry = if self.broken == Broken::NegativeMargin { 3 } else { 1 };
        let record = match &manager.view {
            Some(view) => Record::Known {
                version: view.version,
                group: Arc::clone(&view.group),
                version_age: duration(clock - view.version_since),
                silence: duration((clock - view.seq_since) * hurry),
                epoch_age: duration(clock - view.epoch_since),
            },
            None if manager.absent => Record::Absent,
            None => Record::Unread("not asked yet".into()),
        };
        let trouble = manager.trouble.as_ref().map(|(trouble, until)| Trouble {
            what: trouble.what.clone(),
            retry_in: duration(until.saturating_sub(clock)),
        });
        Some(Seen {
            me: name(node),
            boot: manager.boot.clone(),
            servers: (0..self.servers).map(name).collect(),
            mode: self.mode,
            timings: self.timings,
            record,
            in_touch: manager.in_touch,
            lease: manager
                .lease
                .map(|(epoch, sent)| HeldLease { epoch, left: duration(self.left(node, sent)) }),
            postgres: self.postgres_seen(node),
            data: match it.disk.present {
                false => Data::Absent,
                true => Data::Present {
                    major: 15,
                    system_identifier: CLUSTER,
                    timeline: it.disk.timeline(),
                    closed: it.disk.closed.map(Lsn),
                    standby: true,
                },
            },
            stamp: it.disk.stamp,
            remembered: None,
            upstream: self.upstream(node),
            installed: vec![15],
            trouble,
            free_bytes: u64::MAX,
            orders: Orders::default(),
            failovers: manager.failovers.iter().map(|at| duration(clock - at)).collect(),
            // Somebody sets the clock between any two looks.
            wall_ms: self.now.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        })
    }

    /// Until fencing must begin, for a lease that was sent at this moment of the local clock.
    fn left(&self, node: usize, sent: u64) -> u64 {
        if !self.broken.has_leases() {
            return SECOND;
        }
        let fence_at = self.timings.fence_at(duration(sent)).as_micros() as u64;
        fence_at.saturating_sub(self.nodes[node].clock(self.now))
    }

    fn postgres_seen(&self, node: usize) -> Postgres {
        let it = &self.nodes[node];
        let Some(process) = &it.postgres else { return Postgres::Stopped { leftovers: 0 } };
        let ready = self.now >= process.ready_at && !it.postgres_frozen();
        let answer = match &process.role {
            _ if !ready => Err("silence".to_owned()),
            Role::Primary(_) => Ok(Answer::Primary(self.as_primary(node))),
            Role::Standby(_) => Ok(Answer::Replica(self.as_replica(node))),
        };
        Postgres::Running { since: Duration::from_secs(1), answered: true, answer, last_error: None }
    }

    fn as_primary(&self, node: usize) -> AsPrimary {
        let it = &self.nodes[node];
        let Some((Role::Primary(primary), manager)) =
            it.postgres.as_ref().map(|p| &p.role).zip(it.manager.as_ref())
        else {
            unreachable!("asked of a primary alone")
        };
        let clock = it.clock(self.now);
        let replica = |other: usize| {
            let heard = primary.heard[other];
            let streaming = self.is_heard(node, other);
            Replica {
                name: name(other),
                streaming,
                copying: false,
                flushed: Lsn(heard.map_or(0, |heard| heard.flushed)),
                lag_bytes: heard.map_or(u64::MAX, |heard| it.disk.end().saturating_sub(heard.flushed)),
                away: duration(if streaming { 0 } else { clock.saturating_sub(manager.streamed[other]) }),
                kept_bytes: 0,
            }
        };
        AsPrimary {
            system_identifier: CLUSTER,
            timeline: it.disk.timeline(),
            switch: Lsn(primary.switch),
            written: Lsn(it.disk.flushed as u64),
            names: primary.names.clone(),
            names_since: primary.names_since.map(Lsn),
            replicas: (0..self.servers).filter(|other| *other != node).map(replica).collect(),
            committed_epoch: primary.committed,
            committing: primary.committing.map(|(epoch, _)| epoch),
            set_up: primary.set_up,
            checkpoint: primary.checkpoint,
        }
    }

    fn is_heard(&self, node: usize, other: usize) -> bool {
        let Some(Role::Primary(primary)) = self.nodes[node].postgres.as_ref().map(|process| &process.role)
        else {
            return false;
        };
        primary.heard[other].is_some_and(|heard| self.now - heard.at < REPLY_LIMIT_MICROS)
    }

    fn as_replica(&self, node: usize) -> AsReplica {
        let it = &self.nodes[node];
        let Some(Role::Standby(standby)) = it.postgres.as_ref().map(|process| &process.role) else {
            unreachable!("asked of a standby alone")
        };
        let receiving = standby.receiver.is_some();
        let streaming = standby.receiver.as_ref().is_some_and(|receiver| !receiver.ending);
        let waits = it.clock(self.now).saturating_sub(standby.waits_since);
        let mut replica = AsReplica {
            follows: standby.follows.map(name),
            receiving,
            streaming,
            not_streaming: duration(if streaming { 0 } else { waits }),
            replayed_all: true,
            timeline: it.disk.timeline(),
            replayed: Lsn(it.disk.end()),
            lag_bytes: 0,
        };
        let election = it.manager.as_ref().and_then(|manager| manager.view.as_ref());
        if self.broken == Broken::VoteWithoutSeal && election.is_some_and(|view| view.group.ballot.is_some())
        {
            (replica.follows, replica.receiving) = (None, false);
        }
        replica
    }

    fn upstream(&self, node: usize) -> Upstream {
        let view = self.nodes[node].manager.as_ref().and_then(|manager| manager.view.as_ref());
        let Some(holder) = view
            .filter(|view| !view.group.began_anew())
            .map(|view| number(&view.group.holder))
            .filter(|holder| *holder != node)
        else {
            return Upstream::Unasked;
        };
        match self.nodes[holder].postgres.as_ref().map(|process| &process.role) {
            Some(Role::Primary(primary))
                if self.linked(node, holder)
                    && self.linked(holder, node)
                    && !self.nodes[holder].postgres_frozen() =>
            {
                let checkpointed = primary.checkpoint == database::failover::Progress::Done;
                Upstream::Reached { major: 15, system_identifier: CLUSTER, slot: true, checkpointed }
            }
            _ => Upstream::Unreachable("connection refused".into()),
        }
    }

    /// Carries out the wrong thing, where a test wants to see that it is caught.
    fn break_rule(&mut self, node: usize, action: Action) -> Action {
        let Some(Role::Primary(primary)) = self.nodes[node].postgres.as_ref().map(|process| &process.role)
        else {
            return action;
        };
        let Action::Propose(Command::SetSynchronous { set, .. }) = &action else { return action };
        let (names, in_force) = (Names::of(set), &primary.names);
        match self.broken {
            Broken::NamesBeforeRecord if set.members.len() > 1 && *in_force != names => {
                Action::SetNames(names)
            }
            // And the record follows late.
            Broken::NamesBeforeRecord if set.members.len() > 1 && !self.chance.one_in(100) => Action::Wait,
            Broken::EmptyNames if set.members.is_empty() && *in_force != names => Action::SetNames(names),
            _ => action,
        }
    }

    pub fn propose(&mut self, node: usize, command: &Command, renewal: bool) {
        let number = self.chance.number();
        let it = &mut self.nodes[node];
        let sent = it.clock(self.now);
        let Some(manager) = &mut it.manager else { return };
        let Some(view) = &manager.view else { return };
        if view.group.is_in_doubt(view.version) && !matches!(command, Command::BeginAnew { .. }) {
            return self.say(|| format!("{} refused: the record is in doubt", name(node)));
        }
        let mut next = match view.group.apply(command) {
            Ok(next) => next,
            Err(refusal) => return self.say(|| format!("{} refused: {refusal}", name(node))),
        };
        if let (Broken::NoQuorum, Command::Vote { .. }, Some(ballot)) =
            (self.broken, command, &mut next.ballot)
        {
            let forged = ballot.votes.values().next().cloned();
            for member in &next.synchronous.members {
                if let Some(vote) = &forged {
                    let mut vote = vote.clone();
                    vote.position.lsn = Lsn(0);
                    ballot.votes.entry(member.clone()).or_insert(vote);
                }
            }
        }
        let gives = match command {
            Command::Renew { epoch, .. } => Gives::Renewal(*epoch),
            Command::TakeOver { .. } => Gives::Lease(next.epoch),
            Command::Release { .. } => Gives::Release,
            _ => Gives::Nothing,
        };
        if gives == Gives::Release {
            (manager.lease, it.deadline) = (None, None);
        }
        let slot = if renewal { &mut manager.renewing } else { &mut manager.asked };
        *slot = Some(number);
        let (life, expected, next) = (manager.life, view.version, Arc::new(next));
        self.send(Proposal { from: node, life, number, expected, next, sent, gives });
    }

    pub fn send(&mut self, proposal: Proposal) {
        let (node, life, number) = (proposal.from, proposal.life, proposal.number);
        self.at(self.now + ANSWER_LIMIT, Event::Overdue(node, life, number));
        // Some arrive long after their sender stopped waiting.
        let late = if self.chance.one_in(200) { self.chance.between(0, 3 * SECOND) } else { 0 };
        let time = self.now + self.delay() + late;
        self.at(time, Event::Swap(Box::new(proposal)));
    }

    pub fn swap(&mut self, proposal: Proposal) {
        let node = proposal.from;
        if !self.control_reached(node) {
            return;
        }
        let before = self.control.group.clone();
        let taken = self.control.swap(proposal.expected, &proposal.next);
        if taken {
            self.changed(before.as_deref(), &proposal.next);
        }
        let time = self.now + self.delay();
        self.at(time, Event::Answer(Box::new(proposal), taken));
    }

    /// The record changed: whoever can hear it does.
    fn changed(&mut self, before: Option<&Group>, next: &Arc<Group>) {
        let version = self.control.version;
        if before.is_none_or(|before| before.epoch != next.epoch) {
            self.failovers += u32::from(before.is_some_and(|before| before.holder != next.holder));
        }
        if next.state == Phase::Open && before.is_none_or(|before| before.state != Phase::Open) {
            self.say(|| format!("OPEN {} in epoch {}", next.holder, next.epoch));
            let holder = number(&next.holder);
            if let Some(Role::Primary(primary)) = self.nodes[holder].postgres.as_mut().map(|p| &mut p.role) {
                primary.open |= primary.epoch == next.epoch;
            }
        }
        for machine in 0..super::world::MACHINES {
            if self.control_reached(machine) {
                let time = self.now + self.delay();
                self.at(time, Event::GateHears(machine, version, Some(Arc::clone(next)), None));
            }
        }
        for node in 0..self.servers {
            if self.control_reached(node)
                && let Some(life) = self.nodes[node].manager.as_ref().map(|manager| manager.life)
            {
                let time = self.now + self.delay();
                self.at(time, Event::Heard(node, life, version, Some(Arc::clone(next))));
            }
        }
    }

    pub fn answer(&mut self, proposal: Proposal, taken: bool) {
        let node = proposal.from;
        if !self.control_reached(node) {
            return;
        }
        let Some(manager) = self.nodes[node].manager.as_mut().filter(|manager| manager.life == proposal.life)
        else {
            return;
        };
        let in_time = manager.asked == Some(proposal.number) || manager.renewing == Some(proposal.number);
        if !in_time {
            return;
        }
        manager.in_touch = true;
        if manager.asked == Some(proposal.number) {
            manager.asked = None;
        } else {
            manager.renewing = None;
        }
        let life = manager.life;
        if taken {
            match proposal.gives {
                Gives::Renewal(epoch) | Gives::Lease(epoch) => self.leased(node, epoch, &proposal),
                Gives::Release | Gives::Nothing => {}
            }
            self.heard(node, life, proposal.expected + 1, Some(proposal.next));
        } else {
            self.at(self.now, Event::Poll(node, life));
        }
        self.look_soon(node, 0);
    }

    fn leased(&mut self, node: usize, epoch: u64, proposal: &Proposal) {
        let fence_at = self.timings.fence_at(duration(proposal.sent)).as_micros() as u64;
        let it = &mut self.nodes[node];
        let clock = it.clock(self.now);
        let Some(manager) = &mut it.manager else { return };
        match proposal.gives {
            Gives::Lease(_) => (manager.lease, manager.heartbeat) = (Some((epoch, proposal.sent)), clock),
            _ if manager.lease.is_some_and(|(held, _)| held == epoch) => {
                manager.lease = Some((epoch, proposal.sent));
            }
            _ => return,
        }
        it.deadline = Some(fence_at);
        let time = it.when(fence_at);
        self.at(time, Event::Deadline(node));
    }

    pub fn overdue(&mut self, node: usize, life: u64, proposal: u64) {
        let Some(manager) = self.nodes[node].manager.as_mut().filter(|manager| manager.life == life) else {
            return;
        };
        if manager.asked == Some(proposal) {
            (manager.asked, manager.in_touch) = (None, false);
            self.look_soon(node, 0);
        } else if manager.renewing == Some(proposal) {
            (manager.renewing, manager.in_touch) = (None, false);
        }
    }

    /// A linearizable read, now and then.
    pub fn poll(&mut self, node: usize, life: u64) {
        if self.nodes[node].manager.as_ref().is_none_or(|manager| manager.life != life) {
            return;
        }
        if self.control_reached(node) {
            let (version, group) = (self.control.version, self.control.group.clone());
            let time = self.now + self.delay();
            self.at(time, Event::Heard(node, life, version, group));
        } else if let Some(manager) = &mut self.nodes[node].manager {
            manager.in_touch = false;
        }
        self.within(200 * MS, 400 * MS, Event::Poll(node, life));
    }

    pub fn heard(&mut self, node: usize, life: u64, version: u64, group: Option<Arc<Group>>) {
        let it = &mut self.nodes[node];
        let clock = it.clock(self.now);
        let Some(manager) = it.manager.as_mut().filter(|manager| manager.life == life) else { return };
        manager.in_touch = true;
        let Some(group) = group else {
            manager.absent = true;
            return self.look_soon(node, 0);
        };
        let old = manager.view.as_ref();
        if old.is_some_and(|old| old.version >= version) {
            return;
        }
        let same = |same: bool, since: u64| if same { since } else { clock };
        let epoch_since = old.map_or(clock, |old| same(old.group.epoch == group.epoch, old.epoch_since));
        let same_seq = old.is_some_and(|old| (old.group.epoch, old.group.seq) == (group.epoch, group.seq));
        let seq_since = old.map_or(clock, |old| same(same_seq, old.seq_since));
        if old.is_some_and(|old| old.group.holder != group.holder) {
            manager.failovers.insert(0, clock);
            manager.failovers.truncate(4);
        }
        let news = old.is_none_or(|old| old.group.state != group.state || old.group.ballot != group.ballot);
        manager.view = Some(View { version, group, version_since: clock, seq_since, epoch_since });
        if news {
            self.look_soon(node, 0);
        }
    }

    /// The renewing thread: a step of its own, which no long action delays.
    pub fn renew(&mut self, node: usize, life: u64) {
        self.notice_streaming(node);
        let it = &mut self.nodes[node];
        let clock = it.clock(self.now);
        let writes = matches!(it.postgres.as_ref().map(|process| &process.role), Some(Role::Primary(_)));
        let healthy = writes && !it.postgres_frozen() && it.stalled == 0;
        let Some(manager) = it.manager.as_mut().filter(|manager| manager.life == life) else { return };
        if healthy {
            manager.heartbeat = clock;
        }
        self.within(100 * MS, 120 * MS, Event::Renew(node, life));
        let Some(manager) = &self.nodes[node].manager else { return };
        let (Some((epoch, sent)), Some(view), None) = (manager.lease, &manager.view, manager.renewing) else {
            return;
        };
        let left = self.left(node, sent);
        let due = clock.saturating_sub(sent) >= self.timings.renew.as_micros() as u64;
        let holding = Holding {
            me: &name(node),
            boot: &manager.boot,
            group: &view.group,
            epoch,
            left: duration(left),
            heartbeat_age: duration(clock.saturating_sub(manager.heartbeat)),
            written: Some(Lsn(self.nodes[node].disk.flushed as u64)),
        };
        match renewal(&holding) {
            Renewal::Propose(command) if due => self.propose(node, &command, true),
            Renewal::Over(why) => {
                self.say(|| format!("{} lease over: {why}", name(node)));
                self.at(self.now, Event::Act(node, life, Box::new(Action::Fence)));
            }
            Renewal::Propose(_) | Renewal::Withhold(_) => {}
        }
    }

    fn notice_streaming(&mut self, node: usize) {
        let heard: Vec<bool> = (0..self.servers).map(|other| self.is_heard(node, other)).collect();
        let clock = self.nodes[node].clock(self.now);
        let Some(manager) = &mut self.nodes[node].manager else { return };
        for (other, heard) in heard.into_iter().enumerate() {
            if heard {
                manager.streamed[other] = clock;
            }
        }
    }

    pub fn in_trouble(&mut self, node: usize, what: &str) {
        let clock = self.nodes[node].clock(self.now);
        if let Some(manager) = &mut self.nodes[node].manager {
            let trouble = Trouble { what: what.to_owned(), retry_in: Duration::ZERO };
            manager.trouble = Some((trouble, clock + SECOND / 2));
        }
    }
}
