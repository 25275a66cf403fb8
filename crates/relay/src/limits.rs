//! Every limit of the engine, in one place. None may be without a bound: what a client sends decides how much
//! we work, so each step has a size or a time at which we stop.

use std::sync::Arc;

use plan::{Network, Timeouts};
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::alarm::Alarm;
use crate::page::Pages;
use crate::secure::Inner;

/// What a server wants of the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub io: Io,
    /// Becomes true when the listeners take connections. None: they do.
    pub admission: Option<watch::Receiver<bool>>,
    /// Connections from these begin with the PROXY protocol, and no others do.
    pub proxies: Arc<[Network]>,
    /// Rung when requests that wait for a target should ask whether to go on waiting.
    pub alarm: Alarm,
    pub access_log: Option<AccessLog>,
    /// What a client sees of errors.
    pub pages: Arc<Pages>,
    /// Where the site's own servers come, and show who they are. None: everybody comes, without TLS.
    pub inner: Option<Inner>,
    /// What may change while the engine serves. None: it does not.
    pub tuned: Option<watch::Receiver<Tuning>>,
}

/// The part of the settings that may change while the engine serves. A step that is under way keeps its time-out.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub timeouts: Timeouts,
    /// See [`Limits::connections`].
    pub connections: usize,
    /// See [`Settings::proxies`].
    pub proxies: Arc<[Network]>,
    /// See [`Settings::pages`].
    pub pages: Arc<Pages>,
}

impl Settings {
    pub fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            limits: Limits::default(),
            io: Io::wanted(),
            admission: None,
            proxies: Arc::default(),
            alarm: Alarm::default(),
            access_log: None,
            pages: Arc::default(),
            inner: None,
            tuned: None,
        }
    }

    /// Follows the values of this channel from now on.
    pub fn tuned(self, tuned: watch::Receiver<Tuning>) -> Self {
        Self { tuned: Some(tuned), ..self }
    }

    pub(crate) fn tuning(&self) -> Tuning {
        match &self.tuned {
            Some(tuned) => tuned.borrow().clone(),
            None => Tuning {
                timeouts: self.timeouts,
                connections: self.limits.connections,
                proxies: Arc::clone(&self.proxies),
                pages: Arc::clone(&self.pages),
            },
        }
    }

    /// Accepts only once this is true. An event loop that saw a listener while it was closed takes it for closed
    /// ever after, so one that somebody else opens later must not be registered before.
    pub fn admitted(self, admission: watch::Receiver<bool>) -> Self {
        Self { admission: Some(admission), ..self }
    }

    pub fn alarmed(self, alarm: Alarm) -> Self {
        Self { alarm, ..self }
    }

    /// Takes what the site's own servers send in TLS.
    pub fn within(self, inner: Option<Inner>) -> Self {
        Self { inner, ..self }
    }

    pub fn logged(self, access_log: Option<AccessLog>) -> Self {
        Self { access_log, ..self }
    }
}

/// How connections are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    Epoll,
    /// io_uring where the kernel allows it, and epoll elsewhere.
    Uring,
}

impl Io {
    /// What the environment asks for: `DOLMEN_IO=epoll` or `DOLMEN_IO=io_uring`.
    fn wanted() -> Self {
        match std::env::var_os("DOLMEN_IO") {
            Some(io) if io == "epoll" => Io::Epoll,
            _ => Io::Uring,
        }
    }
}

/// Sizes and counts. The defaults are those of this file's constants.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Client connections of all threads; more wait in the backlog.
    pub connections: usize,
    /// Idle connections kept to one target by one thread.
    pub idle_per_target: usize,
    /// How long an idle connection to a target is kept. Below the five seconds after which Node.js closes one,
    /// so that we rarely send on a connection that the other end is closing.
    pub pool_idle_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 50_000, idle_per_target: 256, pool_idle_ms: 4_000 }
    }
}

/// Lets this process open as many descriptors as it may. For servers that start no programs: what they start
/// would inherit it, and old programs use select(2).
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the limit of open descriptors stays as it is: {error}");
    }
}

/// What a process has open beside connections: listeners, rings, logs, checks.
const OTHER_DESCRIPTORS: usize = 64;

/// So many connections of clients, or as many as this process has descriptors for, which it then says: each may need
/// another one to a server.
pub fn connections_within_descriptors(wanted: usize) -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let Some(descriptors) = descriptors.and_then(|descriptors| usize::try_from(descriptors).ok()) else {
        return wanted;
    };
    let fitting = fitting(descriptors);
    if fitting < wanted {
        tracing::warn!(
            "only {fitting} connections at one time instead of {wanted}: this process may have {descriptors} \
             descriptors (ulimit -n, LimitNOFILE of systemd)"
        );
    }
    fitting.min(wanted)
}

