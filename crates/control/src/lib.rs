//! Control: the servers that keep the machines agreed, by Raft.
//!
//! They hold small records that change by compare-and-swap ([`link::control`]); what a record means is decided
//! by the part that owns it. One control server runs on each machine; one, three or five of them vote, all
//! others learn. The data plane never waits for any of this.
//!
//! * `journal` and `store`: the log and the vote, on disk before they are acknowledged.
//! * `machine`: the records as applied, and their snapshot.
//! * `peers`, `network`, `serve`: the agent API between control servers, and towards everybody who asks.
//! * `formation`, `keeper`: how a cluster begins, who is taken in, and what is reported.
//! * `recover`: how one voter begins anew when most of the others are lost for good.
//! * `timing`: why the death of a leader never costs the holder of a lease that lease.
//!
//! Openraft is seen by nobody outside this crate.

mod core;
mod formation;
mod journal;
mod keeper;
mod machine;
mod network;
mod peers;
mod recover;
mod serve;
mod store;
#[cfg(test)]
mod tests;
mod timing;
mod types;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use link::Start;
use link::api::{Door, Identity};
use link::control::wire::LISTEN;
use link::report::State;
use openraft::async_runtime::watch::WatchReceiver;
use plan::{Database, Lease};

use crate::core::Core;
use crate::peers::Peers;
use crate::timing::Timing;

/// For a site without a database, whose control holds no lease.
const LEASE_DEFAULT: Duration = Duration::from_millis(plan::LEASE_DEFAULT_MS);

/// A file of this name in a control server's own folder: this server began the site, and begins the cluster without
/// waiting for others. It is lost with the log, so that a server with an empty disk never begins a second one.
pub const BEGINS_ALONE: &str = "begins-alone";

/// How long handing over leadership may take before this server ends.
const HAND_OVER: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the agent gave no socket to listen on")]
    NoSocket,
    #[error("{} is missing beside a log: this folder was damaged; move it away, and start again", .0.display())]
    NoNode(PathBuf),
    #[error(transparent)]
    Identity(#[from] link::api::AuthorityError),
    #[error("{0}")]
    Journal(String),
    #[error("raft ended: {0}")]
    Raft(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<journal::JournalError> for Error {
    fn from(error: journal::JournalError) -> Self {
        Error::Journal(error.to_string())
    }
}

/// Serves until the agent says stop.
pub fn run(start: Start) -> Result<(), Error> {
    // Openraft reserves large queues of which it uses a few pages; huge pages would make all of them resident.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages stay on: {error}");
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(start))
}

async fn serve(mut start: Start) -> Result<(), Error> {
    let identity = Identity::given(&start.secrets)?;
    let identity = identity.welcoming(identity.guests())?;
    start.line.renews(&identity);
    let listener = start.sockets.tcp(LISTEN).pop().ok_or(Error::NoSocket)?;
    let peers = Arc::new(Peers::new(identity.clone(), &start.plan));
    let known = Arc::clone(&peers);
    start.line.heeds(move |given| known.follow(&given.plan));
    let lease = start.plan.database.as_ref().map_or(Lease::of(LEASE_DEFAULT), Database::lease);
    let timing = Timing::for_lease(lease);
    let core = Arc::new(Core::open(&start.folder, &start.me.name, peers, timing).await?);
    let danger = timing.check(lease, core.sync).err();
    if let Some(because) = &danger {
        tracing::warn!("{because}");
    }
    let line = start.line.clone();
    // Others must reach it before it can be of use, so it is admitted while it still waits for them.
    line.report(State::Unhealthy, "waits for the other control servers");
    tokio::select! {
        () = line.admitted() => {}
        _ = line.stopped() => return Ok(()),
    }
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let site = start.plan.site.clone();
    let heeding = tokio::spawn(serve::heed_revoked(Arc::clone(&core), identity.clone(), site.clone()));
    let door = Door { listener, identity, site };
    let serving = tokio::spawn(serve::serve(door, Arc::clone(&core)));
    let say = |state, because: String| {
        let state = if state == State::Starting { State::Unhealthy } else { state };
        // It goes on all the same: whoever reads the status must see what could happen.
        let danger = danger.as_ref().map(|danger| format!("; {danger}")).unwrap_or_default();
        line.report(state, because + &danger);
        line.count(counters(&core));
    };
    tokio::select! {
        because = keeper::keep(&core, say) => return Err(Error::Raft(because)),
        _ = line.stopped() => {}
    }
    line.report(State::Draining, "hands its leadership over");
    hand_over(&core).await;
    serving.abort();
    heeding.abort();
    core.raft.shutdown().await.map_err(|error| Error::Raft(error.to_string()))
}

fn counters(core: &Core) -> BTreeMap<String, u64> {
    let report = core.members();
    let votes = report.members.iter().filter(|member| member.votes).count() as u64;
    let counters = [
        ("term", report.term),
        ("log", report.log),
        ("applied", report.applied),
        ("members", report.members.len() as u64),
        ("voters", votes),
        ("sync_us", core.sync.as_micros() as u64),
    ];
    counters.map(|(name, value)| (name.to_owned(), value)).into()
}

/// A leader that ends makes another voter the leader first, so that nobody waits for an election.
async fn hand_over(core: &Core) {
    let report = core.members();
    let others = report.members.iter().filter(|member| member.votes && member.node != core.node);
    let Some(next) = others.max_by_key(|member| member.log).filter(|_| core.is_leader()) else { return };
    let handed = async {
        core.raft.trigger().transfer_leader(next.node).await?;
        let mut metrics = core.raft.metrics();
        while metrics.borrow_watched().current_leader == Some(core.node) && metrics.changed().await.is_ok() {}
        Ok::<(), openraft::errors::Fatal<types::Types>>(())
    };
    match tokio::time::timeout(HAND_OVER, handed).await {
        Ok(Ok(())) => tracing::info!("{} leads now", next.server),
        Ok(Err(error)) => tracing::warn!("cannot hand over to {}: {error}", next.server),
        Err(_) => tracing::warn!("{} does not take over in time", next.server),
    }
}
