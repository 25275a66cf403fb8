//! The machines, the network between them, and time. Events happen one after another, in an order that the seed gives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use database::failover::Action;
use database::failover::lease::Timings;
use database::group::{Group, Mode};

use super::chance::Chance;
use super::control::{Control, Proposal};
use super::faults::Fault;
use super::gate::Gate;
use super::node::Node;
use super::postgres::Entry;

/// Machines, each with a voter of control; the first of them hold data.
pub const MACHINES: usize = 3;

/// In microseconds, as all times here.
pub const MS: u64 = 1000;
pub const SECOND: u64 = 1000 * MS;

/// What is broken on purpose, so that the checks are seen to bite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// Others wait for less than the lease.
    NegativeMargin,
    /// No lease is over, for nobody: the seal alone is left.
    NoLease,
    /// The same, and a vote is given while the WAL receiver still runs.
    VoteWithoutSeal,
    /// A member's word counts before it is recorded.
    NamesBeforeRecord,
    /// Take-over with too few votes.
    NoQuorum,
    /// The setting is emptied before the record says that nobody may be promoted.
    EmptyNames,
    /// A record that control began anew with counts as if nothing could have been forgotten.
    AnewWithoutDoubt,
    /// A gate goes by what it hears for a lease from then on, however old that is.
    NewsAreFresh,
}

