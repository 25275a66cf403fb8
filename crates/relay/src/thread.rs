//! What the connections of one thread share. Nothing in it is seen by another thread but the counters.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::buffer::Buffers;
use crate::clock::Clock;
use crate::codec::date::DateText;
use crate::codec::request::RequestHead;
use crate::codec::response::ResponseHead;
use crate::counters::{Counters, Counts};
use crate::limits::{FREE_HEADS, SWEEP_TICKS, Settings, Tuning};
use crate::page::Pages;
use crate::pipes::Pipes;
use crate::pool::Pool;
use crate::stream::Driver;

#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) settings: Settings,
    pub(crate) clock: Rc<Clock>,
    pub(crate) pool: Pool,
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) pipes: Pipes,
    pub(crate) driver: Driver,
    /// Whether connections are to end as soon as they can.
    pub(crate) draining: Cell<bool>,
    /// How often the alarm had rung when this thread looked.
    heard: Cell<usize>,
    /// When unused buffers were last looked at.
    swept: Cell<u64>,
    /// How long an idle connection may then still wait for its next request.
    pub(crate) idle_grace_ms: Cell<u64>,
    tuning: RefCell<Tuning>,
    counters: Counters,
    pub(crate) index: usize,
    date: RefCell<DateText>,
    scratch: RefCell<Vec<u8>>,
    /// Heads that no exchange uses, with the memory that they have grown to.
    requests: RefCell<Vec<RequestHead>>,
    answers: RefCell<Vec<ResponseHead>>,
    ids: Cell<[u64; 2]>,
}

impl Thread {
    pub(crate) fn new(index: usize, settings: Settings, counters: Counters, seed: [u64; 2]) -> Self {
        let buffers = Rc::default();
        Self {
            tuning: RefCell::new(settings.tuning()),
            driver: Driver::open(settings.io, &buffers),
            settings,
            clock: Rc::new(Clock::new()),
            pool: Pool::default(),
            buffers,
            pipes: Pipes::default(),
            draining: Cell::new(false),
            heard: Cell::new(0),
            swept: Cell::new(0),
            idle_grace_ms: Cell::new(0),
            counters,
            index,
            date: RefCell::default(),
            scratch: RefCell::default(),
            requests: RefCell::default(),
            answers: RefCell::default(),
            ids: Cell::new(seed),
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        self.counters.thread(self.index)
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn timeouts(&self) -> plan::Timeouts {
        self.tuning.borrow().timeouts
    }

    /// Client connections that all threads together may have.
    pub(crate) fn connections(&self) -> usize {
        self.tuning.borrow().connections
    }

    /// Whether connections from this address begin with the PROXY protocol.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.tuning.borrow().proxies.iter().any(|proxy| proxy.contains(address))
    }

    /// What a client sees of errors.
    pub(crate) fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.tuning.borrow().pages)
    }

    /// Takes what was tuned since the last look.
    pub(crate) fn retune(&self) {
        if self.settings.tuned.is_some() {
            self.tuning.replace(self.settings.tuning());
        }
    }

    /// Whether there is anything to look at once a tick; an idle server should not wake up for nothing.
    pub(crate) fn has_work(&self) -> bool {
        self.counts().open.get() > 0 || !self.pool.is_empty() || !self.buffers.is_empty()
    }

    /// Once a tick: deadlines, old connections, what was tuned, and whether all are to look up.
    pub(crate) fn turn(&self) {
        self.retune();
        let rings = self.settings.alarm.rings();
        let rang = self.heard.replace(rings) != rings;
        self.clock.turn(rang || self.draining.get());
        self.pool.sweep(self.clock.now());
        let round = self.clock.now() / SWEEP_TICKS;
        if self.swept.replace(round) != round {
            self.buffers.sweep();
        }
    }

    /// Lets other connections have their turn, and the kernel be heard.
    pub(crate) async fn give_way(&self) {
        if let Driver::Ring(ring) = &self.driver {
            ring.turn();
        }
        tokio::task::yield_now().await;
    }

    pub(crate) fn date(&self) -> [u8; 29] {
        *self.date.borrow_mut().at(self.clock.wall())
    }

    /// An empty text to write a head in; give it back with [`Thread::give_scratch`].
    pub(crate) fn take_scratch(&self) -> Vec<u8> {
        self.scratch.take()
    }

    pub(crate) fn give_scratch(&self, mut scratch: Vec<u8>) {
        scratch.clear();
        self.scratch.replace(scratch);
    }

    pub(crate) fn take_request_head(&self) -> RequestHead {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_request_head(&self, head: RequestHead) {
        let mut free = self.requests.borrow_mut();
        if free.len() < FREE_HEADS && head.is_small() {
            free.push(head);
        }
    }

    pub(crate) fn take_answer_head(&self) -> ResponseHead {
        self.answers.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_answer_head(&self, head: ResponseHead) {
        let mut free = self.answers.borrow_mut();
        if free.len() < FREE_HEADS && head.fields().is_small() {
            free.push(head);
        }
    }

    /// 128 bits that no other request has, by SplitMix64 over a random start. Not a secret: it names, it does not
    /// protect.
    pub(crate) fn fresh_id(&self) -> [u64; 2] {
        let [high, low] = self.ids.get();
        let next = low.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.ids.set([high, next]);
        [high, mix(next)]
    }
}

/// Spreads a number over all 64 bits.
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
