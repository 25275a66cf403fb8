//! From the site file to its state folder.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{About, FORMAT, Lock, State, StateError, account, folder};

/// Where the state of sites that root starts is kept.
const SYSTEM: &str = "/var/lib/dolmen";

/// The block that a site gets unless it asks for another.
const FIRST_BLOCK: u8 = 1;

/// How many names are tried when several sites of one name are started on one computer.
const NAMESAKES: u32 = 1000;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} was never started on this computer\nhint: `dolmen up` starts it", .0.display())]
    NeverStarted(PathBuf),
    #[error("the state folder {} has format {found}, this dolmen reads {FORMAT}; nothing was changed\n\
             hint: use the dolmen version that made it, or move the folder away to begin anew", root.display())]
    Format { root: PathBuf, found: String },
    #[error("the state folder {} belongs to the site {theirs}, not to {ours}; nothing was changed\n\
             hint: if that site is gone, move the folder away; else keep the two site files in two folders", root.display())]
    OtherSite { root: PathBuf, ours: String, theirs: String },
    #[error("the state folder {} belongs to another user; run dolmen as that user", .0.display())]
    OtherUser(PathBuf),
    #[error("{site} is up already (its state folder {} is in use)\n\
             hint: `dolmen status` shows it, `dolmen stop` ends it", root.display())]
    IsUp { site: String, root: PathBuf },
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
}

/// The folder of a site file.
#[derive(Clone, Debug)]
pub struct Home {
    pub file: PathBuf,
    pub folder: PathBuf,
}

impl Home {
    /// The home of a site file, which need not be there: its folder must.
    pub fn of(file: &Path) -> io::Result<Self> {
        let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { file: file.to_owned(), folder: folder.canonicalize()? })
    }

    /// Names a site without a domain.
    pub fn name(&self) -> String {
        self.folder.file_name().map_or_else(|| "site".into(), |name| name.to_string_lossy().into_owned())
    }

    fn link(&self) -> PathBuf {
        self.folder.join(".dolmen")
    }

    /// The state of a site that was started before.
    pub fn state(&self) -> Result<State, OpenError> {
        let Some(root) = self.existing_root()? else {
            // A machine that joined has no site file.
            return only_of_system()?.ok_or_else(|| OpenError::NeverStarted(self.file.clone()));
        };
        match read_about(&root)? {
            // A folder that was moved away from under its site still leads to it, to stop it for example.
            Some(about) if self.is_ours(&root)? => Ok(State { root, about }),
            Some(_) | None => Err(OpenError::NeverStarted(self.file.clone())),
        }
    }

    /// The state of the site of this name, made if need be, and locked for `up`.
    pub fn claim(&self, site: &str, block: Option<u8>) -> Result<(State, Lock), OpenError> {
        let root = match self.existing_root()? {
            Some(root) if self.is_ours(&root)? => root,
            Some(_) | None => self.make_root(site)?,
        };
        let in_use = || OpenError::IsUp { site: site.to_owned(), root: root.clone() };
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::File { path, error }
        };
        let lock = root.join("lock");
        let lock = Lock::take(&lock).map_err(at(&lock))?.ok_or_else(in_use)?;
        let kept = read_about(&root)?;
        if let Some(theirs) = kept.as_ref().map(|about| about.site.as_str()).filter(|theirs| *theirs != site)
        {
            let (ours, theirs) = (site.to_owned(), theirs.to_owned());
            return Err(OpenError::OtherSite { root, ours, theirs });
        }
        let block = block.or(kept.map(|about| about.block)).unwrap_or(FIRST_BLOCK);
        let about = About {
            format: FORMAT,
            site: site.to_owned(),
            home: self.folder.clone(),
            block,
            machine: None,
            founder: false,
        };
        Ok((State { root, about }, lock))
    }

    /// Where `.dolmen` is or leads to.
    fn existing_root(&self) -> Result<Option<PathBuf>, OpenError> {
        let link = self.link();
        let meta = match std::fs::symlink_metadata(&link) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::File { path: link, error }),
        };
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(OpenError::OtherUser(link));
        }
        match link.canonicalize() {
            Ok(root) => Ok(Some(root)),
            // A link that leads nowhere: the state was moved away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OpenError::File { path: link, error }),
        }
    }

    /// A copied folder brings a copy of the link: then the state is that of the original, unless that is gone.
    fn is_ours(&self, root: &Path) -> Result<bool, OpenError> {
        let Some(about) = read_about(root)? else { return Ok(true) };
        let theirs = about.home.join(".dolmen").canonicalize().ok();
        Ok(about.home == self.folder || theirs.as_deref() != Some(root))
    }

    fn make_root(&self, site: &str) -> Result<PathBuf, OpenError> {
        let link = self.link();
        let at = |error| OpenError::File { path: link.clone(), error };
        if !account::is_root() {
            return folder::private(&link).map_err(at);
        }
        let root = self.system_root(site)?;
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
            _ => {}
        }
        std::os::unix::fs::symlink(&root, &link).map_err(at)?;
        Ok(root)
    }

    /// `/var/lib/dolmen/SITE`; with a number behind for a second site of that name on this computer.
    fn system_root(&self, site: &str) -> Result<PathBuf, OpenError> {
        let at = |path: &Path, error| OpenError::File { path: path.to_owned(), error };
        std::fs::create_dir_all(SYSTEM).map_err(|error| at(Path::new(SYSTEM), error))?;
        for number in 1..NAMESAKES {
            let name = if number == 1 { site.to_owned() } else { format!("{site}.{number}") };
            let root = Path::new(SYSTEM).join(name);
            // Whoever makes the folder has it, also when two begin at once.
            match std::fs::create_dir(&root) {
                Ok(()) => return Ok(root),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&root, error)),
                Err(_) if read_about(&root)?.is_some() && self.is_ours(&root)? => return Ok(root),
                Err(_) => {}
            }
        }
        let error = io::Error::other(format!("{NAMESAKES} sites are named {site} on this computer"));
        Err(OpenError::File { path: SYSTEM.into(), error })
    }
}

