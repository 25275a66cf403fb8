//! The file behind the log: opened when there is something to write, put aside when it is large, opened anew when
//! somebody moved it away (as logrotate does), and never a reason to stop.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The owner writes, the group reads: a log tells who visited.
const MODE: u32 = 0o640;

/// When a file is put aside, and how many there are with the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rotation {
    pub(super) bytes: u64,
    pub(super) files: u32,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: Option<File>,
    /// Whether the last thing in it is half a line.
    is_torn: bool,
}

/// A write that came to less than all.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: io::Error,
    /// Bytes that were written.
    pub(super) written: usize,
}

impl LogFile {
    pub(super) fn new(path: PathBuf, rotation: Rotation) -> Self {
        Self { path, rotation, file: None, is_torn: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Failed> {
        let none_of_it = |error| Failed { error, written: 0 };
        let mut file = self.current(lines.len() as u64).map_err(none_of_it)?;
        if self.is_torn {
            file.write_all(b"\n").map_err(none_of_it)?;
            self.is_torn = false;
        }
        let mut written = 0;
        while written < lines.len() {
            match file.write(&lines[written..]) {
                Ok(0) => return Err(self.torn(lines, written, io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.torn(lines, written, error)),
            }
        }
        self.file = Some(file);
        Ok(())
    }

    /// The file is closed, and opened again for the next lines.
    fn torn(&mut self, lines: &[u8], written: usize, error: io::Error) -> Failed {
        self.is_torn = written > 0 && lines[written - 1] != b'\n';
        Failed { error, written }
    }

    /// The file at the path, with room for so much more.
    fn current(&mut self, more: u64) -> io::Result<File> {
        if let Some(file) = self.file.take() {
            let open = file.metadata()?;
            if !open.is_file() {
                return Ok(file);
            }
            if fs::metadata(&self.path).is_ok_and(|there| is_same(&there, &open)) {
                if open.len() == 0 || open.len() + more <= self.rotation.bytes {
                    return Ok(file);
                }
                self.put_aside()?;
            }
        }
        let (file, is_torn) = open(&self.path)?;
        self.is_torn = is_torn.unwrap_or(self.is_torn);
        Ok(file)
    }

    /// `access.log` becomes `access.log.1`, that one `.2`, and so on; the oldest is replaced.
    fn put_aside(&self) -> io::Result<()> {
        let older = |number: u32| self.path.with_added_extension(number.to_string());
        if self.rotation.files <= 1 {
            return fs::remove_file(&self.path);
        }
        for number in (1..self.rotation.files - 1).rev() {
            match fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, older(1))
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Opens it to append, and says whether its last line was left half, by a process that was killed as it wrote; of
/// what is no regular file it cannot know. Also for reading, so that a pipe without a reader keeps what is written, and does not end us.
fn open(path: &Path) -> io::Result<(File, Option<bool>)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok((file, None));
    }
    if meta.len() == 0 {
        return Ok((file, Some(false)));
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok((file, Some(last != *b"\n")))
}
