//! What goes wrong: drawn from the seed, each for a while.

use super::chance::Chance;
use super::world::{Broken, Event, MACHINES, MS, SECOND, World, name};
use database::group::Command;

/// Every so many seeds control is lost for good.
const CONTROL_LOST_IN: u64 = 5;

/// How long after the last fault a person looks, and looks again.
const OPERATOR_AFTER: u64 = 6 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Power is lost, and with it what was not flushed.
    PowerOff(usize),
    FreezeMachine(usize),
    FreezeManager(usize),
    FreezeGuard(usize),
    FreezePostgres(usize),
    KillManager(usize),
    KillPostgres(usize),
    /// The guard dies, and the kernel ends postgres with it.
    KillGuard(usize),
    /// Nothing gets from the one to the other.
    Cut(usize, usize),
    /// One machine sees nobody.
    Isolate(usize),
    /// One machine does not reach control, but the others' postgres.
    CutControl(usize),
    Slow(u64),
    ControlOutage,
    Stall(usize),
    DiskFull(usize),
    Switchover(usize),
    Reinit(usize),
    /// Most voters are lost for good; the last one begins anew, from a record of so many changes ago.
    LoseControl(usize),
}

impl Fault {
    pub fn draw(chance: &mut Chance, servers: usize) -> Self {
        let server = chance.between(0, servers as u64) as usize;
        let machine = chance.between(0, MACHINES as u64) as usize;
        let other = (machine + 1 + chance.between(0, MACHINES as u64 - 1) as usize) % MACHINES;
        match chance.between(0, 19) {
            0 | 1 => Self::PowerOff(machine),
            2 => Self::FreezeMachine(machine),
            3 => Self::FreezeManager(server),
            4 => Self::FreezeGuard(server),
            5 => Self::FreezePostgres(server),
            6 => Self::KillManager(server),
            7 | 8 => Self::KillPostgres(server),
            9 => Self::KillGuard(server),
            10 => Self::Cut(machine, other),
            11 => Self::Isolate(machine),
            12 => Self::Slow(chance.between(10, 400) * MS),
            13 => Self::ControlOutage,
            14 => Self::Stall(server),
            15 => Self::DiskFull(server),
            16 => Self::Switchover(server),
            17 => Self::CutControl(machine),
            _ => Self::Reinit(server),
        }
    }
}

impl World {
    /// Some faults between the beginning and `until`, all healed then.
    pub fn plan_faults(&mut self, from: u64, until: u64) {
        for _ in 0..self.chance.between(1, 9) {
            let fault = match self.broken {
                // A gate that stood still while much was on its way, and seldom another.
                Broken::NewsAreFresh if self.chance.one_in(2) => Fault::Slow(400 * MS),
                Broken::NewsAreFresh => {
                    Fault::FreezeMachine(self.chance.between(0, self.servers as u64) as usize)
                }
                _ => Fault::draw(&mut self.chance, self.servers),
            };
            let begin = self.chance.between(from, until);
            let longest = if self.chance.one_in(3) { 9 * SECOND } else { 2 * SECOND };
            let end = (begin + self.chance.between(50 * MS, longest)).min(until);
            self.at(begin, Event::Fault(fault));
            self.at(end, Event::Heal(fault));
        }
        self.healed_at = until;
        if self.seed.is_multiple_of(CONTROL_LOST_IN) {
            // Drawn apart, so that the other faults of a seed stay what they are.
            let mut chance = Chance::new(!self.seed);
            let fault = Fault::LoseControl(chance.between(0, 20) as usize);
            let begin = chance.between(from, until);
            self.at(begin, Event::Fault(fault));
            self.at((begin + chance.between(50 * MS, 9 * SECOND)).min(until), Event::Heal(fault));
            self.loses_control = true;
        }
    }

    pub fn fault(&mut self, fault: Fault) {
        self.say(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::PowerOff(node) => self.power_off(node),
            Fault::FreezeMachine(node) => self.nodes[node].frozen_whole = true,
            Fault::FreezeManager(node) => self.freeze_one_fence(node, true),
            Fault::FreezeGuard(node) => self.freeze_one_fence(node, false),
            Fault::FreezePostgres(node) => self.nodes[node].postgres_stops += 1,
            Fault::KillManager(node) => self.kill_manager(node),
            Fault::KillPostgres(node) => {
                self.in_trouble(node, "postgres was killed by signal 9");
                self.end_postgres(node);
                self.look_soon(node, MS);
            }
            Fault::KillGuard(node) => {
                self.nodes[node].deadline = None;
                self.end_postgres(node);
                self.look_soon(node, MS);
            }
            Fault::Cut(from, to) => self.cut[from][to] += 1,
            Fault::Isolate(node) => self.isolate(node, 1),
            Fault::CutControl(node) => self.nodes[node].without_control += 1,
            Fault::Slow(delay) => self.slow += delay,
            Fault::ControlOutage => {
                self.control.outage_until = self.now + self.chance.between(SECOND, 6 * SECOND)
            }
            Fault::Stall(node) => self.nodes[node].stalled += 1,
            Fault::DiskFull(node) => self.nodes[node].disk_full += 1,
            Fault::Switchover(to) => self.order(&Command::AskHandover { to: Some(name(to)) }),
            Fault::Reinit(server) => self.order(&Command::Reinit { server: name(server) }),
            Fault::LoseControl(_) => self.control.lost = true,
        }
    }

