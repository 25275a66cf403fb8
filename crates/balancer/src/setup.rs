//! All that the site file says of the balancer, as one value that a reload replaces.

use std::path::Path;
use std::sync::Arc;

use link::api::AuthorityError;
use plan::{Network, Plan, Route};
use relay::Tuning;
use relay::page::Pages;

use crate::gate::Gate;
use crate::pool::{Around, Pools};

/// See the head of this file. A request works with one of them from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) shows_via: bool,
    /// Proxies that are believed.
    pub(crate) trusted: Vec<Network>,
    pub(crate) gate: Gate,
    pub(crate) routes: Vec<Route>,
    pub(crate) pools: Arc<Pools>,
}

impl Setup {
    /// None: the plan has no balancer. `before`: the setup until now; what is known of servers, clients and
    /// requests under way goes on in the new one.
    pub(crate) fn new(
        plan: &Plan,
        around: &Around,
        before: Option<&Setup>,
    ) -> Result<Option<Self>, AuthorityError> {
        let Some(planned) = plan.balancer.as_ref() else { return Ok(None) };
        let pools = Pools::new(planned, plan, around, before.map(|before| &*before.pools))?;
        Ok(Some(Self {
            shows_via: planned.shows_via,
            trusted: planned.trusted.clone(),
            gate: Gate::new(planned, before.map(|before| &before.gate)),
            routes: planned.routes.clone(),
            pools: Arc::new(pools),
        }))
    }
}

/// What the engine follows of a plan.
pub(crate) fn tuning(planned: &plan::Balancer, files: &Path) -> Tuning {
    let connections = planned.limits.connections.map(|all| all as usize);
    let proxies = if planned.proxy_protocol { planned.trusted.clone() } else { Vec::new() };
    Tuning {
        proxies: proxies.into(),
        pages: Arc::new(pages(planned.error_pages.as_deref(), files)),
        timeouts: planned.timeouts,
        connections: relay::connections_within_descriptors(
            connections.unwrap_or(relay::Limits::default().connections),
        ),
    }
}

/// The site's own error pages. Without them ours will do: trouble with them must not keep the site down.
fn pages(folder: Option<&Path>, files: &Path) -> Pages {
    let Some(folder) = folder else { return Pages::default() };
    Pages::read(&files.join(folder)).unwrap_or_else(|error| {
        tracing::warn!("{error}; clients see our own");
        Pages::default()
    })
}
