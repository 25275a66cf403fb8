//! Tells the threads of the engine that a target came or went, so that requests which wait there look up.
//!
//! A request that waits for an answer is woken by nothing but bytes and its deadline. Threads look here once a tick,
//! at the price of one read of memory, and nothing is done for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Clones are the same alarm.
#[derive(Clone, Debug, Default)]
pub struct Alarm(Arc<AtomicUsize>);

impl Alarm {
    pub fn ring(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// How often it rang.
    pub(crate) fn rings(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}
