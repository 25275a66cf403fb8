//! One machine: its clock, its disk, and the processes on it.

use std::sync::Arc;
use std::time::Duration;

use database::failover::Trouble;
use database::group::Group;

use super::chance::Chance;
use super::postgres::{Disk, Process};
use super::world::{Event, SECOND};

pub struct Node {
    pub powered: bool,
    /// How many faults stop each of them; `frozen_whole` counts in all.
    pub frozen_whole: bool,
    pub manager_stops: u32,
    pub guard_stops: u32,
    pub postgres_stops: u32,
    pub stalled: u32,
    pub without_control: u32,
    pub disk_full: u32,
    /// Of its clock: parts in a million too fast, and where it began.
    drift: i64,
    offset: u64,
    pub disk: Disk,
    pub postgres: Option<Process>,
    pub manager: Option<Manager>,
    pub lives: u64,
    /// The guard's: when to kill, on the local clock.
    pub deadline: Option<u64>,
    pub held: Vec<Event>,
}

/// What a manager process has in memory.
pub struct Manager {
    pub life: u64,
    pub boot: String,
    pub look_token: u64,
    pub look_at: u64,
    /// Has decided and not begun yet.
    pub acting: bool,
    /// Waits for the end of a long action.
    pub busy: bool,
    pub view: Option<View>,
    /// Control said that there is no record.
    pub absent: bool,
    pub in_touch: bool,
    pub lease: Option<(u64, u64)>,
    pub heartbeat: u64,
    pub trouble: Option<(Trouble, u64)>,
    pub failovers: Vec<u64>,
    /// By server, on the local clock: when it was last seen streaming.
    pub streamed: Vec<u64>,
    /// The proposal that waits for an answer.
    pub asked: Option<u64>,
    pub renewing: Option<u64>,
}

/// The record as the manager knows it, and since when, on the local clock.
pub struct View {
    pub version: u64,
    pub group: Arc<Group>,
    pub version_since: u64,
    pub seq_since: u64,
    pub epoch_since: u64,
}

impl Node {
    pub fn new(chance: &mut Chance) -> Self {
        Self {
            powered: true,
            frozen_whole: false,
            manager_stops: 0,
            guard_stops: 0,
            postgres_stops: 0,
            stalled: 0,
            without_control: 0,
            disk_full: 0,
            drift: chance.between(0, 8000) as i64 - 4000,
            offset: chance.between(0, 1000 * SECOND),
            disk: Disk::default(),
            postgres: None,
            manager: None,
            lives: 0,
            deadline: None,
            held: Vec::new(),
        }
    }

    /// CLOCK_BOOTTIME of this machine.
    pub fn clock(&self, now: u64) -> u64 {
        let now = i128::from(now);
        (i128::from(self.offset) + now + now * i128::from(self.drift) / 1_000_000) as u64
    }

    /// When its clock will show this.
    pub fn when(&self, clock: u64) -> u64 {
        let passed = i128::from(clock.saturating_sub(self.offset));
        (passed * 1_000_000 / (1_000_000 + i128::from(self.drift))) as u64 + 2
    }

    pub fn manager_frozen(&self) -> bool {
        self.frozen_whole || self.manager_stops > 0
    }

    pub fn guard_frozen(&self) -> bool {
        self.frozen_whole || self.guard_stops > 0
    }

    pub fn postgres_frozen(&self) -> bool {
        self.frozen_whole || self.postgres_stops > 0
    }
}

/// Simulated microseconds as a duration.
pub fn duration(micros: u64) -> Duration {
    Duration::from_micros(micros)
}
