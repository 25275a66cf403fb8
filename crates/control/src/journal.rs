//! The log and the vote on disk: one file of frames, each written and synced before it is acknowledged.
//!
//! A frame is a length, a checksum and the changes that were made together. Only the last frame can be torn,
//! since the next one is not written before it is synced; so a torn end is cut off when the file is opened. A
//! frame that is broken before a whole one is damage to something acknowledged: a server that cannot know what
//! it promised must not vote, and does not start. After a failed write or sync nothing more is written, because
//! the kernel may have dropped what it could not write: the process ends, and what is on disk is read anew.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use link::disk::{self, Access};
use serde::{Deserialize, Serialize};

use crate::types::{Entry, LogId, Vote};

/// A file larger than this was not written by us: the log is compacted long before.
const FILE_LIMIT: u64 = 256 * 1024 * 1024;

const HEAD: usize = 8;

/// One change of what must survive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    Vote(Vote),
    Append(Vec<Entry>),
    /// Entries after this index are gone; None: all of them.
    TruncateAfter(Option<u64>),
    /// Entries up to this one are in the snapshot.
    Purge(LogId),
}

/// What the steps come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) entries: VecDeque<Entry>,
}

impl Content {
    pub(crate) fn apply(&mut self, step: Step) {
        match step {
            Step::Vote(vote) => self.vote = Some(vote),
            Step::Append(entries) => self.entries.extend(entries),
            Step::TruncateAfter(index) => {
                self.entries.retain(|entry| index.is_some_and(|index| entry.log_id.index <= index));
            }
            Step::Purge(last) => {
                self.entries.retain(|entry| entry.log_id.index > last.index);
                self.purged = Some(last);
            }
        }
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    /// The fewest steps that come to the same.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let entries =
            (!self.entries.is_empty()).then(|| Step::Append(self.entries.iter().cloned().collect()));
        [self.vote.map(Step::Vote), self.purged.map(Step::Purge), entries].into_iter().flatten().collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("cannot open the log {}: {error}", path.display())]
    Open { path: PathBuf, error: io::Error },
    #[error(
        "the log {} is damaged at byte {at}, before entries that are whole: this server cannot know what it \
         promised and must not vote; move its folder away, start it, and run `dolmen control replace`",
        path.display()
    )]
    Damaged { path: PathBuf, at: usize },
    #[error("the log {} is larger than {FILE_LIMIT} bytes, which this program never writes", .0.display())]
    TooLarge(PathBuf),
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Set by the first failure, and never cleared.
    failed: Option<String>,
}

