//! Threads, listeners and the end: one thread for each listening socket, each with a runtime of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::clock::TICK;
use crate::connection::{self, Exchanges};
use crate::counters::Counters;
use crate::exchange::Handler;
use crate::limits::{RETIRING_IDLE_MS, Settings};
use crate::ring;
use crate::stream::{Driver, Stream};
use crate::thread::Thread;

/// How long a thread waits after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that are taken from the backlog at the end, so that none that was made is left without an answer.
const LAST_ACCEPTS: usize = 4096;

/// Tells all threads to end. Clones tell the same threads.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<Option<Leave>>);

/// How a thread is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leave {
    within: Duration,
    /// Whether a successor takes what waits in the backlog, and what idle clients ask next.
    succeeded: bool,
}

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Stop {
    /// Nothing new is taken; what is under way may go on for this long.
    pub fn drain(&self, within: Duration) {
        self.0.send_replace(Some(Leave { within, succeeded: false }));
    }

    /// The same where a successor accepts on the same sockets: idle connections are not cut off, since their next
    /// request may be on its way, but told to come back with the answer to it.
    pub fn retire(&self, within: Duration) {
        self.0.send_replace(Some(Leave { within, succeeded: true }));
    }
}

/// The running threads.
#[derive(Debug)]
pub struct Serving {
    threads: Vec<JoinHandle<()>>,
    counters: Counters,
    access_log: Option<AccessLog>,
}

impl Serving {
    /// What was counted so far, by name, as it is published.
    pub fn totals(&self) -> BTreeMap<String, u64> {
        let mut totals = self.counters.totals();
        totals.extend(self.access_log.as_ref().map(AccessLog::totals).unwrap_or_default());
        totals
    }

    /// Whether a thread has ended without being told to.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Lets a successor on the same sockets take over, see [`Stop::retire`], and waits until all threads have ended.
    /// When `hurried` gives a time, that is the time that is left.
    pub async fn retire(self, stop: &Stop, within: Duration, hurried: impl Future<Output = Duration>) {
        stop.retire(within);
        let ended = tokio::task::spawn_blocking(move || self.wait());
        tokio::pin!(ended);
        tokio::select! {
            _ = &mut ended => return,
            within = hurried => stop.drain(within),
        }
        if let Err(error) = ended.await {
            tracing::error!("the end of the engine cannot be waited for: {error}");
        }
    }

    /// Waits until all threads have ended, which they do after [`Stop::drain`].
    pub fn wait(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine ended in a panic");
            }
        }
        if let Some(log) = self.access_log {
            log.finish();
        }
    }
}

/// Serves each listener on a thread of its own until `stop` says otherwise. `handler` is called once on each
/// thread, so what it makes need not be shared.
pub fn serve<H, F>(
    listeners: Vec<TcpListener>,
    settings: Settings,
    stop: Stop,
    handler: F,
) -> io::Result<Serving>
where
    H: Handler,
    F: Fn(usize) -> H + Send + Clone + 'static,
{
    let counters = Counters::new(listeners.len());
    let mut threads = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        listener.set_nonblocking(true)?;
        let thread_counters = counters.clone();
        let (settings, handler, orders) = (settings.clone(), handler.clone(), stop.0.subscribe());
        let seed = random_seed()?;
        // The runtime is made here, so that what it lacks is an error of the caller's.
        let run = move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .on_thread_park(ring::before_park)
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(async move {
                    let thread = Rc::new(Thread::new(index, settings, thread_counters, seed));
                    run(thread, listener, Rc::new(connection::exchanges(handler(index))), orders).await;
                }),
                Err(error) => tracing::error!("cannot make a runtime: {error}"),
            }
            ring::end();
        };
        threads.push(std::thread::Builder::new().name(format!("relay-{index}")).spawn(run)?);
    }
    Ok(Serving { threads, counters, access_log: settings.access_log })
}

fn random_seed() -> io::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let number = u128::from_ne_bytes(bytes);
    Ok([(number >> 64) as u64, number as u64])
}

