//! The folder of one machine, and folders that are nobody else's business.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Account, Lock, StateError};

/// How long an agent waits for its predecessor to be gone.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// `machines/NAME/`.
#[derive(Clone, Debug)]
pub struct MachineFolder(PathBuf);

impl MachineFolder {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket on which servers reach their agent.
    pub fn link(&self) -> PathBuf {
        self.0.join("link.sock")
    }

    pub fn record(&self) -> PathBuf {
        self.0.join("agent.json")
    }

    /// While this file is there, `up` starts no agent: the machine was killed.
    pub fn down_mark(&self) -> PathBuf {
        self.0.join("down")
    }

    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub fn log(&self, server: &str) -> PathBuf {
        self.logs().join(format!("{server}.log"))
    }

    /// The server's own folder.
    pub fn server(&self, name: &str) -> PathBuf {
        self.0.join("servers").join(name)
    }

    pub fn make(&self) -> io::Result<()> {
        std::fs::create_dir_all(self.logs())?;
        std::fs::create_dir_all(self.0.join("servers"))
    }

    /// Makes the folder of a server, its log and the place where old lines of it are put, owned by the account
    /// that it runs under.
    pub fn prepare(&self, server: &str, account: Option<Account>) -> io::Result<()> {
        let (folder, log) = (self.server(server), self.log(server));
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        if let Some(Account { uid, gid }) = account {
            chown(&folder, Some(uid), Some(gid))?;
        }
        for log in [&log, &link::log::aside(&log)] {
            drop(link::log::open(log)?);
            // A log may hold what the application prints: it is for its owner.
            std::fs::set_permissions(log, Permissions::from_mode(0o600))?;
            if let Some(Account { uid, gid }) = account {
                chown(log, Some(uid), Some(gid))?;
            }
        }
        Ok(())
    }

    /// The agent's lock. A predecessor that was just killed may still be on its way out.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let path = self.0.join("agent.lock");
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            if let Some(lock) = Lock::take(&path)? {
                return Ok(lock);
            }
            if Instant::now() > deadline {
                return Err(StateError::Locked(path));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Makes a folder that only its owner may enter.
pub fn private(path: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    Ok(path.to_owned())
}
