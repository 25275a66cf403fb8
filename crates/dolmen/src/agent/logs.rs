//! Reading the logs of a machine's servers: the last lines, and what is written after them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of the end of a file is searched for its last lines.
const TAIL_BYTES: u64 = 1024 * 1024;

/// A longer line is cut: the rest of it is skipped.
const LINE_BYTES: usize = 16 * 1024;

/// The logs of some servers, read together.
pub struct Logs {
    folder: PathBuf,
    names: Vec<String>,
    followed: BTreeMap<String, BufReader<File>>,
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
            if self.was_put_aside(&name)? {
                all.extend(self.rest_of_aside(&name)?.into_iter().map(|line| (name.clone(), line)));
                self.reopen(&name, false)?;
            }
            let new = self.rest(&name)?;
            all.extend(new.into_iter().map(|line| (name.clone(), line)));
        }
        Ok(all)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Whether the file was copied and emptied, or appeared, since it was read.
    fn was_put_aside(&mut self, name: &str) -> io::Result<bool> {
        let Some(reader) = self.followed.get_mut(name) else { return Ok(true) };
        let position = reader.stream_position()?;
        Ok(reader.get_ref().metadata()?.len() < position)
    }

    /// What stood behind our place in the file before it was emptied.
    fn rest_of_aside(&mut self, name: &str) -> io::Result<Vec<String>> {
        let path = self.path(name);
        let Some(reader) = self.followed.get_mut(name) else { return Ok(Vec::new()) };
        let position = reader.stream_position()?;
        let mut aside = File::open(link::log::aside(&path))?;
        aside.seek(SeekFrom::Start(position))?;
        *reader = BufReader::new(aside);
        self.rest(name)
    }

    fn reopen(&mut self, name: &str, at_tail: bool) -> io::Result<()> {
        let mut file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let cut = at_tail && length > TAIL_BYTES;
        if cut {
            file.seek(SeekFrom::Start(length - TAIL_BYTES))?;
        }
        let mut reader = BufReader::new(file);
        if cut {
            // The first line is likely half of one.
            reader.skip_until(b'\n')?;
        }
        self.followed.insert(name.to_owned(), reader);
        Ok(())
    }

    /// All complete lines up to the end. The beginning of an incomplete one is read again later.
    fn rest(&mut self, name: &str) -> io::Result<Vec<String>> {
        let Some(reader) = self.followed.get_mut(name) else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let count = reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                reader.seek_relative(-(count as i64))?;
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
    fn the_tail_comes_first_then_what_is_written_even_into_an_emptied_file() {
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
        std::fs::copy(&path, link::log::aside(&path)).unwrap();
        writeln!(File::create(&path).unwrap(), "five").unwrap();
        assert_eq!(lines(logs.more().unwrap()), ["four", "five"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
