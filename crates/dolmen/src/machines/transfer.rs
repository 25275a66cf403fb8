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
use link::frame::FrameError;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::site::{Release, ReleaseStore};

/// Bytes of a file in one frame.
const PART: usize = 256 * 1024;

/// Files and folders of one release.
const ENTRIES_MAX: usize = 200_000;

/// How long the other side may be silent.
const SILENCE: Duration = Duration::from_secs(15);

/// Entries and parts that wait between the disk and the network, in either direction.
const AHEAD: usize = 8;

/// Sends the release of this digest, if it is here. The disk is read on a thread of its own: an agent has one for all else.
pub async fn send(
    conversation: &mut Conversation,
    store: &ReleaseStore,
    digest: &str,
) -> Result<(), ApiError> {
    let (sender, mut read) = mpsc::channel(AHEAD);
    let (store, wanted) = (store.clone(), digest.to_owned());
    let reading = spawn_blocking(move || read_all(&store, &wanted, &Reader(sender)));
    while let Some(answer) = read.recv().await {
        conversation.say(&answer).await?;
    }
    if reading.await.map_err(io::Error::other).flatten().map_err(FrameError::from)? {
        return Ok(conversation.say(&Answer::Done).await?);
    }
    let because = format!("the application files {digest} are not here");
    Ok(conversation.say(&Answer::Refused { because }).await?)
}

/// False when they are not here.
fn read_all(store: &ReleaseStore, digest: &str, reader: &Reader) -> io::Result<bool> {
    let Some(release) = store.find(digest) else { return Ok(false) };
    for (program, root) in [(false, &release.files), (true, &release.programs)] {
        for path in store.walk(root)? {
            reader.read_one(root, &path, program)?;
        }
    }
    Ok(true)
}

/// The way from the disk to whoever sends.
struct Reader(mpsc::Sender<Answer>);

impl Reader {
    fn put(&self, answer: Answer) -> io::Result<()> {
        self.0.blocking_send(answer).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn read_one(&self, root: &Path, path: &Path, program: bool) -> io::Result<()> {
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
        self.put(Answer::Entry(entry))?;
        let EntryKind::File { bytes } = kind else { return Ok(()) };
        let mut file = File::open(path)?.take(bytes);
        let mut buffer = vec![0; PART];
        let mut left = bytes;
        while left > 0 {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::other(format!("{} became shorter", path.display())));
            }
            self.put(Answer::Part(STANDARD.encode(&buffer[..count])))?;
            left -= count as u64;
        }
        Ok(())
    }
}

/// Asks for the release of this digest and puts it beside the others here. Says where it is.
pub async fn receive(
    mut conversation: Conversation,
    store: &ReleaseStore,
    digest: &str,
) -> Result<Release, ApiError> {
    conversation.ask(&Ask::Release { digest: digest.to_owned() }).await?;
    let (sender, arrived) = mpsc::channel(AHEAD);
    let (store, digest) = (store.clone(), digest.to_owned());
    let writing = spawn_blocking(move || write_all(&store, &digest, arrived));
    let silent = |_| ApiError::Refused("the other machine stopped in the middle of the files".into());
    loop {
        let answer = timeout(SILENCE, conversation.answer()).await.map_err(silent)??;
        let is_last = matches!(answer, Answer::Done);
        // A writer that has ended says below why.
        if sender.send(answer).await.is_err() || is_last {
            break;
        }
    }
    writing.await.map_err(io::Error::other).flatten().map_err(|error| FrameError::from(error).into())
}

/// Writes what arrives until all of it is there.
fn write_all(store: &ReleaseStore, digest: &str, mut arrived: mpsc::Receiver<Answer>) -> io::Result<Release> {
    let release = store.begin()?;
    let mut writing = Writing { release: &release, gid: store.application(), file: None, entries: 0 };
    loop {
        match arrived.blocking_recv() {
            Some(Answer::Entry(entry)) => writing.begin(&entry)?,
            Some(Answer::Part(text)) => writing.part(&text)?,
            Some(Answer::Done) => break,
            Some(other) => return Err(io::Error::other(format!("an unexpected frame: {other:?}"))),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    writing.end()?;
    store.finish(release, digest)
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
