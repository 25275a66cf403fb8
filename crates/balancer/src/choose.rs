//! Which server gets the next request.
//!
//! The state of choosing is shared by all threads: with a state of its own, each thread would begin with the same
//! server, and few requests would not alternate. Each algorithm is a function without I/O in a file of its own;
//! here stands only what is true of all of them: backups wait, a mark in a cookie goes before the algorithm.

pub mod consistent;
pub mod first;
pub mod key;
pub mod least_connections;
pub mod least_time;
pub mod load;
pub mod random_two;
pub mod round_robin;
pub mod sticky;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plan::{Algorithm, Mode, Pool};
use relay::{Cause, Fleet, RequestHead, Tried};

use key::Key;
use least_connections::{busy, least};
use least_time::{Timed, ms};
use load::{Load, Slot};
use round_robin::RoundRobin;
use sticky::Sticky;

use crate::queue::{Queue, Turned};

/// How often a choice is made anew because another thread took the last place of the server.
const RACES: usize = 4;

/// See the head of this file.
#[derive(Debug)]
pub struct Chooser {
    algorithm: Algorithm,
    mode: Mode,
    key: Option<Key>,
    pub sticky: Option<Sticky>,
    turns: Mutex<RoundRobin>,
    loads: Vec<Arc<Load>>,
    pub queue: Arc<Queue>,
    seeds: Vec<u64>,
    lots: AtomicU64,
    /// What times are counted from.
    began: Instant,
}

/// The request that needs a server.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub client: IpAddr,
    pub request: &'a RequestHead,
    pub now: Instant,
}

/// Whom it gets.
#[derive(Debug)]
pub enum Next<'a> {
    Server(usize, Slot<'a>),
    /// Some are up, and each has as many requests as it may.
    Full,
    /// Nobody is up, or all were tried.
    Nobody,
}

/// Why it gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    Because(Cause),
    /// There are other settings meanwhile, with which the request is to begin anew.
    Changed,
    /// There is nobody any more who would be answered.
    ClientLeft,
}

impl Chooser {
    /// `seed` makes the lots of this balancer other ones than those of the next. `before`: what the same pool was
    /// until now. What is under way at servers that stay still counts, and so does whose turn it is.
    pub fn new(pool: &Pool, fleet: &Fleet, seed: u64, before: Option<(&Chooser, &Fleet)>) -> Self {
        let names = || fleet.targets().map(|target| target.name.as_str());
        let by = || pool.hash_by.clone().unwrap_or_default();
        let key = match pool.algorithm {
            Algorithm::SourceHash => Some(Key::Source),
            Algorithm::UriHash => Some(Key::Uri),
            Algorithm::HeaderHash => Some(Key::Header(by())),
            Algorithm::CookieHash => Some(Key::Cookie(by())),
            _ => None,
        };
        let (length, patience) = (pool.queue.length, Duration::from_millis(pool.queue.timeout_ms));
        let queue = match before {
            Some((before, _)) => Arc::clone(&before.queue),
            None => Arc::new(Queue::new(length, patience)),
        };
        queue.adjust(length, patience);
        let kept = |index: usize| {
            let (before, servers) = before?;
            let old = servers.index_of(fleet.target(index))?;
            Some((before, old))
        };
        let gains =
            (0..fleet.len()).map(|index| kept(index).map_or(0, |(before, old)| before.turns().gain(old)));
        let now = Instant::now();
        let weights = (0..fleet.len()).map(|index| fleet.weight(index, now));
        let turns = RoundRobin::going_on(gains, weights);
        let loads = (0..fleet.len()).map(|index| {
            kept(index).map_or_else(Arc::default, |(before, old)| Arc::clone(&before.loads[old]))
        });
        Self {
            algorithm: pool.algorithm,
            mode: pool.mode,
            key,
            sticky: pool.sticky.as_ref().map(|sticky| Sticky::new(&sticky.cookie, names())),
            turns: Mutex::new(turns),
            loads: loads.collect(),
            queue,
            seeds: consistent::seeds(names()),
            lots: AtomicU64::new(before.map_or(seed, |(before, _)| before.lots.load(Ordering::Relaxed))),
            began: before.map_or_else(Instant::now, |(before, _)| before.began),
        }
    }

    /// A server for this request without a wait; None: it has to wait.
    pub fn at_once(
        &self,
        fleet: &Fleet,
        tried: &Tried,
        asked: &Asked<'_>,
    ) -> Option<Result<(usize, Slot<'_>), Without>> {
        // Whoever waits goes before one that is new, but not before one that has waited and failed.
        if !self.queue.is_empty() && tried.is_empty() {
            return None;
        }
        match self.next(fleet, tried, asked) {
            Next::Server(index, slot) => Some(Ok((index, slot))),
            Next::Nobody => Some(Err(Without::Because(Cause::NoServer))),
            Next::Full => None,
        }
    }

