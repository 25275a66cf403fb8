//! Which server gets the next request.
//!
//! The state of choosing is shared by all threads: with a state of its own, each thread would begin with the same
//! server, and few requests would not alternate.

pub mod round_robin;

use std::sync::{Mutex, PoisonError};

use plan::{Algorithm, Mode};
use relay::{Fleet, Tried};

use round_robin::RoundRobin;

/// See the head of this file.
#[derive(Debug)]
pub struct Chooser {
    mode: Mode,
    round_robin: Mutex<RoundRobin>,
}

impl Chooser {
    pub fn new(algorithm: Algorithm, mode: Mode, servers: usize) -> Self {
        match algorithm {
            Algorithm::RoundRobin => Self { mode, round_robin: Mutex::new(RoundRobin::new(servers)) },
        }
    }

    /// A server that is up and was not tried for this request: a backup only when no other is left.
    pub fn next(&self, fleet: &Fleet, tried: &Tried) -> Option<usize> {
        [false, true].into_iter().find_map(|backup| {
            let mut open = (0..fleet.len()).filter(|index| {
                fleet.is_up(*index) && !tried.has(*index) && fleet.target(*index).backup == backup
            });
            match self.mode {
                Mode::ActivePassive => open.next(),
                Mode::ActiveActive => {
                    let mut turns = self.round_robin.lock().unwrap_or_else(PoisonError::into_inner);
                    turns.next(open.map(|index| (index, fleet.target(index).weight)))
                }
            }
        })
    }
}
