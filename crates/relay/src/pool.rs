//! Idle connections to targets, of one thread.
//!
//! A connection comes in only when its last request and answer were both complete and no byte is left over, and
//! goes out only while nothing has come on it since: so no answer can reach a wrong request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};

use crate::fleet::connections::Held;
use crate::stream::Stream;
use crate::thread::mix;

/// Where a connection leads, where it comes from, for whom, and whether it is in TLS: one server in two pools is two
/// targets, each with checks and a limit of its own. The number is the address of what its connections are counted in;
/// they keep it there.
pub(crate) type Route = (SocketAddr, Option<IpAddr>, usize, bool);

#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<Route, Vec<Idle>, BuildHasherDefault<Mixer>>>,
}

/// Routes are those of the plan, so nobody can choose them to collide, and the hash may be a cheap one.
#[derive(Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        mix(self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) stream: Stream,
    /// See [`Connections`](crate::fleet::connections::Connections).
    pub(crate) held: Option<Held>,
    /// How often its target had been lost when it was made.
    pub(crate) losses: u32,
    /// The tick at which it is closed.
    pub(crate) until: u64,
}

impl Idle {
    fn is_too_many(&self) -> bool {
        self.held.as_ref().is_some_and(Held::is_crowded)
    }
}

impl Pool {
    /// The connection that was used last: the others may so grow old and be closed.
    /// `losses`: how often the target was lost; a connection from before is dropped. `sure` asks the kernel whether it
    /// still lives, at the price of a system call.
    pub(crate) fn take(&self, route: Route, losses: u32, sure: bool) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        let idle = idle.get_mut(&route)?;
        while let Some(last) = idle.pop() {
            let stream = &last.stream;
            if last.losses == losses && stream.is_quiet() && (!sure || stream.is_quiet_for_sure()) {
                return Some(last);
            }
        }
        None
    }

    pub(crate) fn give(&self, route: Route, given: Idle, limit: usize) {
        let mut idle = self.idle.borrow_mut();
        let idle = idle.entry(route).or_default();
        if idle.len() < limit && !given.is_too_many() {
            given.stream.rest();
            idle.push(given);
        }
    }

    /// Closes what was idle for too long, what the other end has closed, and what others have more need of.
    pub(crate) fn sweep(&self, now: u64) {
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain(|idle| idle.until > now && !idle.is_too_many() && idle.stream.is_quiet());
            !idle.is_empty()
        });
    }

    /// Forgets the connections to a target of which one has just died.
    pub(crate) fn forget(&self, route: Route) {
        self.idle.borrow_mut().remove(&route);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty()
    }

    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}
