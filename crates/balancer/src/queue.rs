//! Where requests wait while every server has as many as it may: for a short time, in order, and only so many.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// See the head of this file. Shared by all threads.
#[derive(Debug)]
pub struct Queue {
    length: AtomicU32,
    patience_ms: AtomicU64,
    waiting: AtomicU32,
    /// How often all that wait were sent to other settings.
    turns: AtomicU32,
    freed: Notify,
}

/// Why a request did not get its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// So many wait already that it did not even begin to.
    Full,
    /// Its time was over.
    Late,
    /// There are other settings, with which it is to begin anew.
    Changed,
}

impl Queue {
    pub fn new(length: u32, patience: Duration) -> Self {
        let queue = Self {
            length: AtomicU32::new(0),
            patience_ms: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            turns: AtomicU32::new(0),
            freed: Notify::new(),
        };
        queue.adjust(length, patience);
        queue
    }

    /// Is of this length and patience for those that come from now on.
    pub fn adjust(&self, length: u32, patience: Duration) {
        self.length.store(length, Ordering::Relaxed);
        self.patience_ms.store(patience.as_millis() as u64, Ordering::Relaxed);
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Something may be free: the first that waits tries again.
    pub fn free(&self) {
        if !self.is_empty() {
            self.freed.notify_one();
        }
    }

    /// Things have changed: all try again.
    pub fn look_again(&self) {
        self.freed.notify_waiters();
    }

    /// There are other settings: all that wait begin anew with those.
    pub fn turn_away(&self) {
        self.turns.fetch_add(1, Ordering::SeqCst);
        self.freed.notify_waiters();
    }

    /// Waits until `attempt` gives something. Whoever comes while others wait does not try before them. `waited`: for
    /// so long it did before, with other settings.
    pub async fn wait<T>(
        &self,
        waited: Duration,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T, Turned> {
        let turns = self.turns.load(Ordering::SeqCst);
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        let _place = Place(self);
        // One that was turned away had its place: the others must not lose theirs to it, nor it its own to them.
        if waited.is_zero() && before >= self.length.load(Ordering::Relaxed) {
            return Err(Turned::Full);
        }
        // One that was turned away has had its turn to wait; all those come at once, and somebody has to try.
        let mut is_first = before == 0 || !waited.is_zero();
        let until_turn = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // Registered before the attempt, so that what is freed in between is not missed.
                freed.as_mut().enable();
                if self.turns.load(Ordering::SeqCst) != turns {
                    return Err(Turned::Changed);
                }
                if is_first && let Some(got) = attempt() {
                    return Ok(got);
                }
                freed.await;
                is_first = true;
            }
        };
        let patience = Duration::from_millis(self.patience_ms.load(Ordering::Relaxed));
        let left = patience.saturating_sub(waited);
        tokio::time::timeout(left, until_turn).await.unwrap_or(Err(Turned::Late))
    }
}

/// One that waits; it leaves however it ends.
struct Place<'a>(&'a Queue);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn one_after_the_other_in_order() {
        run(async {
            let (queue, free) = (Queue::new(9, Duration::from_millis(100)), Cell::new(0u32));
            let order = std::cell::RefCell::new(Vec::new());
            let client = |name: u32| {
                let (queue, free, order) = (&queue, &free, &order);
                async move {
                    let taken = queue
                        .wait(Duration::ZERO, || free.get().checked_sub(1).map(|left| free.set(left)))
                        .await;
                    order.borrow_mut().push((name, taken));
                }
            };
            let frees = async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                    free.set(free.get() + 1);
                    queue.free();
                }
            };
            tokio::join!(client(1), client(2), client(3), client(4), frees);
            let order = order.into_inner();
            assert_eq!(order, [(1, Ok(())), (2, Ok(())), (3, Ok(())), (4, Err(Turned::Late))]);
            assert!(queue.is_empty());
        });
    }

    #[test]
    fn a_full_queue_takes_nobody() {
        run(async {
            let queue = Queue::new(1, Duration::from_millis(100));
            let wait = || queue.wait(Duration::ZERO, || None::<()>);
            let (first, second) = tokio::join!(wait(), wait());
            assert_eq!((first, second), (Err(Turned::Late), Err(Turned::Full)));
            // One that comes back has its place, and those who came meanwhile do not take it.
            let back = queue.wait(Duration::from_millis(1), || None::<()>);
            let (first, back) = tokio::join!(wait(), back);
            assert_eq!((first, back), (Err(Turned::Late), Err(Turned::Late)));
        });
    }

    #[test]
    fn all_are_sent_to_other_settings_at_once_and_their_time_goes_on() {
        run(async {
            let queue = Queue::new(9, Duration::from_secs(3600));
            let wait = |waited| queue.wait(waited, || None::<()>);
            let change = async { queue.turn_away() };
            let (first, second, ()) = tokio::join!(wait(Duration::ZERO), wait(Duration::ZERO), change);
            assert_eq!((first, second), (Err(Turned::Changed), Err(Turned::Changed)));
            assert_eq!(wait(Duration::from_secs(3600)).await, Err(Turned::Late));
            assert!(queue.is_empty());
            // Those who come back find each other waiting, and try all the same.
            let back = || queue.wait(Duration::from_millis(1), || Some(()));
            let (new, first, second) = tokio::join!(wait(Duration::from_millis(3_599_900)), back(), back());
            assert_eq!((new, first, second), (Err(Turned::Late), Ok(()), Ok(())));
        });
    }
}
