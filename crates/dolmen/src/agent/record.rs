//! What an agent writes down, so that its successor finds the servers that outlived it.
//!
//! An entry is written before a process is made (without its pid) and again after, so that an agent killed
//! at any instruction leaves no server that nobody knows of.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use link::disk::{self, Access};
use serde::{Deserialize, Serialize};

/// One agent's record on disk.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    content: Content,
    /// Whether the file lacks the last change.
    unwritten: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// The agent's own process.
    pub agent: Option<Process>,
    /// The servers of this machine that have a process, or are about to.
    pub servers: BTreeMap<String, Entry>,
    /// The servers that `dolmen kill` keeps down.
    pub killed: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Absent between the intent to start it and the process.
    pub process: Option<Process>,
    /// A process that is to take over from it and does not serve yet. No intent comes before it: one that nobody
    /// knows of is given nothing by the next agent, and ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<Process>,
    /// Processes that it has taken over from, and that finish what they began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<Retired>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    pub process: Process,
    /// How long it may take, counted anew by each agent.
    pub within_ms: u64,
}

impl Entry {
    /// All processes of this server.
    pub fn processes(&self) -> impl Iterator<Item = Process> {
        let retired = self.retired.iter().map(|retired| retired.process);
        self.process.into_iter().chain(self.successor).chain(retired)
    }
}

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks after boot at which it began (proc_pid_stat(5), field 22).
    pub began: u64,
}

impl Process {
    /// The process of this id, if there is one that is not yet dead.
    pub fn living(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, so count from its last parenthesis.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let began = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, began })
    }

    pub fn is_alive(self) -> bool {
        Self::living(self.pid) == Some(self)
    }
}

/// What an agent of this machine last wrote; nothing when none ever ran.
pub fn read(path: &Path) -> io::Result<Content> {
    Ok(disk::read_json(path)?.unwrap_or_default())
}

impl Record {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), content: read(path)?, unwritten: false })
    }

    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Changes the record and makes the change durable before it returns. On a full disk the change is only
    /// remembered: an agent that gave up then would turn the next crash of a server into an outage.
    pub fn change(&mut self, change: impl FnOnce(&mut Content)) {
        let before = self.content.clone();
        change(&mut self.content);
        if self.content != before {
            self.write();
        }
    }

    /// Whether the file says all that this record does.
    pub fn is_written(&self) -> bool {
        !self.unwritten
    }

    /// Writes what could not be written before.
    pub fn catch_up(&mut self) {
        if self.unwritten {
            self.write();
        }
    }

    fn write(&mut self) {
        let written = disk::replace_json(&self.path, &self.content, Access::Owner);
        if let (Err(error), false) = (&written, self.unwritten) {
            tracing::error!("{error}; going on without");
        }
        self.unwritten = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_cannot_be_written_is_remembered_and_written_later() {
        let folder = std::env::temp_dir().join(format!("dolmen-record-{}", std::process::id()));
        let path = folder.join("agent.json");
        let mut record = Record::open(&path).unwrap();
        record.change(|content| content.killed.push("web-1".into()));
        assert_eq!((record.content().killed.len(), read(&path).unwrap()), (1, Content::default()));
        std::fs::create_dir_all(&folder).unwrap();
        record.catch_up();
        assert_eq!(&read(&path).unwrap(), record.content());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_living_process_is_told_from_a_dead_one() {
        let mine = Process::living(std::process::id()).unwrap();
        assert!(mine.is_alive());
        assert!(!Process { began: mine.began + 1, ..mine }.is_alive());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(Process::living(pid), None);
    }
}
