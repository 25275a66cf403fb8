//! The access log: one line for each request, written off the hot path.
//!
//! A thread that serves appends the line to a buffer of its own and goes on; one other thread, the writer, takes
//! what the buffers hold once a second, or sooner when one is half full of what it takes in one write, and writes it
//! to the file. Serving costs no system call for a request and never waits for a disk: when the writer falls behind,
//! lines are dropped, counted, and the log itself says how many.
//!
//! A reload may turn it on or off, or move it, while requests are served: each line is in the words of the file that
//! it goes to.
//!
//! What a client wrote is escaped, and Authorization and cookies are never in it.

mod escape;
mod file;
mod line;
mod stamp;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use plan::LogFormat;

use stamp::Stamp;

pub(crate) use line::Entry;

/// What waits for the writer in one thread's buffer at most; more is dropped.
const BUFFER_BYTES: usize = 1024 * 1024;

/// When a buffer holds so much, the writer is woken before its time.
const WRITE_BYTES: usize = 64 * 1024;

/// How long the end of a server waits for its last lines to be written: a disk that hangs must not keep it.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// The writer has its buffers on the heap.
const STACK_BYTES: usize = 128 * 1024;

/// The file's name in the server's folder, where the plan names no path.
const NAME: &str = "access.log";

/// See the head of this file. Clones write to the same file.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    server: String,
    /// The server's own folder.
    folder: PathBuf,
    /// Whether there is a log at all: looked at for each request, before a line is thought of.
    is_on: AtomicBool,
    /// What a reload wants, until the writer has seen it.
    wanted: Mutex<Option<Wanted>>,
    threads: Vec<Mutex<Waiting>>,
    writer: Thread,
    done: Mutex<Receiver<()>>,
    state: Arc<State>,
}

/// What the writer and the others know of each other.
#[derive(Debug, Default)]
struct State {
    ending: AtomicBool,
    /// Lines that were written, and those that were not: for want of room here, or because the file took none.
    written: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
}

/// Where lines go from now on, and in which words; nowhere without a file.
#[derive(Debug, Default)]
struct Wanted {
    format: Option<LogFormat>,
    file: Option<file::LogFile>,
}

impl Wanted {
    fn of(planned: &plan::AccessLog, folder: &Path) -> Self {
        let path = planned.path.clone().unwrap_or_else(|| folder.join(NAME));
        let rotation = file::Rotation { bytes: planned.file_bytes, files: planned.files };
        Self { format: Some(planned.format), file: Some(file::LogFile::new(path, rotation)) }
    }
}

/// What one thread has for the writer.
#[derive(Debug, Default)]
struct Waiting {
    /// None while there is no log.
    format: Option<LogFormat>,
    lines: Vec<u8>,
    dropped: u64,
    stamp: Stamp,
}

impl AccessLog {
    /// Starts the writer. A file that cannot be opened is no error: it is said in the server's log, and tried again.
    /// `server` is the name in each line, `folder` its own folder.
    pub fn begin(
        planned: Option<&plan::AccessLog>,
        server: &str,
        folder: &Path,
        threads: usize,
    ) -> io::Result<Self> {
        let first = planned.map(|planned| Wanted::of(planned, folder)).unwrap_or_default();
        let format = first.format;
        let (done_sender, done) = std::sync::mpsc::channel();
        let (shared_sender, shared) = std::sync::mpsc::channel::<Arc<Shared>>();
        let writer = std::thread::Builder::new().name("access-log".into()).stack_size(STACK_BYTES).spawn(
            move || {
                if let Ok(shared) = shared.recv() {
                    writer::run(&shared, first);
                }
                // Nobody need wait for the end.
                let _ = done_sender.send(());
            },
        )?;
        let log = Self(Arc::new(Shared {
            server: server.to_owned(),
            folder: folder.to_owned(),
            is_on: AtomicBool::new(planned.is_some()),
            wanted: Mutex::default(),
            // Those who begin to serve need not wait for the writer.
            threads: (0..threads).map(|_| Mutex::new(Waiting { format, ..Waiting::default() })).collect(),
            writer: writer.thread().clone(),
            done: Mutex::new(done),
            state: Arc::default(),
        }));
        shared_sender
            .send(Arc::clone(&log.0))
            .map_err(|_| io::Error::other("the access log's thread ended"))?;
        Ok(log)
    }

    /// Goes by another plan from now on. What was noted before is written as it was meant.
    pub fn follow(&self, planned: Option<&plan::AccessLog>) {
        let wanted = planned.map(|planned| Wanted::of(planned, &self.0.folder)).unwrap_or_default();
        let is_on = wanted.format.is_some();
        *self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        if is_on {
            self.0.is_on.store(true, Ordering::Relaxed);
        }
        self.0.writer.unpark();
    }

    /// Whether lines are wanted.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::Relaxed)
    }

    /// Counts by name, as they are published.
    pub fn totals(&self) -> BTreeMap<String, u64> {
        let state = &self.0.state;
        let counts = [
            ("access_log_lines", &state.written),
            ("access_log_dropped", &state.dropped),
            ("access_log_failures", &state.failures),
        ];
        counts.into_iter().map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed))).collect()
    }

    /// Writes what is left, after the threads that serve have ended.
    pub fn finish(&self) {
        self.0.state.ending.store(true, Ordering::SeqCst);
        self.0.writer.unpark();
        let done = self.0.done.lock().unwrap_or_else(PoisonError::into_inner);
        if done.recv_timeout(FINISH_WITHIN).is_err() {
            tracing::warn!("the last lines of the access log were not written within {FINISH_WITHIN:?}");
        }
    }

    /// Appends the line of one exchange to this thread's buffer.
    pub(crate) fn note(&self, thread: usize, entry: &Entry<'_>) {
        let Some(waiting) = self.0.threads.get(thread) else { return };
        let mut waiting = locked(waiting);
        let Some(format) = waiting.format else { return };
        let before = waiting.lines.len();
        if before >= BUFFER_BYTES {
            waiting.dropped += 1;
            return;
        }
        let Waiting { lines, stamp, .. } = &mut *waiting;
        line::write(format, lines, &self.0.server, entry, stamp);
        let after = lines.len();
        drop(waiting);
        // The first line begins the writer's second, and enough of them end it.
        if before == 0 || before < WRITE_BYTES && after >= WRITE_BYTES {
            self.0.writer.unpark();
        }
    }
}

fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
