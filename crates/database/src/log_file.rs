//! The log of postgres: a file that it appends to, kept short by the manager.
//!
//! Never a pipe that somebody must drain, and no collector process that outlives its postgres.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A log that has grown to this is moved to `.1` and begun anew, so that two of them bound the space.
const LIMIT_BYTES: u64 = 8 * 1024 * 1024;

/// How much of the end is searched for the last error.
const TAIL_BYTES: u64 = 16 * 1024;

/// Opens it for a postgres that is about to start.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Puts it aside when it is too long. What is written meanwhile is lost, which is bearable for a log.
pub(crate) fn shorten(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.len() <= LIMIT_BYTES {
        return Ok(());
    }
    link::log::put_aside(path)
}

/// The last error in it that was written after the first `from` bytes, without its time stamp.
pub(crate) fn last_error(path: &Path, from: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // A file that became shorter was begun anew.
    let start = if from > length { 0 } else { from }.max(length.saturating_sub(TAIL_BYTES));
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut text = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut text).ok()?;
    worst(&String::from_utf8_lossy(&text))
}

/// Errors that only say that something went wrong; what, stands in an earlier line of another kind.
const VAGUE: [&str; 2] = ["contains errors", "could not create any TCP/IP sockets"];

/// What such an earlier line contains.
const CAUSES: [&str; 4] = ["parameter", "syntax error", "could not bind", "could not translate"];

/// The last line of the worst kind: a PANIC tells more than the messages of those whom it ended. A refusal
/// of one client (`user@database` stands before it) says nothing of the server.
fn worst(text: &str) -> Option<String> {
    let last = |mark: &str, wanted: &dyn Fn(&str, &str) -> bool| {
        text.lines().rev().find_map(|line| {
            let (before, message) = line.split_once(mark)?;
            wanted(before, message).then(|| message.trim().to_owned())
        })
    };
    let of_the_server = |before: &str, _: &str| !before.contains('@');
    let marks = ["PANIC:  ", "FATAL:  ", "ERROR:  ", "error: "];
    let message = marks.into_iter().find_map(|mark| last(mark, &of_the_server))?;
    if VAGUE.iter().any(|vague| message.contains(vague)) {
        let causes = |_: &str, message: &str| CAUSES.iter().any(|cause| message.contains(cause));
        return last("LOG:  ", &causes).or(Some(message));
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_message_is_quoted() {
        let log = "2026-11-22 22:52:12.1 UTC [7] LOG:  starting\n\
                   2026-11-22 22:52:12.1 UTC [7] PANIC:  could not write to file \"x\": No space left on device\n\
                   2026-11-22 22:52:12.2 UTC [8] app@app FATAL:  the database system is in recovery mode\n\
                   2026-11-22 22:52:12.2 UTC [9] FATAL:  could not receive data\n";
        assert_eq!(worst(log).unwrap(), "could not write to file \"x\": No space left on device");
        assert_eq!(
            worst("1 [8] app@app FATAL:  no\n1 [9] FATAL:  yes\n1 [8] a@b FATAL:  no\n").unwrap(),
            "yes"
        );
        assert_eq!(worst("LOG:  starting\n"), None);
        let log = "1 [7] LOG:  unrecognized configuration parameter \"wrk_mem\" in file \"dolmen.conf\" line 40\n\
                   1 [7] FATAL:  configuration file \"dolmen.conf\" contains errors\n";
        assert!(worst(log).unwrap().starts_with("unrecognized configuration parameter \"wrk_mem\""));
    }
}
