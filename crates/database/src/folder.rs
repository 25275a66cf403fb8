//! What lies where in a database server's own folder.
//!
//! The configuration, the socket and the log stand outside of the data directory: pg_rewind copies every
//! file in there from the other server, a socket in there breaks it, and a copy is never someone else's port.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes what must be there before anything else. The account that we run under owns it all.
    pub(crate) fn prepare(root: &Path) -> io::Result<Self> {
        let folder = Self(std::path::absolute(root)?);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.socket_folder())?;
        Ok(folder)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// A data directory in the making; renamed to `data` when it is whole, removed whenever it is not.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.0.join("data.new")
    }

    /// The data directory that the last copy replaced.
    pub(crate) fn aside(&self) -> PathBuf {
        self.0.join("data.old")
    }

    pub(crate) fn socket_folder(&self) -> PathBuf {
        self.0.join("socket")
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.0.join("dolmen.conf")
    }

    /// Who may connect: pg_hba.conf.
    pub(crate) fn access(&self) -> PathBuf {
        self.0.join("pg_hba.conf")
    }

    /// Which account of the machine may be which role: pg_ident.conf.
    pub(crate) fn accounts(&self) -> PathBuf {
        self.0.join("pg_ident.conf")
    }

    /// The replication password as libpq wants it.
    pub(crate) fn passwords(&self) -> PathBuf {
        self.0.join("passfile")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("postgres.log")
    }

    /// Whose data this is: see [`crate::stamp::Memory`].
    pub(crate) fn memory(&self) -> PathBuf {
        self.0.join("memory.json")
    }

    /// Which epoch the data is of: see [`crate::failover::Stamp`].
    pub(crate) fn stamp(&self) -> PathBuf {
        self.0.join("stamp.json")
    }
}
