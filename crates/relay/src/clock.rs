//! Deadlines of connections, cheap enough to be set several times a request.
//!
//! A timer of the runtime costs a lock and a place in a wheel each time it is set. Here a deadline is a number
//! in a slot, and one task of the thread looks through all slots ten times a second. A deadline is so met between
//! on time and two ticks late, never early; that is fine for what they are for.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);

const NEVER: u64 = u64::MAX;

/// The coarse time of one thread.
#[derive(Debug)]
pub(crate) struct Clock {
    began: Instant,
    tick: Cell<u64>,
    /// What the other clock of this machine said when this one was last moved on.
    wall: Cell<(Instant, SystemTime)>,
    slots: RefCell<Vec<Weak<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    at: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

/// The one deadline of a connection.
#[derive(Debug)]
pub(crate) struct Deadline {
    clock: Rc<Clock>,
    slot: Rc<Slot>,
}

/// The deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Late;

impl Clock {
    pub(crate) fn new() -> Self {
        let began = Instant::now();
        let wall = Cell::new((began, SystemTime::now()));
        Self { began, tick: Cell::new(0), wall, slots: RefCell::default() }
    }

    /// Ticks since the thread began.
    pub(crate) fn now(&self) -> u64 {
        self.tick.get()
    }

    /// So many ticks from now are at least this time.
    pub(crate) fn after_ms(&self, ms: u64) -> u64 {
        self.now() + ms.div_ceil(TICK.as_millis() as u64) + 1
    }

    pub(crate) fn deadline(self: &Rc<Self>) -> Deadline {
        let slot = Rc::new(Slot { at: Cell::new(NEVER), waker: RefCell::new(None) });
        self.slots.borrow_mut().push(Rc::downgrade(&slot));
        Deadline { clock: Rc::clone(self), slot }
    }

    /// Moves the time on.
    pub(crate) fn refresh(&self) {
        let now = Instant::now();
        self.tick.set((now.duration_since(self.began).as_millis() / TICK.as_millis()) as u64);
        self.wall.set((now, SystemTime::now()));
    }

    /// The time of day, at most a few ticks old.
    pub(crate) fn wall(&self) -> SystemTime {
        self.wall.get().1
    }

    /// The time of day at this instant.
    pub(crate) fn wall_at(&self, at: Instant) -> SystemTime {
        let (instant, wall) = self.wall.get();
        match at.checked_duration_since(instant) {
            Some(later) => wall + later,
            None => wall.checked_sub(instant.duration_since(at)).unwrap_or(wall),
        }
    }

    /// Moves the time on and wakes who is late. `all` wakes everybody, to look at what else has changed.
    pub(crate) fn turn(&self, all: bool) {
        self.refresh();
        let now = self.now();
        self.slots.borrow_mut().retain(|slot| {
            let Some(slot) = slot.upgrade() else { return false };
            if let Some(waker) = slot.waker.borrow().as_ref()
                && (all || slot.at.get() <= now)
            {
                waker.wake_by_ref();
            }
            true
        });
    }
}

impl Deadline {
    pub(crate) fn set(&self, ms: u64) {
        self.slot.at.set(self.clock.after_ms(ms));
    }

    /// Moves it to so long from now unless it is nearer.
    pub(crate) fn shorten(&self, ms: u64) {
        self.slot.at.set(self.slot.at.get().min(self.clock.after_ms(ms)));
    }

    /// Whether it passed; otherwise this task is woken when it does. Called first in every poll.
    pub(crate) fn check(&self, context: &Context<'_>) -> Result<(), Late> {
        if self.slot.at.get() <= self.clock.now() {
            return Err(Late);
        }
        let mut waker = self.slot.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Ok(())
    }

    /// Waits for `future` until the deadline that is set now.
    pub(crate) async fn within<T>(&self, ms: u64, future: impl Future<Output = T>) -> Result<T, Late> {
        self.set(ms);
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(value));
            }
            match self.check(context) {
                Ok(()) => Poll::Pending,
                Err(late) => Poll::Ready(Err(late)),
            }
        })
        .await
    }
}
