//! Application files on their way from one machine to another, over the agent API.
//!
//! Sent are the entries of a release in order, folders first, each file in parts. The receiver writes below a
//! folder of its own making, never through a link and never outside, and the release is there only when all of
//! it is.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use link::api::{Answer, ApiError, Ask, Conversation, Entry, EntryKind};

use crate::site::{Release, ReleaseStore};

/// Bytes of a file in one frame.
const PART: usize = 256 * 1024;

/// Files and folders of one release.
const ENTRIES_MAX: usize = 200_000;

/// How long the other side may be silent.
const SILENCE: Duration = Duration::from_secs(15);

/// Sends the release of this digest, if it is here.
pub async fn send(
    conversation: &mut Conversation,
    store: &ReleaseStore,
    digest: &str,
) -> Result<(), ApiError> {
    let Some(release) = store.find(digest) else {
        let because = format!("the application files {digest} are not here");
        return Ok(conversation.say(&Answer::Refused { because }).await?);
    };
    for (program, root) in [(false, &release.files), (true, &release.programs)] {
        for path in store.walk(root).map_err(link::frame::FrameError::from)? {
            send_one(conversation, root, &path, program).await?;
        }
    }
    Ok(conversation.say(&Answer::Done).await?)
}

async fn send_one(
    conversation: &mut Conversation,
    root: &Path,
    path: &Path,
    program: bool,
) -> Result<(), link::frame::FrameError> {
    let meta = fs::symlink_metadata(path)?;
    let kind = if meta.is_symlink() {
        EntryKind::Link { to: fs::read_link(path)? }
    } else if meta.is_dir() {
        EntryKind::Folder
    } else if meta.is_file() {
        EntryKind::File { bytes: meta.len() }
    } else {
        return Ok(());
    };
    let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let entry = Entry {
        path: path.strip_prefix(root).map_err(io::Error::other)?.to_owned(),
        program,
        mode: meta.mode() & 0o777,
        modified_ns: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
        kind: kind.clone(),
    };
    conversation.say(&Answer::Entry(entry)).await?;
    let EntryKind::File { bytes } = kind else { return Ok(()) };
    let mut file = File::open(path)?.take(bytes);
    let mut buffer = vec![0; PART];
    let mut left = bytes;
    while left > 0 {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other(format!("{} became shorter", path.display())).into());
        }
        conversation.say(&Answer::Part(STANDARD.encode(&buffer[..count]))).await?;
        left -= count as u64;
    }
    Ok(())
}

/// Asks for the release of this digest and puts it beside the others here. Says where it is.
pub async fn receive(
    mut conversation: Conversation,
    store: &ReleaseStore,
    digest: &str,
) -> Result<Release, ApiError> {
    if let Some(release) = store.find(digest) {
        return Ok(release);
    }
    let frame = link::frame::FrameError::from;
    conversation.ask(&Ask::Release { digest: digest.to_owned() }).await?;
    let release = store.begin().map_err(frame)?;
    let mut writing = Writing { release: &release, gid: store.application(), file: None, entries: 0 };
    loop {
        let answer = tokio::time::timeout(SILENCE, conversation.answer()).await;
        let silent = |_| ApiError::Refused("the other machine stopped in the middle of the files".into());
        match answer.map_err(silent)?? {
            Answer::Entry(entry) => writing.begin(&entry).map_err(frame)?,
            Answer::Part(text) => writing.part(&text).map_err(frame)?,
            Answer::Done => break,
            other => return Err(link::frame::FrameError::Unexpected(format!("{other:?}")).into()),
        }
    }
    writing.end().map_err(frame)?;
    store.finish(release, digest).map_err(|error| ApiError::Frame(frame(error)))
}

struct Writing<'a> {
    release: &'a Release,
    gid: Option<u32>,
    file: Option<(File, u64, Entry)>,
    entries: usize,
}

impl Writing<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        self.end()?;
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(io::Error::other(format!("a release has at most {ENTRIES_MAX} files")));
        }
        let root = if entry.program { &self.release.programs } else { &self.release.files };
        let path = below(root, &entry.path)?;
        match &entry.kind {
            EntryKind::Folder => {
                fs::create_dir(&path)?;
                self.permit(&path, entry)
            }
            EntryKind::Link { to } => symlink(to, &path),
            EntryKind::File { bytes } => {
                let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
                self.file = Some((file, *bytes, entry.clone()));
                if *bytes == 0 { self.end() } else { Ok(()) }
            }
        }
    }

    fn part(&mut self, text: &str) -> io::Result<()> {
        let bytes = STANDARD.decode(text).map_err(io::Error::other)?;
        let Some((file, left, _)) = &mut self.file else {
            return Err(io::Error::other("bytes of no file"));
        };
        *left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("a file is longer than announced"))?;
        file.write_all(&bytes)
    }

    /// The last file is whole.
    fn end(&mut self) -> io::Result<()> {
        let Some((file, left, entry)) = self.file.take() else { return Ok(()) };
        if left > 0 {
            return Err(io::Error::other(format!("{} is shorter than announced", entry.path.display())));
        }
        // The time of a file is part of its ETag, which all machines must agree on.
        file.set_modified(UNIX_EPOCH + Duration::from_nanos(entry.modified_ns))?;
        let root = if entry.program { &self.release.programs } else { &self.release.files };
        self.permit(&below(root, &entry.path)?, &entry)
    }

    fn permit(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        chown(path, None, self.gid)?;
        fs::set_permissions(path, Permissions::from_mode(entry.mode & 0o777))
    }
}

/// A path below `root`: nothing in it leads up, and no folder on the way is a link.
fn below(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let wrong = || io::Error::other(format!("{} leads out of the release", path.display()));
    let mut whole = root.to_owned();
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(wrong()) };
        whole.push(name);
        if parts.peek().is_some() && !fs::symlink_metadata(&whole)?.is_dir() {
            return Err(wrong());
        }
    }
    if whole == root { Err(wrong()) } else { Ok(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside_or_through_a_link() {
        let folder = std::env::temp_dir().join(format!("dolmen-transfer-{}", std::process::id()));
        let release =
            Release { number: Some(1), files: folder.join("files"), programs: folder.join("programs") };
        fs::create_dir_all(&release.files).unwrap();
        let mut writing = Writing { release: &release, gid: None, file: None, entries: 0 };
        let entry =
            |path: &str, kind| Entry { path: path.into(), program: false, mode: 0o644, modified_ns: 1, kind };
        let file = |path: &str| entry(path, EntryKind::File { bytes: 3 });
        writing.begin(&entry("link", EntryKind::Link { to: "/".into() })).unwrap();
        for wrong in ["../a", "/etc/a", "link/a", "a/../../b", ".", ""] {
            assert!(writing.begin(&file(wrong)).is_err(), "{wrong}");
        }
        writing.begin(&file("a")).unwrap();
        assert!(writing.part(&STANDARD.encode("four")).is_err());
        writing.begin(&file("b")).unwrap_err();
        writing.begin(&file("c")).unwrap();
        writing.part(&STANDARD.encode("all")).unwrap();
        writing.end().unwrap();
        assert_eq!(fs::read(release.files.join("c")).unwrap(), b"all");
        assert!(writing.begin(&file("c")).is_err(), "nothing is written twice");
        fs::remove_dir_all(&folder).unwrap();
    }
}
