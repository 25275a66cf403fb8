//! Gates: clients hear only what comes through one that still trusts the primary.

use std::sync::Arc;
use std::time::Duration;

use database::gate::trust::{Trust, ask_every};
use database::group::{Group, Phase};

use super::node::duration;
use super::world::{Broken, Event, MACHINES, MS, World, number};

/// What the gate of a machine knows of the record.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    trust: Trust,
    /// It has had its first answer.
    begun: bool,
    group: Option<Arc<Group>>,
    /// When that arrived, which must mean nothing.
    arrived: Duration,
}

impl World {
    /// Beside its watch a gate asks what a majority has.
    pub fn gate_polls(&mut self, machine: usize) {
        let every = ask_every(self.timings.lease).as_micros() as u64;
        self.within(every, every + 100 * MS, Event::GatePolls(machine));
        let (sent, time) = (self.nodes[machine].clock(self.now), self.now + self.delay());
        self.at(time, Event::GateAsks(machine, sent));
    }

    /// The question arrives.
    pub fn gate_asks(&mut self, machine: usize, sent: u64) {
        if self.control_reached(machine) {
            let (version, time) = (self.control.version, self.now + self.delay());
            self.at(time, Event::GateHears(machine, version, self.control.group.clone(), Some(sent)));
        }
    }

    /// `sent`: it is the answer to the question of that moment.
    pub fn gate_hears(&mut self, machine: usize, version: u64, group: Option<Arc<Group>>, sent: Option<u64>) {
        let now = duration(self.nodes[machine].clock(self.now));
        let gate = &mut self.gates[machine];
        let is_newer = match (&group, sent) {
            (_, Some(sent)) => {
                gate.begun = true;
                gate.trust.answered(duration(sent), group.as_deref().map(|group| (version, group)))
            }
            (Some(group), None) if gate.begun => gate.trust.heard(version, group),
            (_, None) => false,
        };
        if is_newer {
            (gate.group, gate.arrived) = (group, now);
        }
    }

    /// Whether a client anywhere hears what this server says in this epoch.
    pub fn is_heard_by_clients(&self, node: usize, epoch: u64) -> bool {
        let leads = |group: &Group, machine: usize| {
            let now = duration(self.nodes[machine].clock(self.now));
            let gate = &self.gates[machine];
            let until = match self.broken {
                Broken::NewsAreFresh => Some(gate.arrived + group.lease()),
                broken if !broken.has_leases() => Some(Duration::MAX),
                _ => gate.trust.until(group.lease()),
            };
            group.state == Phase::Open
                && !group.is_decided()
                && (number(&group.holder), group.epoch) == (node, epoch)
                && until.unwrap_or(Duration::ZERO) > now
        };
        (0..MACHINES).any(|machine| {
            let runs = self.nodes[machine].powered && !self.nodes[machine].frozen_whole;
            let group = self.gates[machine].group.as_deref();
            runs && self.linked(node, machine) && group.is_some_and(|group| leads(group, machine))
        })
    }
}