impl Broken {
    /// Whether leases end.
    pub fn has_leases(self) -> bool {
        !matches!(self, Self::NoLease | Self::VoteWithoutSeal)
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    Look(usize, u64),
    Act(usize, u64, Box<Action>),
    Renew(usize, u64),
    /// A proposal arrives at control.
    Swap(Box<Proposal>),
    /// Control's answer: whether it was taken, and the record.
    Answer(Box<Proposal>, bool),
    /// An answer did not come in time.
    Overdue(usize, u64, u64),
    /// The record as a manager hears of it.
    Heard(usize, u64, u64, Option<Arc<Group>>),
    Poll(usize, u64),
    Deadline(usize),
    Kill(usize, u64),
    ManagerStarts(usize),
    Promoted(usize, u64),
    NamesInForce(usize, u64, database::failover::Names),
    Checkpointed(usize, u64),
    Stopped(usize, u64),
    Copied(usize, u64, usize, u64, bool),
    Rewound(usize, u64, usize, u64),
    Initialised(usize, u64),
    Connect(usize, u64),
    ReceiverEnds(usize, u64),
    Stream(usize, u64),
    Deliver(usize, u64, usize, Vec<Entry>),
    Flush(usize, u64),
    Reply(usize, usize, u64, u64, u64),
    Write(usize),
    GatePolls(usize),
    /// When it was sent, on the gate's clock.
    GateAsks(usize, u64),
    GateHears(usize, u64, Option<Arc<Group>>, Option<u64>),
    Fault(Fault),
    Heal(Fault),
    BeginAnew(usize),
    OperatorForces,
    OperatorCopies,
}

/// What an event happens to.
enum Part {
    Manager,
    Guard,
    Postgres,
    Disk,
    Machine,
    World,
}

impl Event {
    fn of(&self) -> Option<(Part, usize)> {
        Some(match self {
            Self::Look(node, _) | Self::Act(node, ..) | Self::Renew(node, _) => (Part::Manager, *node),
            Self::Answer(proposal, _) => (Part::Manager, proposal.from),
            Self::Overdue(node, ..) | Self::Heard(node, ..) | Self::Poll(node, _) => (Part::Manager, *node),
            Self::Copied(node, ..) | Self::Rewound(node, ..) => (Part::Manager, *node),
            Self::Initialised(node, _) => (Part::Manager, *node),
            Self::Deadline(node) => (Part::Guard, *node),
            Self::Promoted(node, _) | Self::NamesInForce(node, ..) => (Part::Postgres, *node),
            Self::Checkpointed(node, _) | Self::Connect(node, _) => (Part::Postgres, *node),
            Self::ReceiverEnds(node, _) | Self::Deliver(node, ..) => (Part::Postgres, *node),
            Self::Reply(_, node, ..) => (Part::Postgres, *node),
            Self::Flush(node, _) => (Part::Disk, *node),
            Self::Swap(_) | Self::ManagerStarts(_) | Self::Kill(..) | Self::Stopped(..) => (Part::World, 0),
            Self::GatePolls(machine) | Self::GateHears(machine, ..) => (Part::Machine, *machine),
            Self::Stream(..) | Self::Write(_) | Self::GateAsks(..) | Self::Fault(_) | Self::Heal(_) => {
                (Part::World, 0)
            }
            Self::BeginAnew(_) | Self::OperatorForces | Self::OperatorCopies => (Part::World, 0),
        })
    }
}

pub struct World {
    pub now: u64,
    events: BTreeMap<(u64, u64), Event>,
    order: u64,
    pub chance: Chance,
    pub nodes: Vec<Node>,
    pub gates: Vec<Gate>,
    pub servers: usize,
    pub mode: Mode,
    pub timings: Timings,
    pub broken: Broken,
    pub control: Control,
    /// `cut[from][to]`: how many faults hold this direction.
    pub cut: [[u32; MACHINES]; MACHINES],
    pub slow: u64,
    pub entries: u32,
    pub processes: u64,
    /// Every acknowledged write: its place and its number.
    pub acknowledged: Vec<(u64, u32)>,
    pub acknowledged_epoch: u64,
    pub last_acknowledged: u64,
    pub healed_at: u64,
    pub opened_after_heal: Option<u64>,
    pub failovers: u32,
    pub seed: u64,
    pub loses_control: bool,
    pub trace: Option<Vec<String>>,
    pub violation: Option<String>,
}

pub fn name(number: usize) -> String {
    format!("database-{}", number + 1)
}

pub fn number(name: &str) -> usize {
    name.rsplit('-').next().and_then(|digits| digits.parse::<usize>().ok()).map_or(0, |number| number - 1)
}

impl World {
    pub fn new(seed: u64, servers: usize, mode: Mode, broken: Broken, traced: bool) -> Self {
        let mut chance = Chance::new(seed);
        let lease = if chance.one_in(3) { 2 } else { 3 };
        let nodes = (0..MACHINES).map(|_| Node::new(&mut chance)).collect();
        let mut world = Self {
            now: 0,
            events: BTreeMap::new(),
            order: 0,
            chance,
            nodes,
            gates: vec![Gate::default(); MACHINES],
            servers,
            mode,
            timings: Timings::new(Duration::from_secs(lease)),
            broken,
            control: Control::default(),
            cut: [[0; MACHINES]; MACHINES],
            slow: 0,
            entries: 0,
            processes: 0,
            acknowledged: Vec::new(),
            acknowledged_epoch: 0,
            last_acknowledged: 0,
            healed_at: u64::MAX,
            opened_after_heal: None,
            failovers: 0,
            seed,
            loses_control: false,
            trace: traced.then(Vec::new),
            violation: None,
        };
        for machine in 0..MACHINES {
            world.at(MS, Event::GatePolls(machine));
        }
        for node in 0..servers {
            world.at(10 * MS, Event::ManagerStarts(node));
            world.at(20 * MS, Event::Write(node));
        }
        world
    }

    pub fn at(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.events.insert((time.max(self.now), self.order), event);
    }

    pub fn within(&mut self, low: u64, high: u64, event: Event) {
        let time = self.now + self.chance.between(low, high);
        self.at(time, event);
    }

    /// Runs until `end`, or until a rule is broken.
    pub fn run(&mut self, end: u64) {
        while self.violation.is_none() {
            let Some(((time, _), event)) = self.events.pop_first() else { break };
            if time > end {
                self.at(time, event);
                break;
            }
            self.now = time;
            self.happen(event);
        }
    }

    pub fn say(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {}", now as f64 / SECOND as f64, text()));
        }
    }

