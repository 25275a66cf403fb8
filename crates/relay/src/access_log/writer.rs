//! The one thread that writes the log. It alone may wait for a disk.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::file::LogFile;
use super::line::write_dropped;
use super::stamp::Stamp;
use super::{BUFFER_BYTES, Shared, WRITE_BYTES, locked};

/// How old a line may become before it is written.
const WITHIN: Duration = Duration::from_secs(1);

/// Writes until the end is asked for and nothing is left.
pub(super) fn run(shared: &Shared, file: LogFile) {
    let mut writer = Writer { shared, file, missing: 0, stamp: Stamp::default(), is_failing: false };
    let mut lines = Vec::new();
    loop {
        // Read first: what came before the end was asked for is seen below.
        let ending = shared.state.ending.load(Ordering::SeqCst);
        let waiting = shared.most_waiting();
        if waiting > 0 {
            if !ending {
                gather(shared);
            }
            for thread in 0..shared.threads.len() {
                let dropped = shared.take(thread, &mut lines);
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

    /// Exchanges the lines of one thread for an empty buffer, and says how many it had to drop.
    fn take(&self, thread: usize, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        // A burst does not keep its memory for ever.
        lines.shrink_to(2 * WRITE_BYTES);
        let mut waiting = locked(&self.threads[thread]);
        std::mem::swap(&mut waiting.lines, lines);
        std::mem::take(&mut waiting.dropped)
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    file: LogFile,
    /// Lines that are not in the log, and of which the log does not say so yet.
    missing: u64,
    stamp: Stamp,
    is_failing: bool,
}

impl Writer<'_> {
    fn write(&mut self, lines: &[u8]) {
        let state = &self.shared.state;
        let total = count(lines);
        let result = match lines {
            [] => return,
            lines => self.file.write(lines),
        };
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
                    let (path, error) = (self.file.path().display(), &failed.error);
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
        if self.is_failing {
            self.is_failing = false;
            tracing::info!("the access log {} is written again", self.file.path().display());
        }
        if self.missing > 0 {
            let mut note = Vec::new();
            write_dropped(self.shared.format, &mut note, self.missing, &mut self.stamp);
            if self.file.write(&note).is_ok() {
                self.missing = 0;
            }
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

const _: () = assert!(WRITE_BYTES < BUFFER_BYTES);
