//! The lease at work: one thread that renews it and nothing else, so that no long action of the manager can
//! delay a renewal, and the page through which the guard knows the deadline.
//!
//! It proves that PostgreSQL can commit by a commit of its own every second (synchronous_commit off for it: it
//! tells whether this server works, not whether a replica does). What it must never do: move a deadline for a
//! renewal whose answer did not come.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use link::control::{Control, since_boot};

use crate::failover::HeldLease;
use crate::failover::lease::{Holding, Renewal, Timings, renewal};
use crate::folder::Folder;
use crate::group::Lsn;
use crate::guard::Page;
use crate::inherit::Lease;
use crate::record::{ProposeError, View};
use crate::session::Session;

/// How often a commit proves that PostgreSQL works.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long one such commit may take; the next is tried then.
const COMMIT: Duration = Duration::from_secs(2);

/// A renewal that lost a race is proposed again at once, this many times.
const RACES: usize = 5;

/// Makes the way to control, on the runtime that will use it.
pub type Reach = dyn Fn() -> Result<Arc<dyn Control>, String> + Send + Sync;

/// Shared by the manager and the thread.
pub(crate) struct Holder {
    state: Mutex<State>,
    changed: Condvar,
    timings: Timings,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// Given up for good: never had again for this epoch or an older one.
    latched: u64,
    heartbeat_at: Duration,
    written: Option<Lsn>,
    /// Why the lease ended or is not renewed.
    because: Option<String>,
    /// The last renewal had no answer.
    unanswered: bool,
}

struct Held {
    epoch: u64,
    fence_at: Duration,
    /// The guard of the postgres that runs under this lease, once that is promoted.
    page: Option<Arc<Page>>,
}

