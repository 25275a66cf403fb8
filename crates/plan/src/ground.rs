//! What the meaning of a site file depends on besides its text: where it will run, and a few facts of the
//! file system. They are arguments, so that every decision of this crate can be tested with data alone.

use std::path::{Path, PathBuf};

use crate::meant::Place;

/// Where a plan is made for.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    pub place: Place,
    /// The generation that the plan will carry.
    pub generation: u64,
    /// The name of the site file's folder, which names a site without a domain.
    pub folder: &'a str,
    pub files: &'a dyn Files,
}

/// The facts of the file system that the meaning needs. Paths are as written: relative to the site file.
pub trait Files {
    fn is_folder(&self, path: &Path) -> bool;
    fn is_file(&self, path: &Path) -> bool;
}

/// The folder of the site file on this computer.
#[derive(Clone, Debug)]
pub struct Disk {
    pub folder: PathBuf,
}

impl Files for Disk {
    fn is_folder(&self, path: &Path) -> bool {
        self.folder.join(path).is_dir()
    }

    fn is_file(&self, path: &Path) -> bool {
        self.folder.join(path).is_file()
    }
}

/// No file system at all: nothing exists.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn is_folder(&self, _path: &Path) -> bool {
        false
    }

    fn is_file(&self, _path: &Path) -> bool {
        false
    }
}
