//! `[balancer]`: who takes the next request. Without `servers` it sends to the site's own web servers, or to
//! the app servers of a site that has none.

use std::ops::Range;

use crate::meant::{Balancer, Limits, Place, RateLimit, Target};
use crate::section::limit::{limits, rate_limit};
use crate::section::patience::{BALANCER_IDLE_MS, TimeoutKeys};
use crate::section::pool::PoolKeys;
use crate::typed::{On, Table, Written};

#[derive(Clone, Debug, Default)]
pub(crate) struct BalancerSection {
    /// Its name in the file.
    pub(crate) span: Range<usize>,
    pub(crate) on: On,
    pub(crate) port: Option<Written<u16>>,
    pub(crate) pool: PoolKeys,
    timeouts: TimeoutKeys,
    limits: Limits,
    rate_limit: Option<RateLimit>,
}

impl BalancerSection {
    pub(crate) fn read(mut table: Table<'_>) -> BalancerSection {
        let mut section = BalancerSection {
            span: table.span.clone(),
            on: table.on(),
            port: table.port("port"),
            pool: PoolKeys::read(&mut table, "balancer"),
            timeouts: TimeoutKeys::read(&mut table, "[balancer.timeouts]"),
            limits: limits(&mut table),
            rate_limit: rate_limit(&mut table),
        };
        section.pool.means_servers = table.means("servers");
        table.close();
        section
    }

    /// `own`: the servers of this site that it may send to.
    pub(crate) fn mean(&self, own: Vec<Target>, place: Place) -> Balancer {
        Balancer {
            pool: self.pool.mean("", own),
            timeouts: self.timeouts.mean(BALANCER_IDLE_MS),
            shows_via: matches!(place, Place::Up { .. }),
            limits: self.limits,
            rate_limit: self.rate_limit,
            pools: Vec::new(),
            routes: Vec::new(),
        }
    }
}
