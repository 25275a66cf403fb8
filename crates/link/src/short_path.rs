//! Unix sockets in deep folders.
//!
//! A socket's path is limited to 107 bytes (unix(7)), a state folder is not. Both ends therefore open the
//! folder and go through `/proc/self/fd/N/NAME`, which is always short. The alternative, sockets in `/tmp`,
//! lost because everybody may write there.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Keeps the folder open while its short path is in use.
struct Short {
    folder: OwnedFd,
    name: PathBuf,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket needs a folder and a name"));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::open(parent, flags, Mode::empty())?, name: name.into() })
    }

    fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(&self.name)
    }
}

/// Connects to the socket at this path, however long the path is.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Short::of(path)?.path())
}

/// Listens at this path, replacing a socket that an earlier process left there.
/// The caller holds a lock that says no such process lives.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(Short::of(path)?.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_longer_than_the_limit_works() {
        let root = std::env::temp_dir().join(format!("dolmen-short-{}", std::process::id()));
        let folder = root.join("x".repeat(120));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("link.sock");
        drop(listen(&path).unwrap());
        let _listener = listen(&path).unwrap();
        connect(&path).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
    }
}
