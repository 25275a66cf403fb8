//! A server's log: one line for each event, to standard error, which the agent points at a file.
//!
//! The file belongs to the server, not to the agent, so that nobody has to drain a pipe and a server that
//! outlives its agent goes on logging. It is bounded: past [`LIMIT`] it is renamed to `NAME.log.1`, over the one
//! before, and a new one begins.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

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
    let bounded = Bounded(Mutex::new(Size { path: path.map(Path::to_owned), written }));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(bounded)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level(if path.is_some() { Level::INFO } else { Level::WARN }))
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("the log was begun before");
    }
}

/// `DOLMEN_LOG=debug` shows more; what is not a level changes nothing.
fn level(usual: Level) -> Level {
    std::env::var("DOLMEN_LOG").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

struct Bounded(Mutex<Size>);

struct Size {
    path: Option<PathBuf>,
    written: u64,
}

impl<'a> MakeWriter<'a> for Bounded {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a Mutex<Size>);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut size = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(path) = size.path.clone()
            && size.written + bytes.len() as u64 > LIMIT
        {
            put_aside(&path)?;
            size.written = 0;
        }
        let count = io::stderr().write(bytes)?;
        size.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn put_aside(path: &Path) -> io::Result<()> {
    std::fs::rename(path, path.with_added_extension("1"))?;
    rustix::stdio::dup2_stderr(open(path)?)?;
    Ok(())
}