/// The life of one thread: accept until told to end, then let connections finish.
async fn run(
    thread: Rc<Thread>,
    listener: TcpListener,
    exchanges: Rc<impl Exchanges>,
    mut orders: watch::Receiver<Option<Leave>>,
) {
    if !admitted(&thread, &mut orders).await {
        return;
    }
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot listen: {error}"),
    };
    if let Driver::Ring(ring) = &thread.driver {
        tokio::task::spawn_local(Rc::clone(ring).attend());
    }
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let leave = loop {
        // Of all threads: one that has none may take what the others leave. Each looks for itself, so that a few more
        // may come in at one moment.
        let free = thread.counters().open() < thread.connections() as u64;
        tokio::select! {
            accepted = listener.accept(), if free => admit(&thread, &exchanges, accepted).await,
            _ = ticks.tick(), if !free || thread.has_work() => thread.turn(),
            changed = orders.changed() => {
                let order = *orders.borrow_and_update();
                if let Some(leave) = order {
                    break leave;
                } else if changed.is_err() {
                    break Leave { within: Duration::ZERO, succeeded: false };
                }
            }
        }
    };
    if !leave.succeeded {
        take_last(&thread, &exchanges, &listener).await;
    }
    drop(listener);
    drain(&thread, leave, orders, ticks).await;
}

/// Waits until the listener takes connections; false when the end comes first.
async fn admitted(thread: &Thread, orders: &mut watch::Receiver<Option<Leave>>) -> bool {
    let Some(mut admission) = thread.settings.admission.clone() else { return true };
    tokio::select! {
        admitted = admission.wait_for(|admitted| *admitted) => admitted.is_ok(),
        _ = orders.wait_for(Option::is_some) => false,
    }
}

async fn admit(
    thread: &Rc<Thread>,
    exchanges: &Rc<impl Exchanges>,
    accepted: io::Result<(tokio::net::TcpStream, std::net::SocketAddr)>,
) {
    let stream = |stream| match &thread.settings.inner {
        Some(_) => Stream::unopened(stream),
        None => Stream::new(stream, &thread.driver),
    };
    match accepted.and_then(|(tcp, address)| Ok((stream(tcp)?, address))) {
        Ok((stream, address)) => {
            // A thread without connections has let its clock stand.
            thread.clock.refresh();
            thread.retune();
            connection::spawn(Rc::clone(thread), Rc::clone(exchanges), stream, address);
        }
        Err(error) if is_of_the_connection(&error) => {
            tracing::debug!("a connection was gone at once: {error}")
        }
        // The listener was told to refuse, as it is before an end.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => tokio::time::sleep(ACCEPT_PAUSE).await,
        Err(error) => {
            tracing::warn!("cannot accept a connection: {error}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Errors that concern one connection and not the listener (accept(2)).
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | NotConnected)
}

/// Takes what waits in the backlog: those clients believe that they are connected.
async fn take_last(thread: &Rc<Thread>, exchanges: &Rc<impl Exchanges>, listener: &tokio::net::TcpListener) {
    for _ in 0..LAST_ACCEPTS {
        let next = std::future::poll_fn(|context| match listener.poll_accept(context) {
            std::task::Poll::Ready(Ok(accepted)) => std::task::Poll::Ready(Some(accepted)),
            _ => std::task::Poll::Ready(None),
        });
        let Some(accepted) = next.await else { return };
        admit(thread, exchanges, Ok(accepted)).await;
    }
}

/// Waits for the connections to end, at most for the time given. Idle ones end at once, or after a while where a
/// successor serves; the others after their answer. The order may become a stricter one meanwhile.
async fn drain(
    thread: &Rc<Thread>,
    leave: Leave,
    mut orders: watch::Receiver<Option<Leave>>,
    mut ticks: tokio::time::Interval,
) {
    let mut end = begin_to_leave(thread, leave);
    // New connections get one turn to be read before they count as idle.
    thread.give_way().await;
    thread.turn();
    while thread.counts().open.get() > 0 && tokio::time::Instant::now() < end {
        tokio::select! {
            _ = ticks.tick() => thread.turn(),
            () = tokio::time::sleep_until(end) => {}
            Ok(()) = orders.changed() => {
                if let Some(leave) = *orders.borrow_and_update() {
                    end = begin_to_leave(thread, leave).min(end);
                }
            }
        }
    }
    let left = thread.counts().open.get();
    if left > 0 {
        tracing::info!("{left} connections did not finish in time and were closed");
    }
}

/// Says when it is to be over.
fn begin_to_leave(thread: &Thread, leave: Leave) -> tokio::time::Instant {
    thread.draining.set(true);
    thread.idle_grace_ms.set(if leave.succeeded { RETIRING_IDLE_MS } else { 0 });
    thread.pool.clear();
    tokio::time::Instant::now() + leave.within
}
