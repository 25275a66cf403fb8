//! A server's log: one line for each event, to standard error, which the agent points at a file.
//!
//! The file belongs to the server, not to the agent, so that nobody has to drain a pipe and a server that
//! outlives its agent goes on logging. It is bounded: at [`LIMIT`] it is copied to `NAME.log.1`, over the copy
//! before, and begins anew. It is never a reason to fail: on a full disk lines are lost, and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

/// The size in bytes at which a log file is put aside; a server so keeps at most twice this.
pub const LIMIT: u64 = 16 * 1024 * 1024;

/// Opens a log file to append to, which becomes a process's standard error.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Sends this process's events to its standard error, which is the file at `path`.
/// Without a path it goes to standard error as it is: for commands, which show only what is wrong.
pub fn begin(path: Option<&Path>) {
    let written = path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |meta| meta.len());
    let bounded = Bounded(Mutex::new(Size { path: path.map(Path::to_owned), written, lost: 0 }));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(bounded)
        .with_ansi(false)
        .with_target(false)
        // It would write to standard error with a macro that panics when the disk is full.
        .log_internal_errors(false)
        .with_max_level(Level::TRACE)
        .finish()
        .with(wanted(if path.is_some() { Level::INFO } else { Level::WARN }));
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("the log was begun before");
    }
}

/// Where openraft tells of each message that got no answer, some ten times a second.
const MESSAGES: [&str; 3] =
    ["openraft::core::heartbeat", "openraft::replication", "openraft::engine::handler::replication_handler"];

/// Events up to the usual level, but of openraft, which tells every message at that level, only what is wrong; and not of
/// each message to a member that does not answer, which control says itself, once. `DOLMEN_LOG=debug` shows more of everything; what is not a level changes nothing.
fn wanted(usual: Level) -> Targets {
    let asked: Option<Level> = std::env::var("DOLMEN_LOG").ok().and_then(|text| text.parse().ok());
    let raft = asked.unwrap_or(Level::WARN);
    let messages = MESSAGES.map(|target| (target, asked.unwrap_or(Level::ERROR)));
    Targets::new().with_default(asked.unwrap_or(usual)).with_target("openraft", raft).with_targets(messages)
}

struct Bounded(Mutex<Size>);

struct Size {
    path: Option<PathBuf>,
    written: u64,
    /// Lines that could not be written since the last that was: the disk is full.
    lost: u64,
}

impl Size {
    fn write(&mut self, bytes: &[u8], to: &mut impl Write) -> io::Result<()> {
        if let Some(path) = &self.path
            && self.written + bytes.len() as u64 > LIMIT
        {
            put_aside(path)?;
            self.written = 0;
        }
        if self.lost > 0 {
            writeln!(to, "{} lines before this one could not be written", self.lost)?;
            self.lost = 0;
        }
        to.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Bounded {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a Mutex<Size>);

impl Write for Line<'_> {
    /// Never fails: a server goes on without its log, and there is nowhere else to complain.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut size = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if size.write(bytes, &mut io::stderr()).is_err() {
            size.lost += 1;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the lines before the last [`LIMIT`] bytes are kept.
pub fn aside(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

/// Copies and empties a log rather than renaming it: its writers keep it open, and its folder belongs to root, so that no server can put
/// a link to somewhere else into root's way. Without room for the copy the old lines are lost; the log stays bounded.
pub fn put_aside(path: &Path) -> io::Result<()> {
    let log = OpenOptions::new().write(true).open(path)?;
    let mut aside = OpenOptions::new().write(true).create(true).truncate(true).open(aside(path))?;
    let copied = io::copy(&mut File::open(path)?, &mut aside);
    log.set_len(0)?;
    copied.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_put_aside_at_its_limit_and_its_writer_goes_on() {
        let folder = std::env::temp_dir().join(format!("dolmen-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("web-1.log");
        let mut log = open(&path).unwrap();
        let mut size = Size { path: Some(path.clone()), written: 0, lost: 0 };
        size.write(b"old\n", &mut log).unwrap();
        size.written = LIMIT;
        size.write(b"new\n", &mut log).unwrap();
        assert_eq!(std::fs::read_to_string(aside(&path)).unwrap(), "old\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_a_full_disk_swallowed_is_counted() {
        let mut size = Size { path: None, written: 0, lost: 0 };
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(size.write(b"lost\n", &mut full).is_err());
        size.lost += 1;
        let mut text = Vec::new();
        size.write(b"next\n", &mut text).unwrap();
        assert_eq!(text, b"1 lines before this one could not be written\nnext\n");
    }
}
