//! Files that survive `kill -9` and a power cut at any instruction.
//!
//! The one way to change state on disk: write a temporary file beside the old one, fsync it, rename it over
//! the old one, fsync the folder. A reader sees the old content or the new one, never half of either.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Who may read a file of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Everyone,
    /// The owner alone: keys and passwords.
    Owner,
}

/// Replaces the file's content as a whole. An error names the file.
pub fn replace(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    replace_whole(path, content, access, true).map_err(named)
}

/// The same as far as processes are concerned, without waiting for the disk: for a file that is written again
/// before anybody reads it after the machine has crashed. One that says the same already is left alone.
pub fn replace_for_now(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
    replace_whole(path, content, access, false).map_err(named)
}

fn replace_whole(path: &Path, content: &[u8], access: Access, durable: bool) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    let mode = if access == Access::Owner { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    // A temporary file left by a crash keeps its old mode: set it before anything secret is in it.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    if !durable {
        return std::fs::rename(&temporary, path);
    }
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_folder(path)
}

/// Replaces the file by this value as JSON.
pub fn replace_json(path: &Path, value: &impl Serialize, access: Access) -> io::Result<()> {
    replace(path, &serde_json::to_vec_pretty(value)?, access)
}

/// Reads a JSON file; `None` when it is not there.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be read: {error}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a rename, creation or removal in the file's folder durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode() {
        let folder = std::env::temp_dir().join(format!("dolmen-disk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("secrets.json");
        // What a crash in the middle of an earlier change leaves behind.
        File::create(folder.join("secrets.json.new")).unwrap().write_all(b"half").unwrap();
        replace_json(&path, &1, Access::Owner).unwrap();
        replace_json(&path, &2, Access::Owner).unwrap();
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(2));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_json::<u32>(&folder.join("absent")).unwrap(), None);
        for content in [&b"3"[..], b"3", b"4"] {
            replace_for_now(&path, content, Access::Owner).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
