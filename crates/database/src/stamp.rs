//! What must outlive this process and is not in the data directory: whose data it is, and which epoch it is of.

use std::io;
use std::path::Path;

use link::disk::{Access, read_json, replace_json};
use serde::{Deserialize, Serialize};

use crate::failover::Stamp;
use crate::folder::Folder;

/// When the data is gone and this is not, nobody starts empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) system_identifier: Option<u64>,
}

/// Both files, as they are on disk.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: Folder,
    memory: Memory,
    stamp: Option<Stamp>,
}

impl Kept {
    pub(crate) fn read(folder: &Folder) -> io::Result<Self> {
        let memory = read_json(&folder.memory())?.unwrap_or_default();
        Ok(Self { memory, stamp: read_json(&folder.stamp())?, folder: folder.clone() })
    }

    pub(crate) fn remembered(&self) -> Option<u64> {
        self.memory.system_identifier
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// From the first start on it is known whose data this is.
    pub(crate) fn remember(&mut self, system_identifier: u64) -> io::Result<()> {
        if self.memory.system_identifier == Some(system_identifier) {
            return Ok(());
        }
        let memory = Memory { system_identifier: Some(system_identifier) };
        write(&self.folder.memory(), &memory)?;
        self.memory = memory;
        Ok(())
    }

    /// Changes the stamp; it is on disk before anything that it speaks of is done.
    pub(crate) fn mark(&mut self, change: impl FnOnce(&mut Stamp)) -> io::Result<()> {
        let mut stamp = self.stamp.unwrap_or_default();
        change(&mut stamp);
        if stamp.system_identifier == 0 {
            // Data of an earlier version, which wrote no stamp.
            stamp.system_identifier = self.memory.system_identifier.unwrap_or_default();
        }
        if self.stamp != Some(stamp) {
            write(&self.folder.stamp(), &stamp)?;
            self.stamp = Some(stamp);
        }
        Ok(())
    }
}

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    replace_json(path, value, Access::Owner)
}