    pub fn heal(&mut self, fault: Fault) {
        self.say(|| format!("HEAL {fault:?}"));
        match fault {
            Fault::PowerOff(node) => {
                self.nodes[node].powered = true;
                if node < self.servers {
                    self.within(100 * MS, 500 * MS, Event::ManagerStarts(node));
                }
            }
            Fault::FreezeMachine(node) => {
                self.nodes[node].frozen_whole = false;
                self.release(node);
            }
            Fault::FreezeManager(node) => {
                self.nodes[node].manager_stops = self.nodes[node].manager_stops.saturating_sub(1);
                self.release(node);
            }
            Fault::FreezeGuard(node) => {
                self.nodes[node].guard_stops = self.nodes[node].guard_stops.saturating_sub(1);
                self.release(node);
            }
            Fault::FreezePostgres(node) => {
                self.nodes[node].postgres_stops -= 1;
                self.release(node);
            }
            Fault::Cut(from, to) => self.cut[from][to] -= 1,
            Fault::Isolate(node) => self.isolate(node, -1),
            Fault::CutControl(node) => self.nodes[node].without_control -= 1,
            Fault::Slow(delay) => self.slow -= delay,
            Fault::ControlOutage => self.control.outage_until = 0,
            Fault::Stall(node) => {
                self.nodes[node].stalled -= 1;
                self.release(node);
            }
            Fault::DiskFull(node) => self.nodes[node].disk_full -= 1,
            Fault::KillManager(_) | Fault::KillPostgres(_) | Fault::KillGuard(_) => {}
            Fault::Switchover(_) | Fault::Reinit(_) => {}
            Fault::LoseControl(back) => {
                // `dolmen control recover` waits until no lease can be in force.
                let anew = self.now + self.timings.patience().as_micros() as u64;
                self.at(anew, Event::BeginAnew(back));
                self.at(self.healed_at + OPERATOR_AFTER, Event::OperatorForces);
                self.at(self.healed_at + 2 * OPERATOR_AFTER, Event::OperatorCopies);
            }
        }
    }

    /// One of manager and guard at a time: with both stopped only the seal is left, which protects what was
    /// acknowledged but not the order in time. A stopped guard is noticed by its manager, which ends it.
    fn freeze_one_fence(&mut self, node: usize, manager: bool) {
        if manager && self.nodes[node].guard_stops == 0 {
            self.nodes[node].manager_stops += 1;
        } else if !manager && self.nodes[node].manager_stops == 0 {
            self.nodes[node].guard_stops += 1;
            self.on_guard_stopped(node);
        }
    }

    fn on_guard_stopped(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].postgres.as_ref().map(|process| process.id) {
            self.within(300 * MS, 600 * MS, Event::Kill(node, process));
        }
    }

    fn kill_manager(&mut self, node: usize) {
        if self.nodes[node].manager.take().is_none() {
            return;
        }
        self.nodes[node].manager_stops = 0;
        self.nodes[node].deadline = None;
        // Its guard sees the end of it and ends postgres.
        if let Some(process) = self.nodes[node].postgres.as_ref().map(|process| process.id) {
            self.within(MS, 100 * MS, Event::Kill(node, process));
        }
        self.within(110 * MS, 2 * SECOND, Event::ManagerStarts(node));
    }

    fn power_off(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.powered = false;
        (it.manager, it.deadline) = (None, None);
        it.held.clear();
        self.gates[node] = super::gate::Gate::default();
        let it = &mut self.nodes[node];
        let flushed = it.disk.flushed;
        it.disk.log.truncate(flushed);
        self.end_postgres(node);
    }

    fn isolate(&mut self, node: usize, step: i32) {
        for other in (0..MACHINES).filter(|other| *other != node) {
            for (from, to) in [(node, other), (other, node)] {
                self.cut[from][to] = self.cut[from][to].saturating_add_signed(step);
            }
        }
    }

    pub fn begin_anew(&mut self, back: usize) {
        if self.control.lost {
            let lifted = self.broken != Broken::AnewWithoutDoubt;
            self.control.begin_anew(back, lifted);
            let group = self.control.group.clone();
            self.say(|| format!("ANEW with the record of {back} changes ago: {group:?}"));
        }
    }

    /// Where the servers wait for a person, that one names the server that has everything.
    pub fn operator_forces(&mut self) {
        let waits = |group: &std::sync::Arc<database::group::Group>| {
            group.began_anew() || group.is_in_doubt(self.control.version)
        };
        if !self.control.group.as_ref().is_some_and(waits) {
            return;
        }
        let has_all = |node: &usize| {
            let log = &self.nodes[*node].disk.log;
            let has = |(at, id): &(u64, u32)| log.get(*at as usize - 1).is_some_and(|entry| entry.id == *id);
            self.acknowledged.iter().filter(|acknowledged| has(acknowledged)).count()
        };
        // One whose rewind was not finished says so, and cannot even be started.
        let is_whole = |node: &usize| self.nodes[*node].disk.stamp.is_some_and(|stamp| !stamp.spoiled);
        let chosen = (0..self.servers).filter(is_whole).max_by_key(has_all).unwrap_or_default();
        self.say(|| format!("OPERATOR forces {}", name(chosen)));
        self.order(&Command::ForceTakeOver { server: name(chosen) });
    }

    /// And has those copied that hold data of a promotion that was forgotten.
    pub fn operator_copies(&mut self) {
        let Some(group) = self.control.group.clone() else { return };
        for server in 0..self.servers {
            let stamp = self.nodes[server].disk.stamp.unwrap_or_default();
            let newest = stamp.confirmed.max(stamp.following);
            if newest > 0 && group.promotion(newest).is_none() && group.holder != name(server) {
                self.say(|| format!("OPERATOR has {} copied", name(server)));
                self.order(&Command::Reinit { server: name(server) });
            }
        }
    }

    /// The operator's order, straight into the record.
    fn order(&mut self, command: &Command) {
        let Some(Ok(next)) = self.control.group.as_ref().map(|group| group.apply(command)) else {
            return;
        };
        let expected = self.control.version;
        self.control.swap(expected, &next.into());
    }
}