    /// A server for this request after a wait, one that was tried before or another. `waited`: for so long it did
    /// already.
    pub async fn wait<'a>(
        &'a self,
        fleet: &Fleet,
        asked: &Asked<'_>,
        waited: Duration,
    ) -> Result<(usize, Slot<'a>), Without> {
        let attempt = || match self.next(fleet, &Tried::default(), asked) {
            Next::Server(index, slot) => Some(Some((index, slot))),
            Next::Nobody => Some(None),
            Next::Full => None,
        };
        let got = match self.queue.wait(waited, attempt).await {
            Ok(got) => got.ok_or(Without::Because(Cause::NoServer)),
            Err(Turned::Full) => Err(Without::Because(Cause::QueueFull)),
            Err(Turned::Late) => Err(Without::Because(Cause::QueueLate)),
            Err(Turned::Changed) => return Err(Without::Changed),
        };
        if (0..fleet.len()).any(|index| fleet.is_up(index) && self.has_room(fleet, index)) {
            self.queue.free();
        }
        got
    }

    /// A server that is up and was not tried for this request: a backup only when no other is left.
    pub fn next(&self, fleet: &Fleet, tried: &Tried, asked: &Asked<'_>) -> Next<'_> {
        for backup in [false, true] {
            let is_open = |index: &usize| {
                let target = fleet.target(*index);
                fleet.is_up(*index) && !tried.has(*index) && target.backup == backup && target.weight > 0
            };
            for _ in 0..RACES {
                let mut open = (0..fleet.len()).filter(is_open).peekable();
                if open.peek().is_none() {
                    break;
                }
                let Some(index) = self.one_of(fleet, open, asked) else { return Next::Full };
                if let Some(slot) = self.loads[index].take(limit(fleet, index), &self.queue) {
                    return Next::Server(index, slot);
                }
            }
            if (0..fleet.len()).any(|index| is_open(&index)) {
                return Next::Full;
            }
        }
        Next::Nobody
    }

    /// One of these that may have one more request.
    fn one_of(
        &self,
        fleet: &Fleet,
        open: impl Iterator<Item = usize> + Clone,
        asked: &Asked<'_>,
    ) -> Option<usize> {
        let has_room = |index: &usize| self.has_room(fleet, *index);
        if self.mode == Mode::ActivePassive {
            return open.clone().next().filter(has_room);
        }
        let free = open.filter(has_room);
        let wanted = self.sticky.as_ref().and_then(|sticky| sticky.wanted(asked.request));
        match wanted.filter(|wanted| free.clone().any(|index| index == *wanted)) {
            Some(wanted) => Some(wanted),
            None => self.among(free.map(|index| (index, fleet.weight(index, asked.now))), asked),
        }
    }

    /// Requests that this server has under way.
    pub fn outstanding(&self, index: usize) -> u32 {
        self.loads[index].outstanding()
    }

    fn has_room(&self, fleet: &Fleet, index: usize) -> bool {
        self.loads[index].outstanding() < limit(fleet, index)
    }

    fn among(&self, open: impl Iterator<Item = (usize, u32)> + Clone, asked: &Asked<'_>) -> Option<usize> {
        let is_busy = |index: usize, weight| busy(self.loads[index].outstanding(), weight);
        match self.algorithm {
            Algorithm::RoundRobin => self.turns().next(open),
            Algorithm::LeastConnections => least(&mut self.turns(), open, is_busy),
            Algorithm::RandomTwo => random_two::random_two(open, self.lot(), is_busy),
            Algorithm::LeastTime => {
                let now_ms = ms(self.began, asked.now);
                least(&mut self.turns(), open, |index, weight| {
                    let load = &self.loads[index];
                    load.time.cost(load.outstanding(), weight, now_ms)
                })
            }
            Algorithm::First => first::first(open),
            Algorithm::SourceHash | Algorithm::UriHash | Algorithm::HeaderHash | Algorithm::CookieHash => {
                match self.key.as_ref().and_then(|key| key.of(asked.client, asked.request)) {
                    Some(key) => consistent::consistent(open, &self.seeds, key),
                    // Nothing to go by, so nothing that would have to stay together.
                    None => self.turns().next(open),
                }
            }
        }
    }

    /// Takes the time of a request that is sent to this server now, if that is of any use.
    pub fn timed(&self, index: usize) -> Option<Timed<'_>> {
        let goes_by_time = self.algorithm == Algorithm::LeastTime;
        goes_by_time.then(|| Timed::new(&self.loads[index].time, self.began))
    }

    fn turns(&self) -> MutexGuard<'_, RoundRobin> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lot(&self) -> u64 {
        key::mix(self.lots.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }
}

/// Requests that a server may have under way.
fn limit(fleet: &Fleet, index: usize) -> u32 {
    fleet.target(index).max_connections.unwrap_or(u32::MAX)
}
