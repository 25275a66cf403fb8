//! The one thread that writes the log. It alone may wait for a disk.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use plan::LogFormat;

use super::file::LogFile;
use super::line::write_dropped;
use super::stamp::Stamp;
use super::{BUFFER_BYTES, Shared, WRITE_BYTES, Waiting, Wanted, locked};

/// How old a line may become before it is written.
const WITHIN: Duration = Duration::from_secs(1);

/// Writes until the end is asked for and nothing is left.
pub(super) fn run(shared: &Shared, first: Wanted) {
    let (format, stamp) = (first.format.unwrap_or(LogFormat::Combined), Stamp::default());
    let mut writer = Writer { shared, file: first.file, format, missing: 0, stamp, is_failing: false };
    let mut lines = Vec::new();
    loop {
        // Read first: what came before the end was asked for is seen below.
        let ending = shared.state.ending.load(Ordering::SeqCst);
        let wanted = shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(wanted) = wanted {
            writer.follow(wanted, &mut lines);
        }
        let waiting = shared.most_waiting();
        if waiting > 0 {
            if !ending {
                gather(shared);
            }
            for thread in 0..shared.threads.len() {
                let dropped = shared.take(thread, &mut lines, |_| ());
                writer.miss(dropped);
                writer.write(&lines);
            }
        } else if ending {
            return;
        } else {
            thread::park();
        }
    }
}

/// Waits until there is enough for one write, or the first line has waited long enough.
fn gather(shared: &Shared) {
    let until = Instant::now() + WITHIN;
    while !shared.state.ending.load(Ordering::SeqCst) && shared.most_waiting() < WRITE_BYTES {
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => thread::park_timeout(left),
            _ => return,
        }
    }
}

impl Shared {
    /// How much the fullest buffer holds.
    fn most_waiting(&self) -> usize {
        self.threads.iter().map(|waiting| locked(waiting).lines.len()).max().unwrap_or(0)
    }

    /// Exchanges the lines of one thread for an empty buffer, and says how many it had to drop. `then`: what is changed
    /// before its next line.
    fn take(&self, thread: usize, lines: &mut Vec<u8>, then: impl FnOnce(&mut Waiting)) -> u64 {
        lines.clear();
        // A burst does not keep its memory for ever.
        lines.shrink_to(2 * WRITE_BYTES);
        let mut waiting = locked(&self.threads[thread]);
        std::mem::swap(&mut waiting.lines, lines);
        then(&mut waiting);
        std::mem::take(&mut waiting.dropped)
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    /// None while there is no log.
    file: Option<LogFile>,
    format: LogFormat,
    /// Lines that are not in the log, and of which the log does not say so yet.
    missing: u64,
    stamp: Stamp,
    is_failing: bool,
}

impl Writer<'_> {
    /// Writes what was noted for the file until now, thread by thread, each of which goes by the new format from its next
    /// line on; those lines are written by nobody but us, and so after the file is exchanged.
    fn follow(&mut self, wanted: Wanted, lines: &mut Vec<u8>) {
        let path = |file: &Option<LogFile>| file.as_ref().map(|file| file.path().to_owned());
        let (old, new) = (path(&self.file), path(&wanted.file));
        for thread in 0..self.shared.threads.len() {
            let dropped = self.shared.take(thread, lines, |waiting| waiting.format = wanted.format);
            self.miss(dropped);
            self.write(lines);
        }
        match (&old, &new) {
            (Some(old), Some(new)) if old != new => {
                tracing::info!("the access log goes to {} instead of {}", new.display(), old.display());
            }
            (Some(old), None) => tracing::info!("no more requests are logged in {}", old.display()),
            (None, Some(new)) => tracing::debug!("requests are logged in {}", new.display()),
            (Some(_), Some(_)) | (None, None) => {}
        }
        (self.file, self.is_failing) = (wanted.file, false);
        self.format = wanted.format.unwrap_or(self.format);
        if self.file.is_none() {
            self.missing = 0;
            self.shared.is_on.store(false, Ordering::Relaxed);
            // A change that turned it on again meanwhile is in the way already.
            if self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                self.shared.is_on.store(true, Ordering::Relaxed);
            }
        }
    }

    fn write(&mut self, lines: &[u8]) {
        let state = &self.shared.state;
        let total = count(lines);
        let Some(file) = self.file.as_mut().filter(|_| !lines.is_empty()) else { return };
        let result = file.write(lines);
        match result {
            Ok(()) => {
                state.written.fetch_add(total, Ordering::Relaxed);
                self.works();
            }
            Err(failed) => {
                let written = count(&lines[..failed.written]);
                state.written.fetch_add(written, Ordering::Relaxed);
                state.failures.fetch_add(1, Ordering::Relaxed);
                self.miss(total - written);
                if !self.is_failing {
                    self.is_failing = true;
                    let path = self.file.as_ref().map(|file| file.path().display().to_string());
                    let (path, error) = (path.unwrap_or_default(), &failed.error);
                    tracing::warn!(
                        "the access log {path} cannot be written: {error}; requests are served without it"
                    );
                }
            }
        }
    }

    fn miss(&mut self, lines: u64) {
        self.missing += lines;
        self.shared.state.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// The file takes lines: it is told of those that it lacks.
    fn works(&mut self) {
        let Some(file) = &mut self.file else { return };
        if self.is_failing {
            self.is_failing = false;
            tracing::info!("the access log {} is written again", file.path().display());
        }
        if self.missing > 0 {
            let mut note = Vec::new();
            write_dropped(self.format, &mut note, self.missing, &mut self.stamp);
            if file.write(&note).is_ok() {
                self.missing = 0;
            }
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

const _: () = assert!(WRITE_BYTES < BUFFER_BYTES);