/// The state of the site of this name, if this computer is a machine of it.
pub fn of_system(site: &str) -> Result<Option<State>, OpenError> {
    let root = Path::new(SYSTEM).join(site);
    let about = read_about(&root)?.filter(|about| about.machine.is_some());
    Ok(about.map(|about| State { root, about }))
}

/// The state of the one site that this computer is a machine of; None when there are several.
fn only_of_system() -> Result<Option<State>, OpenError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(SYSTEM).into_iter().flatten().flatten() {
        if let Some(site) = entry.file_name().to_str() {
            found.extend(of_system(site)?);
        }
    }
    Ok(if found.len() == 1 { found.pop() } else { None })
}

/// The folder for the state of a site that this computer joins, made if need be. What is written there says that
/// it has joined only when it has.
pub fn for_joining(site: &str) -> Result<State, OpenError> {
    let root = Path::new(SYSTEM).join(site);
    let at = |error| OpenError::File { path: root.clone(), error };
    std::fs::create_dir_all(&root).map_err(at)?;
    let about = match read_about(&root)? {
        Some(about) if about.machine.is_some() => about,
        Some(about) => {
            let theirs = format!("{} on `up`", about.site);
            return Err(OpenError::OtherSite { root, ours: site.to_owned(), theirs });
        }
        None => About {
            format: FORMAT,
            site: site.to_owned(),
            home: root.clone(),
            block: FIRST_BLOCK,
            machine: None,
            founder: false,
        },
    };
    Ok(State { root, about })
}

/// `site.json`, if it is there and of our format.
fn read_about(root: &Path) -> Result<Option<About>, OpenError> {
    let path = root.join("site.json");
    let read: io::Result<Option<serde_json::Value>> = link::disk::read_json(&path);
    let at = |error| OpenError::File { path: path.clone(), error };
    let Some(value) = read.map_err(at)? else { return Ok(None) };
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {
            serde_json::from_value(value).map(Some).map_err(|error| at(error.into()))
        }
        other => {
            let found = other.map_or_else(|| "unknown".into(), |format| format.to_string());
            Err(OpenError::Format { root: root.to_owned(), found })
        }
    }
}
