//! Idle connections to targets, of one thread.
//!
//! A connection comes in only when its last request and answer were both complete and no byte is left over, and
//! goes out only while nothing has come on it since: so no answer can reach a wrong request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::stream::Stream;

/// Where a connection leads and where it comes from.
pub(crate) type Route = (SocketAddr, Option<IpAddr>);

#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<Route, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    /// How often its target had been lost when it was made.
    losses: u32,
    /// The tick at which it is closed.
    until: u64,
}

impl Pool {
    /// The connection that was used last: the others may so grow old and be closed.
    /// `losses`: how often the target was lost; a connection from before is dropped. `sure` asks the kernel whether it
    /// still lives, at the price of a system call.
    pub(crate) fn take(&self, route: Route, losses: u32, sure: bool) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        let idle = idle.get_mut(&route)?;
        while let Some(Idle { stream, losses: then, .. }) = idle.pop() {
            if then == losses && stream.is_quiet() && (!sure || stream.is_quiet_for_sure()) {
                return Some(stream);
            }
        }
        None
    }

    pub(crate) fn give(&self, route: Route, losses: u32, stream: Stream, until: u64, limit: usize) {
        let mut idle = self.idle.borrow_mut();
        let idle = idle.entry(route).or_default();
        if idle.len() < limit {
            stream.rest();
            idle.push(Idle { stream, losses, until });
        }
    }

    /// Closes what was idle for too long, or what the other end has closed.
    pub(crate) fn sweep(&self, now: u64) {
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain(|idle| idle.until > now && idle.stream.is_quiet());
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
