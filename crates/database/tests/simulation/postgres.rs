//! PostgreSQL as far as failover depends on it: a log of entries, flushed later than written, streamed to standbys,
//! acknowledged by the word of those that `synchronous_standby_names` names; promotion, timelines, crash.

use std::collections::VecDeque;

use database::failover::{Names, Progress, Stamp};

/// One record of the log. Its number is drawn once, so two logs agree where their numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: u32,
    pub timeline: u32,
}

/// What outlives the process.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub present: bool,
    pub log: Vec<Entry>,
    /// What a loss of power leaves.
    pub flushed: usize,
    pub stamp: Option<Stamp>,
    pub closed: Option<u64>,
}

impl Disk {
    pub fn timeline(&self) -> u32 {
        self.log.last().map_or(1, |entry| entry.timeline)
    }

    pub fn end(&self) -> u64 {
        self.log.len() as u64
    }
}

/// A running postgres.
#[derive(Clone, Debug)]
pub struct Process {
    pub id: u64,
    pub ready_at: u64,
    pub role: Role,
}

#[derive(Clone, Debug)]
pub enum Role {
    Standby(Standby),
    Primary(Primary),
}

#[derive(Clone, Debug, Default)]
pub struct Standby {
    pub follows: Option<usize>,
    /// On the local clock: since when it has been told to follow without streaming.
    pub waits_since: u64,
    pub receiver: Option<Receiver>,
    pub names: Names,
    pub promoting: bool,
}

/// A WAL receiver, and the walsender it talks to.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub session: u64,
    pub from: usize,
    pub from_process: u64,
    /// How far the sender has sent, and when what it sent last arrives.
    pub sent: usize,
    pub arrives: u64,
    pub ending: bool,
}

#[derive(Clone, Debug)]
pub struct Primary {
    pub epoch: u64,
    pub switch: u64,
    pub names: Names,
    pub names_since: Option<u64>,
    /// By server: the session, what it has flushed, and when it said so.
    pub heard: Vec<Option<Heard>>,
    pub waiting: VecDeque<(u64, u32)>,
    pub committing: Option<(u64, u64)>,
    pub committed: Option<u64>,
    pub checkpoint: Progress,
    pub set_up: bool,
    /// Clients may come: the record once said so.
    pub open: bool,
    pub closing: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Heard {
    pub session: u64,
    pub flushed: u64,
    pub at: u64,
}

impl Primary {
    pub fn new(epoch: u64, switch: u64, names: Names, servers: usize) -> Self {
        Self {
            epoch,
            switch,
            names,
            names_since: Some(switch + 1),
            heard: vec![None; servers],
            waiting: VecDeque::new(),
            committing: None,
            committed: None,
            checkpoint: Progress::NotBegun,
            set_up: false,
            open: false,
            closing: false,
        }
    }

    /// Up to where commits are acknowledged.
    pub fn acknowledged(&self, flushed: u64) -> u64 {
        if self.names.members.is_empty() {
            return flushed;
        }
        let mut ends: Vec<u64> = self
            .names
            .members
            .iter()
            .filter_map(|name| self.heard[super::world::number(name)])
            .map(|heard| heard.flushed)
            .collect();
        ends.sort_unstable_by(|one, other| other.cmp(one));
        ends.get(self.names.wait_for as usize - 1).map_or(0, |end| flushed.min(*end))
    }
}

/// Whether PostgreSQL itself would let a standby with this log stream from that one: it knows timelines' numbers
/// and where they ended, and nothing else.
pub fn accepts(primary: &Disk, standby: &Disk) -> bool {
    let timeline = standby.timeline();
    let newest = primary.timeline();
    let end = primary.log.iter().rposition(|entry| entry.timeline == timeline).map_or(0, |last| last + 1);
    let known = timeline == newest || end > 0 || standby.log.is_empty() || timeline == 1;
    known && standby.log.len() <= if timeline == newest { primary.log.len() } else { end }
}

/// Whether one log is really a beginning of the other.
pub fn is_beginning(of: &Disk, log: &Disk) -> bool {
    log.log.len() <= of.log.len() && log.log.last().is_none_or(|last| of.log[log.log.len() - 1] == *last)
}