/// So many connections of clients fit into so many descriptors.
fn fitting(descriptors: usize) -> usize {
    (descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2).max(1)
}

/// The longest head, of a request or an answer (RFC 6585 section 5: 431).
pub const HEAD_BYTES: usize = 64 * 1024;

/// The longest request line (RFC 9112 section 3: at least 8000; 414).
pub const REQUEST_LINE_BYTES: usize = 16 * 1024;

/// The most header fields of one head.
pub const FIELDS: usize = 128;

/// The longest line that announces a chunk, with its extensions.
pub const CHUNK_LINE_BYTES: usize = 256;

/// The longest trailer section.
pub const TRAILER_BYTES: usize = 8 * 1024;

/// Empty lines that may stand before a request (RFC 9112 section 2.2).
pub const LEADING_EMPTY_LINES: usize = 2;

/// Interim answers (1xx) that one request may have.
pub const INTERIM_ANSWERS: usize = 16;

/// The buffer that a connection reads into.
pub const BUFFER_BYTES: usize = 16 * 1024 + COLOUR_BYTES;

/// What keeps the size of a buffer from being a round one: the beginnings of all buffers, which are what is used most,
/// would share a few sets of the processor's caches and drive each other out.
pub const COLOUR_BYTES: usize = 21 * 64;

/// The buffer that replaces it when a head does not fit.
pub const LARGE_BUFFER_BYTES: usize = HEAD_BYTES + 8 * 1024;

/// Free space kept before what is read, so that a head that grew by our own headers still fits before the
/// body and both leave in one write.
pub const HEADROOM_BYTES: usize = 1024;

/// Unused buffers of each size that a thread keeps at most for the next connection, until nobody has needed them for a
/// while.
pub const FREE_BUFFERS: usize = 128;

/// What is left of a body of known length from which on it is moved by splice(2). Below, setting that up costs more
/// than copying.
pub const SPLICE_FROM_BYTES: u64 = 32 * 1024;

/// What a pipe between two sockets may hold.
pub const PIPE_BYTES: usize = 256 * 1024;

/// Unused pipes that a thread keeps.
pub const FREE_PIPES: usize = 32;

/// Operations that are prepared for io_uring before they are handed over, at the latest.
pub const RING_SUBMISSIONS: u32 = 256;

/// Completions that the kernel keeps in memory shared with us; more wait in its own.
pub const RING_COMPLETIONS: u32 = 1024;

/// Buffers lent to the kernel by a thread, for what comes between two looks at the ring.
pub const RING_BUFFERS: u16 = 64;

/// Their size, headroom included. What is longer is fetched by a system call, into memory that is still in the
/// processor's cache from the last time.
pub const LENT_BYTES: usize = 8 * 1024 + COLOUR_BYTES;

/// How long a busy thread waits in io_uring before it waits in epoll. Timers of the runtime may be late by this much.
pub const RING_TICK_MS: u32 = 5;

/// How long the kernel may take to end what it has under way when a ring is closed.
pub const RING_END_MS: u32 = 500;

/// How often unused buffers are looked at, in ticks.
pub const SWEEP_TICKS: u64 = 10;

/// Unused heads that a thread keeps, and the length up to which one is worth keeping.
pub const FREE_HEADS: usize = 64;
pub const FREE_HEAD_BYTES: usize = 4 * 1024;

/// Memory of exchanges that are over, which a thread keeps for the next ones.
pub const FREE_EXCHANGES: usize = 64;

/// How long it is read and thrown away what a client sends after an answer that did not wait for it, so that the
/// client reads the answer before it sees a reset: until nothing came for so long, or this much less where the thread
/// drains, and no more after so long in all.
pub const LINGER_QUIET_MS: u64 = 5_000;
pub const LINGER_DRAINING_MS: u64 = 1_000;
pub const LINGER_MS: u64 = 30_000;

/// What of it is read before others have their turn.
pub const LINGER_SLICE_BYTES: usize = 256 * 1024;

/// How long an idle connection may wait for its next request while the thread retires: the answer then tells its
/// client to come back elsewhere. One that is quiet for longer loses nothing when it is closed.
pub const RETIRING_IDLE_MS: u64 = 10_000;

/// How long a new connection may wait with its first request while the thread drains: its client has been told
/// that it is connected.
pub const FIRST_REQUEST_GRACE_MS: u64 = 500;

/// The body of an answer of our own up to which it leaves in one write with its head.
pub const ANSWER_COPY_BYTES: usize = 32 * 1024;

/// What is sent from a file in one system call, so that one large file does not hold up a thread.
pub const FILE_SLICE_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_descriptors() {
        assert_eq!([0, 64, 150, 1024, 1 << 20].map(fitting), [1, 1, 43, 480, 524_256]);
    }
}
