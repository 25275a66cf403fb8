//! What is under way at each server, counted by all threads of the balancer.

use std::sync::atomic::{AtomicU32, Ordering};

use super::least_time::PeakTime;
use crate::queue::Queue;

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

    /// One more request, unless there are `limit` already. `queue` is told when it ends.
    pub fn take<'a>(&'a self, limit: u32, queue: &'a Queue) -> Option<Slot<'a>> {
        let before = self.outstanding.fetch_add(1, Ordering::SeqCst);
        let slot = Slot { load: self, queue };
        (before < limit).then_some(slot)
    }
}

/// One request under way. It ends when this is dropped, however the request ended.
#[derive(Debug)]
pub struct Slot<'a> {
    load: &'a Load,
    queue: &'a Queue,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.load.outstanding.fetch_sub(1, Ordering::SeqCst);
        self.queue.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit() {
        let load = Load::default();
        let queue = Queue::new(0, std::time::Duration::ZERO);
        let one = load.take(1, &queue).unwrap();
        assert!(load.take(1, &queue).is_none());
        assert_eq!(load.outstanding(), 1);
        drop(one);
        assert!(load.take(1, &queue).is_some());
    }
}