    pub fn violate(&mut self, text: String) {
        self.say(|| format!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    /// Whether a message gets from one machine to the other now.
    pub fn linked(&self, from: usize, to: usize) -> bool {
        from == to || (self.cut[from][to] == 0 && self.nodes[from].powered && self.nodes[to].powered)
    }

    fn both_ways(&self, one: usize, other: usize) -> bool {
        self.linked(one, other) && self.linked(other, one)
    }

    fn votes(&self, node: usize) -> bool {
        self.nodes[node].powered && !self.nodes[node].frozen_whole
    }

    /// Whether a server reaches a voter that reaches a majority.
    pub fn control_reached(&self, from: usize) -> bool {
        let majority = |voter: usize| {
            let reached = |other: &usize| self.votes(*other) && self.both_ways(voter, *other);
            (0..MACHINES).filter(reached).count() * 2 > MACHINES
        };
        let reached = |voter: usize| {
            let cut = self.nodes[from].without_control > 0;
            !cut && self.votes(voter) && self.both_ways(from, voter) && majority(voter)
        };
        self.now >= self.control.outage_until && !self.control.lost && (0..MACHINES).any(reached)
    }

    /// How long a message takes.
    pub fn delay(&mut self) -> u64 {
        let slow = self.slow;
        self.chance.between(MS / 5, 2 * MS + slow)
    }

    fn happen(&mut self, event: Event) {
        if let Some(event) = self.hold_back(event) {
            match event {
                Event::Look(node, token) => self.look(node, token),
                Event::Act(node, life, action) => self.act(node, life, *action),
                Event::Renew(node, life) => self.renew(node, life),
                Event::Swap(proposal) => self.swap(*proposal),
                Event::Answer(proposal, taken) => self.answer(*proposal, taken),
                Event::Overdue(node, life, proposal) => self.overdue(node, life, proposal),
                Event::Heard(node, life, version, group) => self.heard(node, life, version, group),
                Event::Poll(node, life) => self.poll(node, life),
                Event::Deadline(node) => self.deadline(node),
                Event::Kill(node, process) => self.kill(node, process),
                Event::ManagerStarts(node) => self.manager_starts(node),
                Event::Promoted(node, process) => self.promoted(node, process),
                Event::NamesInForce(node, process, names) => self.names_in_force(node, process, names),
                Event::Checkpointed(node, process) => self.checkpointed(node, process),
                Event::Stopped(node, process) => self.stopped(node, process),
                Event::Copied(node, life, from, process, reinit) => {
                    self.copied(node, life, from, process, reinit)
                }
                Event::Rewound(node, life, from, process) => self.rewound(node, life, from, process),
                Event::Initialised(node, life) => self.initialised(node, life),
                Event::Connect(node, process) => self.connect(node, process),
                Event::ReceiverEnds(node, session) => self.receiver_ends(node, session),
                Event::Stream(node, session) => self.stream(node, session),
                Event::Deliver(node, session, from, entries) => self.deliver(node, session, from, entries),
                Event::Flush(node, process) => self.flush(node, process),
                Event::Reply(from, to, process, session, end) => self.reply(from, to, process, session, end),
                Event::Write(node) => self.write(node),
                Event::GatePolls(machine) => self.gate_polls(machine),
                Event::GateAsks(machine, sent) => self.gate_asks(machine, sent),
                Event::GateHears(machine, version, group, sent) => {
                    self.gate_hears(machine, version, group, sent)
                }
                Event::Fault(fault) => self.fault(fault),
                Event::Heal(fault) => self.heal(fault),
                Event::BeginAnew(back) => self.begin_anew(back),
                Event::OperatorForces => self.operator_forces(),
                Event::OperatorCopies => self.operator_copies(),
            }
        }
    }

    /// What happens to a stopped process happens when it goes on.
    fn hold_back(&mut self, event: Event) -> Option<Event> {
        let (part, node) = event.of()?;
        let it = &mut self.nodes[node];
        let stopped = match part {
            Part::Manager => it.manager_frozen(),
            Part::Guard => it.guard_frozen(),
            Part::Postgres => it.postgres_frozen(),
            Part::Disk => it.postgres_frozen() || it.stalled > 0,
            Part::Machine => it.frozen_whole,
            Part::World => false,
        };
        if !stopped {
            return Some(event);
        }
        it.held.push(event);
        None
    }

    /// Something goes on again: what it missed happens now, in order, unless another thing still stops it.
    pub fn release(&mut self, node: usize) {
        for event in std::mem::take(&mut self.nodes[node].held) {
            self.at(self.now, event);
        }
    }
}
