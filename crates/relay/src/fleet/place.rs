//! Where a target answers: at the address of the plan, or at one that its name leads to, which may change.

use std::net::{IpAddr, SocketAddr};
use std::sync::{PoisonError, RwLock};

use plan::Target;

/// See the head of this file. Read for each request: the address of a plan costs no lock.
#[derive(Debug)]
pub(super) struct Place {
    planned: SocketAddr,
    named: Option<RwLock<Named>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Named {
    now: Option<IpAddr>,
    /// Where the name leads instead, until a check there was good.
    next: Option<IpAddr>,
}

impl Place {
    pub(super) fn of(target: &Target) -> Self {
        Self { planned: target.address, named: target.lookup.as_ref().map(|_| RwLock::default()) }
    }

    /// None: its name has not led anywhere yet, or has no address for this target.
    pub(super) fn now(&self) -> Option<SocketAddr> {
        match &self.named {
            None => Some(self.planned),
            Some(named) => self.with_port(read(named).now),
        }
    }

    /// Where it will be once that works.
    pub(super) fn next(&self) -> Option<SocketAddr> {
        self.with_port(read(self.named.as_ref()?).next)
    }

    /// Where its name leads, when that is newer than where it is.
    pub(super) fn newest(&self) -> Option<IpAddr> {
        let named = read(self.named.as_ref()?);
        named.next.or(named.now)
    }

    /// Its name leads there now. None: nowhere, and then it is nowhere.
    pub(super) fn lead(&self, address: Option<IpAddr>) {
        let Some(named) = &self.named else { return };
        let mut named = named.write().unwrap_or_else(PoisonError::into_inner);
        *named = match address {
            None => Named::default(),
            Some(_) if named.now == address => Named { next: None, ..*named },
            Some(_) if named.now.is_none() => Named { now: address, next: None },
            Some(_) => Named { next: address, ..*named },
        };
    }

    /// It is where it was going to be.
    pub(super) fn arrive(&self) {
        let Some(named) = &self.named else { return };
        let mut named = named.write().unwrap_or_else(PoisonError::into_inner);
        *named = Named { now: named.next.or(named.now), next: None };
    }

    fn with_port(&self, address: Option<IpAddr>) -> Option<SocketAddr> {
        address.map(|address| SocketAddr::new(address, self.planned.port()))
    }
}

fn read(named: &RwLock<Named>) -> Named {
    *named.read().unwrap_or_else(PoisonError::into_inner)
}