impl Journal {
    /// Opens or makes the file, and cuts off a torn end.
    pub(crate) fn open(path: &Path) -> Result<(Self, Content), JournalError> {
        let failed = |error| JournalError::Open { path: path.to_owned(), error };
        let mut content = Content::default();
        let bytes = match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() > FILE_LIMIT => {
                return Err(JournalError::TooLarge(path.to_owned()));
            }
            Ok(_) => std::fs::read(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut whole = 0;
        while let Some((steps, length)) = frame(&bytes[whole..]) {
            steps.into_iter().for_each(|step| content.apply(step));
            whole += length;
        }
        if (whole + 1..bytes.len()).any(|at| frame(&bytes[at..]).is_some()) {
            return Err(JournalError::Damaged { path: path.to_owned(), at: whole });
        }
        let file = open(path).map_err(failed)?;
        if whole < bytes.len() {
            tracing::warn!(
                "the log ends in the middle of a write; the last {} bytes are cut",
                bytes.len() - whole
            );
            file.set_len(whole as u64).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        disk::sync_folder(path).map_err(failed)?;
        Ok((Self { path: path.to_owned(), file, failed: None }, content))
    }

    /// Makes these steps durable, all or none of them.
    pub(crate) fn write(&mut self, steps: &[Step]) -> io::Result<()> {
        self.unless_failed(|journal| {
            journal.file.write_all(&encode(steps)?)?;
            journal.file.sync_data()
        })
    }

    /// Replaces the whole file.
    pub(crate) fn rewrite(&mut self, steps: &[Step]) -> io::Result<()> {
        self.unless_failed(|journal| {
            disk::replace(&journal.path, &encode(steps)?, Access::Owner)?;
            journal.file = open(&journal.path)?;
            Ok(())
        })
    }

    fn unless_failed(&mut self, change: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(because) = &self.failed {
            return Err(io::Error::other(format!("an earlier write failed: {because}")));
        }
        change(self).inspect_err(|error| self.failed = Some(error.to_string()))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn encode(steps: &[Step]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, steps)?;
    let length = u32::try_from(bytes.len() - HEAD).map_err(io::Error::other)?;
    let checksum = crc32fast::hash(&bytes[HEAD..]);
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes[4..HEAD].copy_from_slice(&checksum.to_be_bytes());
    Ok(bytes)
}

/// The frame at the beginning of these bytes and its length with the head; None when it is not whole.
fn frame(bytes: &[u8]) -> Option<(Vec<Step>, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let body = rest.get(..length).filter(|body| !body.is_empty())?;
    if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
        return None;
    }
    Some((serde_json::from_slice(body).ok()?, HEAD + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::control::Change;
    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderIdExt;
    use serde_json::json;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("dolmen-journal-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn log(&self) -> PathBuf {
            self.0.join("log")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn entry(index: u64) -> Entry {
        let change =
            Change { key: "a".into(), expected_version: index, value: json!(index), proposal: index };
        Entry { log_id: log_id(index), payload: EntryPayload::Normal(change) }
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(
            openraft::type_config::alias::LeaderIdOf::<crate::types::Types>::new_committed(1, 7),
            index,
        )
    }

    fn indexes(content: &Content) -> Vec<u64> {
        content.entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn what_was_written_is_there_again() {
        let folder = Folder::new("again");
        let (mut journal, _) = Journal::open(&folder.log()).unwrap();
        journal.write(&[Step::Vote(Vote::new(3, 7)), Step::Append((1..=4).map(entry).collect())]).unwrap();
        journal.write(&[Step::TruncateAfter(Some(3)), Step::Append(vec![entry(4)])]).unwrap();
        journal.write(&[Step::Purge(log_id(2))]).unwrap();
        let (mut journal, content) = Journal::open(&folder.log()).unwrap();
        assert_eq!((indexes(&content), content.purged), (vec![3, 4], Some(log_id(2))));
        assert_eq!(content.vote, Some(Vote::new(3, 7)));
        journal.rewrite(&content.steps()).unwrap();
        journal.write(&[Step::Append(vec![entry(5)])]).unwrap();
        let (_, content) = Journal::open(&folder.log()).unwrap();
        assert_eq!((indexes(&content), content.vote), (vec![3, 4, 5], Some(Vote::new(3, 7))));
    }

    /// A crash in the middle of a write leaves any part of the last frame.
    #[test]
    fn an_end_torn_at_any_byte_costs_only_the_last_write() {
        let folder = Folder::new("torn");
        let (mut journal, _) = Journal::open(&folder.log()).unwrap();
        journal.write(&[Step::Append(vec![entry(1), entry(2)])]).unwrap();
        let acknowledged = std::fs::metadata(folder.log()).unwrap().len() as usize;
        journal.write(&[Step::Append(vec![entry(3)])]).unwrap();
        let all = std::fs::read(folder.log()).unwrap();
        for length in acknowledged..all.len() {
            for zeros in [0, all.len() - length] {
                let mut torn = all[..length].to_vec();
                torn.resize(length + zeros, 0);
                disk::replace(&folder.log(), &torn, Access::Owner).unwrap();
                let (mut journal, content) = Journal::open(&folder.log()).unwrap();
                assert_eq!(indexes(&content), [1, 2], "torn at {length} with {zeros} zeros");
                journal.write(&[Step::Append(vec![entry(3)])]).unwrap();
                assert_eq!(indexes(&Journal::open(&folder.log()).unwrap().1), [1, 2, 3]);
            }
        }
    }

    #[test]
    fn damage_at_any_byte_before_a_whole_frame_is_found() {
        let folder = Folder::new("damaged");
        let (mut journal, _) = Journal::open(&folder.log()).unwrap();
        journal.write(&[Step::Append(vec![entry(1)])]).unwrap();
        let first = std::fs::metadata(folder.log()).unwrap().len() as usize;
        journal.write(&[Step::Append(vec![entry(2)])]).unwrap();
        let all = std::fs::read(folder.log()).unwrap();
        for at in 0..first {
            let mut damaged = all.clone();
            damaged[at] ^= 0x10;
            disk::replace(&folder.log(), &damaged, Access::Owner).unwrap();
            assert!(matches!(Journal::open(&folder.log()), Err(JournalError::Damaged { .. })), "byte {at}");
        }
    }
}
