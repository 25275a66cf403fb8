//! What is under way at each server, counted by all threads of the balancer.

use std::sync::atomic::{AtomicU32, Ordering};

use super::least_time::PeakTime;

/// One server's. Aligned, so that threads that use different servers do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Load {
    outstanding: AtomicU32,
    pub time: PeakTime,
}

impl Load {
    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::SeqCst)
    }

    /// One more request, unless there are `limit` already.
    pub fn take(&self, limit: u32) -> Option<Slot<'_>> {
        let before = self.outstanding.fetch_add(1, Ordering::SeqCst);
        let slot = Slot(self);
        (before < limit).then_some(slot)
    }
}

/// One request under way. It ends when this is dropped, however the request ended.
#[derive(Debug)]
pub struct Slot<'a>(&'a Load);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit() {
        let load = Load::default();
        let one = load.take(1).unwrap();
        assert!(load.take(1).is_none());
        assert_eq!(load.outstanding(), 1);
        drop(one);
        assert!(load.take(1).is_some());
    }
}