impl Holder {
    pub(crate) fn new(timings: Timings) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), timings })
    }

    /// Our take-over, sent at that moment, was accepted.
    pub(crate) fn begin(&self, epoch: u64, sent: Duration) {
        let mut state = self.lock();
        if state.latched < epoch {
            let fence_at = self.timings.fence_at(sent);
            state.held = Some(Held { epoch, fence_at, page: None });
            state.heartbeat_at = since_boot();
            (state.because, state.unanswered) = (None, false);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// From now on the guard with this page ends postgres when the lease does. False: there is no lease.
    pub(crate) fn bind(&self, epoch: u64, page: Arc<Page>) -> bool {
        let mut state = self.lock();
        let Some(held) = state.held.as_mut().filter(|held| held.epoch == epoch) else { return false };
        page.set_deadline_ns(nanoseconds(held.fence_at));
        held.page = Some(page);
        true
    }

    /// The lease of an earlier life of this process, which counts from when that took or renewed it.
    pub(crate) fn resume(&self, lease: Lease, page: Option<Arc<Page>>) {
        let mut state = self.lock();
        let page = page.filter(|_| lease.bound);
        state.held = Some(Held { epoch: lease.epoch, fence_at: lease.fence_at, page });
        state.heartbeat_at = since_boot();
        drop(state);
        self.changed.notify_all();
    }

    /// For [`Holder::resume`].
    pub(crate) fn legacy(&self) -> Option<Lease> {
        let state = self.lock();
        let held = state.held.as_ref()?;
        Some(Lease { epoch: held.epoch, fence_at: held.fence_at, bound: held.page.is_some() })
    }

    /// For good. Whoever has been bound keeps its deadline, which is not moved any more.
    pub(crate) fn give_up(&self) {
        let mut state = self.lock();
        if let Some(held) = state.held.take() {
            state.latched = held.epoch;
        }
    }

    pub(crate) fn lease(&self) -> Option<HeldLease> {
        let state = self.lock();
        let held = state.held.as_ref()?;
        Some(HeldLease { epoch: held.epoch, left: held.fence_at.saturating_sub(since_boot()) })
    }

    /// Whether control answered the last renewal.
    pub(crate) fn in_touch(&self) -> bool {
        !self.lock().unanswered
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Until this process has a lease; the thread sleeps here on a replica.
    fn until_held(&self) {
        let mut state = self.lock();
        while state.held.is_none() {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn epoch(&self) -> Option<u64> {
        self.lock().held.as_ref().map(|held| held.epoch)
    }

    fn renewed(&self, epoch: u64, sent: Duration) {
        let mut state = self.lock();
        (state.because, state.unanswered) = (None, false);
        if let Some(held) = state.held.as_mut().filter(|held| held.epoch == epoch) {
            held.fence_at = held.fence_at.max(self.timings.fence_at(sent));
            if let Some(page) = &held.page {
                page.set_deadline_ns(nanoseconds(held.fence_at));
            }
        }
    }

    /// The lease is over: the guard need not wait for the deadline.
    fn over(&self, epoch: u64, because: String) {
        let mut state = self.lock();
        if let Some(held) = state.held.take_if(|held| held.epoch == epoch) {
            tracing::warn!("the lease of epoch {epoch} is over: {because}");
            if let Some(page) = &held.page {
                page.set_deadline_ns(0);
            }
            state.latched = epoch;
            state.because = Some(because);
        }
    }

    fn withheld(&self, because: String) {
        let mut state = self.lock();
        if state.because.as_ref() != Some(&because) {
            tracing::warn!("the lease is not renewed: {because}");
        }
        state.because = Some(because);
    }
}

fn nanoseconds(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

/// What the thread needs besides.
pub(crate) struct Tenant {
    pub(crate) me: String,
    pub(crate) boot: String,
    pub(crate) folder: Folder,
    pub(crate) port: u16,
}

/// Starts the thread.
pub(crate) fn keep(holder: Arc<Holder>, tenant: Tenant, reach: Arc<Reach>) -> std::io::Result<()> {
    let work = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!("the lease cannot be renewed: {error}"),
        };
        loop {
            holder.until_held();
            runtime.block_on(hold(&holder, &tenant, &*reach));
        }
    };
    std::thread::Builder::new().name("lease".into()).stack_size(512 * 1024).spawn(work).map(drop)
}

/// As long as there is a lease.
async fn hold(holder: &Arc<Holder>, tenant: &Tenant, reach: &Reach) {
    let control = match reach() {
        Ok(control) => control,
        Err(error) => {
            holder.withheld(format!("control cannot be reached: {error}"));
            tokio::time::sleep(holder.timings.renew).await;
            return;
        }
    };
    let mut view = View::new(control);
    let proof = tokio::spawn(prove(Arc::clone(holder), tenant.folder.clone(), tenant.port));
    let mut pace = tokio::time::interval(holder.timings.renew);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while let Some(epoch) = holder.epoch() {
        pace.tick().await;
        view.refresh().await;
        renew(holder, tenant, &mut view, epoch).await;
    }
    proof.abort();
}

async fn renew(holder: &Holder, tenant: &Tenant, view: &mut View, epoch: u64) {
    for _ in 0..RACES {
        let (Some(lease), Some(group)) = (holder.lease(), view.group()) else { return };
        let now = since_boot();
        let (heartbeat_age, written) = {
            let state = holder.lock();
            (now.saturating_sub(state.heartbeat_at), state.written)
        };
        let (me, boot) = (&tenant.me[..], &tenant.boot[..]);
        let holding = Holding { me, boot, group, epoch, left: lease.left, heartbeat_age, written };
        let command = match renewal(&holding) {
            Renewal::Propose(command) => command,
            Renewal::Withhold(because) => return holder.withheld(because),
            Renewal::Over(because) => return holder.over(epoch, because),
        };
        let sent = since_boot();
        match view.propose_within(&command, holder.timings.answer_limit()).await {
            Ok(()) => return holder.renewed(epoch, sent),
            Err(ProposeError::Control(link::control::ControlError::Changed(_))) => {}
            Err(ProposeError::Refused(refusal)) => return holder.over(epoch, refusal.to_string()),
            Err(error) => {
                tracing::warn!("the lease was not renewed: {error}");
                holder.lock().unanswered = true;
                return;
            }
        }
    }
}

/// Commits over and over. A session that failed is dropped, the next one begins with a clean connection.
async fn prove(holder: Arc<Holder>, folder: Folder, port: u16) {
    let mut session = None;
    loop {
        if session.is_none() {
            session = Session::open(&folder, port, COMMIT).await.ok();
        }
        if let Some(open) = &session {
            match commit(open).await {
                Ok(Some(written)) => {
                    let mut state = holder.lock();
                    state.heartbeat_at = since_boot();
                    state.written = Some(written);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!("no proof of life: {error}");
                    session = None;
                }
            }
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// None while it cannot commit yet because it is a standby, or because the table is not there.
async fn commit(session: &Session) -> Result<Option<Lsn>, crate::session::SessionError> {
    let ready = "SELECT NOT pg_is_in_recovery() AND to_regclass('dolmen.heartbeat') IS NOT NULL";
    if !session.ask(session.client.query_one(ready, &[])).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let beat = "UPDATE dolmen.heartbeat SET at = clock_timestamp()";
    session.ask(session.client.execute(beat, &[])).await?;
    let end = "SELECT pg_current_wal_flush_lsn()::text";
    let row = session.ask(session.client.query_one(end, &[])).await?;
    Ok(row.get::<_, String>(0).parse().ok())
}
