//! Gates: clients hear only what comes through one that still trusts the primary.

use database::group::{Group, Phase};

use super::world::{Event, MACHINES, MS, World, number};

/// What the gate of a machine knows of the record.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    version: u64,
    /// Whom it leads to, in which epoch.
    open: Option<(usize, u64)>,
    seq: (u64, u64),
    /// On the machine's clock: when it heard that the holder lives.
    since: u64,
}

impl World {
    /// A watch with a linearizable read now and then.
    pub fn gate_polls(&mut self, machine: usize) {
        self.within(200 * MS, 400 * MS, Event::GatePolls(machine));
        if self.control_reached(machine)
            && let Some(group) = self.control.group.clone()
        {
            let (version, time) = (self.control.version, self.now + self.delay());
            self.at(time, Event::GateHears(machine, version, group));
        }
    }

    pub fn gate_hears(&mut self, machine: usize, version: u64, group: &Group) {
        let clock = self.nodes[machine].clock(self.now);
        let gate = &mut self.gates[machine];
        if version <= gate.version {
            return;
        }
        let seq = (group.epoch, group.seq);
        if seq != gate.seq {
            (gate.seq, gate.since) = (seq, clock);
        }
        gate.version = version;
        gate.open = (group.state == Phase::Open).then(|| (number(&group.holder), group.epoch));
    }

    /// Whether a client anywhere hears what this server says in this epoch.
    pub fn is_heard_by_clients(&self, node: usize, epoch: u64) -> bool {
        let lease = self.timings.lease.as_micros() as u64;
        (0..MACHINES).any(|machine| {
            let gate = &self.gates[machine];
            let fresh = self.nodes[machine].clock(self.now).saturating_sub(gate.since) < lease;
            let runs = self.nodes[machine].powered && !self.nodes[machine].frozen_whole;
            gate.open == Some((node, epoch)) && fresh && runs && self.linked(node, machine)
        })
    }
}
