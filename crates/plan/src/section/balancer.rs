//! `[balancer]`: who takes the next request. Without `servers` it sends to the site's own web servers, or to
//! the app servers of a site that has none.

use std::ops::Range;

use crate::meant::{Algorithm, Balancer, Mode, Place, Target};
use crate::mistake::Mistake;
use crate::section::health::CheckKeys;
use crate::section::patience::{BALANCER_IDLE_MS, TimeoutKeys};
use crate::section::target::{self, TargetEntry};
use crate::typed::{Item, On, Table, Written, did_you_mean, or};

const ALGORITHMS: [(&str, Algorithm); 1] = [("round-robin", Algorithm::RoundRobin)];
const MODES: [(&str, Mode); 2] =
    [("active-active", Mode::ActiveActive), ("active-passive", Mode::ActivePassive)];
/// Known to the design, not yet to this version; a user who writes one made no slip.
const LATER_ALGORITHMS: [&str; 6] =
    ["least-connections", "random-two", "source-hash", "uri-hash", "header-hash", "cookie"];

#[derive(Clone, Debug, Default)]
pub(crate) struct BalancerSection {
    /// Its name in the file.
    pub(crate) span: Range<usize>,
    pub(crate) on: On,
    pub(crate) port: Option<Written<u16>>,
    algorithm: Option<Written<Algorithm>>,
    mode: Option<Written<Mode>>,
    /// Whether `servers` is there at all, be it wrong or mistyped.
    pub(crate) means_servers: bool,
    pub(crate) servers: Option<Written<Vec<TargetEntry>>>,
    check: CheckKeys,
    timeouts: TimeoutKeys,
}

impl BalancerSection {
    pub(crate) fn read(mut table: Table<'_>) -> BalancerSection {
        let mut section = BalancerSection {
            span: table.span.clone(),
            on: table.on(),
            port: table.port("port"),
            means_servers: false,
            algorithm: table.get("algorithm").and_then(|item| algorithm(&item)),
            mode: table.get("mode").and_then(|item| item.choice(&MODES)),
            servers: table.get("servers").map(|item| target::read(&item)),
            check: CheckKeys::read(&mut table, "[balancer.check]"),
            timeouts: TimeoutKeys::read(&mut table, "[balancer.timeouts]"),
        };
        section.means_servers = table.means("servers");
        table.close();
        section
    }

    /// `own`: the servers of this site that it may send to.
    pub(crate) fn mean(&self, own: Vec<Target>, place: Place) -> Balancer {
        let written = self.servers.as_ref();
        Balancer {
            algorithm: or(&self.algorithm, Algorithm::RoundRobin),
            mode: or(&self.mode, Mode::ActiveActive),
            check: self.check.mean(written.is_none()),
            servers: written.map_or(own, |servers| target::mean(&servers.value)),
            timeouts: self.timeouts.mean(BALANCER_IDLE_MS),
            shows_via: matches!(place, Place::Up { .. }),
        }
    }
}

fn algorithm(item: &Item<'_>) -> Option<Written<Algorithm>> {
    let text = item.text()?;
    let is_known = ALGORITHMS.iter().any(|(name, _)| *name == text.value);
    let near_known = did_you_mean(&text.value, ALGORITHMS.map(|(name, _)| name)).is_some();
    let later = LATER_ALGORITHMS.iter().find(|name| **name == text.value);
    match later {
        Some(name) if !is_known && !near_known => {
            let message = format!("this version does not know the algorithm \"{name}\" yet");
            item.notes.note(Mistake::at(item.span.clone(), message).hint("it can be `round-robin`"));
            None
        }
        Some(_) | None => item.choice(&ALGORITHMS),
    }
}
