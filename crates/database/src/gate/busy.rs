//! How many connections each server has through this gate, and whose turn it is among equals.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::targets::Route;

#[derive(Debug, Default)]
pub(crate) struct Busy(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: BTreeMap<String, usize>,
    turn: usize,
}

impl Busy {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server with the fewest connections, in turn among equals, and never one that `failed` already.
    pub(crate) fn least<'a>(&self, routes: &'a [Route], failed: &[String]) -> Option<&'a Route> {
        let mut counts = self.counts();
        let left: Vec<&Route> =
            routes.iter().filter(|route| !failed.contains(&route.target().name)).collect();
        let open = |route: &&Route| counts.open.get(&route.target().name).copied().unwrap_or(0);
        let fewest = left.iter().map(open).min()?;
        let equals: Vec<&Route> = left.into_iter().filter(|route| open(route) == fewest).collect();
        let chosen = equals[counts.turn % equals.len()];
        counts.turn = counts.turn.wrapping_add(1);
        Some(chosen)
    }

    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.counts().open.values().sum()
    }

    /// Counts a connection for as long as the value lives.
    pub(crate) fn count(self: &Arc<Self>, server: &str) -> Counted {
        *self.counts().open.entry(server.to_owned()).or_default() += 1;
        Counted { busy: Arc::clone(self), server: server.to_owned() }
    }
}

#[derive(Debug)]
pub(crate) struct Counted {
    busy: Arc<Busy>,
    server: String,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(open) = self.busy.counts().open.get_mut(&self.server) {
            *open = open.saturating_sub(1);
        }
    }
}
