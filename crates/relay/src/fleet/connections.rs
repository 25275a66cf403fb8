//! How many connections to one target all threads have together: in use, idle, and of checks.
//!
//! A target that may have only so many is often one that serves each by a process of its own, from its first byte to its end:
//! an idle connection keeps one of these from all others. So connections are kept idle only while all together are no more
//! than the target may have, and where there are more nevertheless, since one thread needs what another keeps or a check
//! came, idle ones are closed within a tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// See the head of this file.
#[derive(Debug)]
pub struct Connections {
    open: AtomicU32,
    most: AtomicU32,
}

/// One of them, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Held(Arc<Connections>);

impl Connections {
    /// None: as many as it takes.
    pub(super) fn new(most: Option<u32>) -> Self {
        let connections = Self { open: AtomicU32::new(0), most: AtomicU32::new(0) };
        connections.adjust(most);
        connections
    }

    /// May be so many from now on.
    pub(super) fn adjust(&self, most: Option<u32>) {
        self.most.store(most.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        self.open.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(self))
    }
}

impl Held {
    /// Whether there are more than the target may have, so that an idle one has to go.
    pub(crate) fn is_crowded(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > self.0.most.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_it_may_have_is_a_crowd() {
        let connections = Arc::new(Connections::new(Some(2)));
        let (first, second) = (connections.hold(), connections.hold());
        assert!(!first.is_crowded());
        let third = connections.hold();
        assert!(first.is_crowded());
        drop(second);
        assert!(!first.is_crowded() && !third.is_crowded());
        connections.adjust(Some(1));
        assert!(first.is_crowded());
        connections.adjust(None);
        assert!(!first.is_crowded());
    }
}
