//! Opens files beneath the root and nowhere else.
//!
//! The kernel resolves the path and refuses any step out of the root (openat2(2), RESOLVE_BENEATH), so no check of
//! ours can be overtaken by a rename. Where that call is forbidden (an old sandbox), each component is opened by
//! itself and links are refused.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// What opening waits for: nothing, also when it is a pipe or a device.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The folder of static files.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

/// What stands at a path.
#[derive(Debug)]
pub(crate) enum Entry {
    File(Open),
    Folder,
    /// Nothing, or nothing that we may serve.
    None,
}

/// An open file, as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    /// Strong: it changes whenever the bytes may have (RFC 9110 section 8.8.3). One that is written to
    /// has another time, in nanoseconds.
    pub(crate) tag: String,
}

impl Root {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(folder, flags, Mode::empty())?))
    }

    /// What stands at a path that [`crate::place`] has found harmless. Trouble that is not the path's fault, as
    /// too many open files, is an error.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Entry> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match self.open_beneath(path) {
            Ok(descriptor) => describe(descriptor),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO) => {
                Err(io::Error::other(format!("cannot open {}", path.display())))
            }
            Err(_) => Ok(Entry::None),
        }
    }

    fn open_beneath(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.0, path, FLAGS, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM) => self.open_step_by_step(path),
            result => result,
        }
    }

    /// Without openat2: component by component, refusing links.
    fn open_step_by_step(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let mut at = rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?;
        for component in path.components() {
            match component {
                Component::CurDir => at = rustix::fs::openat(&at, ".", FLAGS, Mode::empty())?,
                Component::Normal(name) => {
                    at = rustix::fs::openat(&at, name, FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
                }
                _ => return Err(Errno::XDEV),
            }
        }
        Ok(at)
    }
}

fn describe(descriptor: OwnedFd) -> io::Result<Entry> {
    let file = File::from(descriptor);
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Ok(Entry::Folder);
    }
    if !meta.is_file() {
        return Ok(Entry::None);
    }
    let nanoseconds = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    let modified = UNIX_EPOCH + Duration::from_secs(u64::try_from(meta.mtime()).unwrap_or(0));
    // The inode is not in it: two web servers with copies of one release must agree.
    let tag = format!("\"{:x}-{:x}\"", meta.size(), nanoseconds);
    Ok(Entry::File(Open { file, size: meta.size(), modified, tag }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_leads_out() {
        let folder = std::env::temp_dir().join(format!("dolmen-web-file-{}", std::process::id()));
        let root_folder = folder.join("root");
        std::fs::create_dir_all(root_folder.join("sub")).unwrap();
        std::fs::File::create(folder.join("secret")).unwrap();
        std::fs::File::create(root_folder.join("sub/page")).unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root_folder.join(name)).unwrap();
        link("../secret", "out");
        link("/etc/passwd", "absolute");
        link("/proc/self/root/etc/passwd", "magic");
        link("..", "up");
        link("sub/page", "inside");
        let root = Root::open(&root_folder).unwrap();
        let find = |path: &str| root.find(Path::new(path)).unwrap();
        for path in ["out", "absolute", "magic", "up/secret", "missing", "sub/page/x"] {
            assert!(matches!(find(path), Entry::None), "{path}");
        }
        assert!(matches!(find("sub/page"), Entry::File(_)));
        assert!(matches!(find("inside"), Entry::File(_)), "a link that stays inside is followed");
        assert!(matches!(find("sub"), Entry::Folder));
        assert!(matches!(find(""), Entry::Folder));
        let step = |path: &str| root.open_step_by_step(Path::new(path));
        assert!(step("sub/page").is_ok());
        for path in ["out", "absolute", "up/secret", "inside", "../secret"] {
            assert!(step(path).is_err(), "{path}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
