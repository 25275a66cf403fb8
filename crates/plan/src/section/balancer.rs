//! `[balancer]`: who takes the next request. Without `servers` it sends to the site's own web servers, or to
//! the app servers of a site that has none.

use std::ops::Range;

use crate::ground::Ground;
use crate::meant::{Balancer, Limits, Network, Place, RateLimit, Target};
use crate::mistake::{Mistake, Notes};
use crate::section::access_log::AccessLogKeys;
use crate::section::error_pages;
use crate::section::limit::{limits, rate_limit};
use crate::section::network::networks;
use crate::section::patience::{BALANCER_IDLE_MS, TimeoutKeys};
use crate::section::pool::PoolKeys;
use crate::typed::{On, Table, Written, or};

#[derive(Clone, Debug, Default)]
pub(crate) struct BalancerSection {
    /// Its name in the file.
    pub(crate) span: Range<usize>,
    pub(crate) on: On,
    pub(crate) port: Option<Written<u16>>,
    pub(crate) pool: PoolKeys,
    timeouts: TimeoutKeys,
    trusted: Vec<Network>,
    proxy_protocol: Option<Written<bool>>,
    limits: Limits,
    rate_limit: Option<RateLimit>,
    access_log: AccessLogKeys,
    error_pages: Option<Written<String>>,
}

impl BalancerSection {
    pub(crate) fn read(mut table: Table<'_>) -> BalancerSection {
        let mut section = BalancerSection {
            span: table.span.clone(),
            on: table.on(),
            port: table.port("port"),
            pool: PoolKeys::read(&mut table, "balancer"),
            timeouts: TimeoutKeys::read(&mut table, "[balancer.timeouts]"),
            trusted: table.get("trusted").map(|item| networks(&item)).unwrap_or_default(),
            proxy_protocol: table.get("proxy-protocol").and_then(|item| item.boolean()),
            limits: limits(&mut table),
            rate_limit: rate_limit(&mut table),
            access_log: AccessLogKeys::read(&mut table, "[balancer.access-log]"),
            error_pages: table.text("error-pages"),
        };
        section.pool.means_servers = table.means("servers");
        section.note_proxies(&table);
        table.close();
        section
    }

    /// Whoever may write the PROXY protocol says of itself what it likes, so it is never read from just anybody.
    fn note_proxies(&self, table: &Table<'_>) {
        let wanted = self.proxy_protocol.as_ref().filter(|wanted| wanted.value);
        if let Some(wanted) = wanted.filter(|_| !table.means("trusted")) {
            let message = "`proxy-protocol` needs to know which proxies send it";
            let hint = "name them: `trusted = [\"10.0.0.0/8\"]`; it is read from their connections alone";
            table.notes.note(Mistake::at(wanted.span.clone(), message).hint(hint));
        }
    }

    /// `own`: the servers of this site that it may send to.
    pub(crate) fn mean(&self, own: Vec<Target>, ground: &Ground<'_>, notes: &Notes) -> Balancer {
        Balancer {
            pool: self.pool.mean("", own),
            timeouts: self.timeouts.mean(BALANCER_IDLE_MS),
            shows_via: matches!(ground.place, Place::Up { .. }),
            trusted: self.trusted.clone(),
            proxy_protocol: or(&self.proxy_protocol, false),
            limits: self.limits,
            rate_limit: self.rate_limit,
            // The first server that a client meets logs by default.
            access_log: self.access_log.mean(true),
            error_pages: error_pages::mean(self.error_pages.as_ref(), ground.files, notes),
            pools: Vec::new(),
            routes: Vec::new(),
        }
    }
}
