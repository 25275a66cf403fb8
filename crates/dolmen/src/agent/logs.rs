//! Reading the logs of a machine's servers: the last lines, and what is written after them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How much of the end of a file is searched for its last lines.
const TAIL_BYTES: u64 = 1024 * 1024;

/// A longer line is cut: the rest of it is skipped.
const LINE_BYTES: usize = 16 * 1024;

/// One server's log file while it is followed.
struct Followed {
    reader: BufReader<File>,
    /// To notice that the file was put aside and a new one begun.
    inode: u64,
}

/// The logs of some servers, read together.
pub struct Logs {
    folder: PathBuf,
    names: Vec<String>,
    followed: BTreeMap<String, Followed>,
}

impl Logs {
    /// The logs `NAME.log` in `folder`; they need not be there yet.
    pub fn of(folder: &Path, names: Vec<String>) -> Self {
        Self { folder: folder.to_owned(), names, followed: BTreeMap::new() }
    }

    /// The last `lines` lines of each; reading goes on after them.
    pub fn tail(&mut self, lines: usize) -> io::Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for name in self.names.clone() {
            self.reopen(&name, true)?;
            let new = self.rest(&name)?;
            let skip = new.len().saturating_sub(lines);
            all.extend(new.into_iter().skip(skip).map(|line| (name.clone(), line)));
        }
        Ok(all)
    }

    /// What was written since the last call.
    pub fn more(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for name in self.names.clone() {
            let mut new = self.rest(&name)?;
            if self.was_put_aside(&name) {
                self.reopen(&name, false)?;
                new.extend(self.rest(&name)?);
            }
            all.extend(new.into_iter().map(|line| (name.clone(), line)));
        }
        Ok(all)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn was_put_aside(&self, name: &str) -> bool {
        let current = std::fs::metadata(self.path(name)).map(|meta| meta.ino()).ok();
        current.is_some() && current != self.followed.get(name).map(|followed| followed.inode)
    }

    fn reopen(&mut self, name: &str, at_tail: bool) -> io::Result<()> {
        let mut file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        let cut = at_tail && meta.len() > TAIL_BYTES;
        if cut {
            file.seek(SeekFrom::Start(meta.len() - TAIL_BYTES))?;
        }
        let mut reader = BufReader::new(file);
        if cut {
            // The first line is likely half of one.
            reader.skip_until(b'\n')?;
        }
        self.followed.insert(name.to_owned(), Followed { reader, inode: meta.ino() });
        Ok(())
    }

    /// All complete lines up to the end. The beginning of an incomplete one is read again later.
    fn rest(&mut self, name: &str) -> io::Result<Vec<String>> {
        let Some(followed) = self.followed.get_mut(name) else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let count = followed.reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                followed.reader.seek_relative(-(count as i64))?;
                return Ok(lines);
            }
            line.truncate(LINE_BYTES.min(line.len() - 1));
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_tail_comes_first_then_what_is_written_even_into_a_new_file() {
        let folder = std::env::temp_dir().join(format!("dolmen-logs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("web-1.log");
        let mut file = File::create(&path).unwrap();
        writeln!(file, "one\ntwo\nthree").unwrap();
        let mut logs = Logs::of(&folder, vec!["web-1".into(), "absent-1".into()]);
        let lines =
            |found: Vec<(String, String)>| found.into_iter().map(|(_, line)| line).collect::<Vec<_>>();
        assert_eq!(lines(logs.tail(2).unwrap()), ["two", "three"]);
        write!(file, "fo").unwrap();
        assert_eq!(lines(logs.more().unwrap()), Vec::<String>::new());
        writeln!(file, "ur").unwrap();
        std::fs::rename(&path, folder.join("web-1.log.1")).unwrap();
        writeln!(File::create(&path).unwrap(), "five").unwrap();
        assert_eq!(lines(logs.more().unwrap()), ["four", "five"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
