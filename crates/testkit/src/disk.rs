//! A small disk for one folder of a site: a tmpfs of its own, which can be filled to the last byte. It needs root; what
//! stays mounted when a test breaks off is no trouble in a mount namespace of its own ([`crate::network`] makes one).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::network::run;

const BALLAST: &str = "ballast";

/// What the folder holds lies on it until [`SmallDisk::away`]. Nothing may use the folder while either happens.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    disk: PathBuf,
}

impl SmallDisk {
    /// With so much room beside what is in the folder now.
    #[track_caller]
    pub fn below(folder: &Path, room_bytes: u64) -> Self {
        Self::lay(folder, room_bytes).unwrap_or_else(|because| panic!("no small disk: {because}"))
    }

    /// The same for a folder that need not be there yet. None where mounting is not allowed: without root, and in most
    /// containers.
    pub fn where_allowed(folder: &Path, room_bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("a folder can be made");
        Self::lay(folder, room_bytes).inspect_err(|because| println!("no small disk: {because}")).ok()
    }

    fn lay(folder: &Path, room_bytes: u64) -> Result<Self, String> {
        let disk = folder.with_extension("disk");
        std::fs::create_dir(&disk).expect("a folder can be made");
        let small = Self { folder: folder.to_owned(), disk };
        let size = format!("size={}", used_bytes(folder) + room_bytes);
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&small.disk).output();
        let mounted = mounted.expect("mount can be run (util-linux)");
        if !mounted.status.success() {
            return Err(String::from_utf8_lossy(&mounted.stderr).into_owned());
        }
        copy(folder, &small.disk);
        run(Command::new("mount").arg("--bind").args([&small.disk, folder]));
        Ok(small)
    }

    /// Until nothing more fits.
    pub fn fill(&self) {
        let mut ballast = File::create(self.disk.join(BALLAST)).expect("a file can be made");
        for bytes in [1 << 20, 4096, 1] {
            let bytes = vec![0; bytes];
            while ballast.write_all(&bytes).is_ok() {}
        }
    }

    pub fn make_room(&self) {
        std::fs::remove_file(self.disk.join(BALLAST)).expect("it was filled");
    }

    /// What it holds goes back to where it was.
    pub fn away(self) {
        run(Command::new("umount").arg(&self.folder));
        let old = std::fs::read_dir(&self.folder).expect("the folder is there");
        for entry in old {
            let path = entry.expect("an entry").path();
            let removed = if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.expect("what is old can be removed");
        }
        copy(&self.disk, &self.folder);
    }
}

impl Drop for SmallDisk {
    /// Whoever still uses it, in a test that breaks off, keeps it until it ends.
    fn drop(&mut self) {
        for place in [&self.folder, &self.disk] {
            let _not_mounted = Command::new("umount").arg("--lazy").arg(place).output();
        }
        let _left = std::fs::remove_dir(&self.disk);
    }
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("--archive").arg(from.join(".")).arg(to));
    // The folder's own rights as well.
    run(Command::new("chown").arg("--reference").args([from, to]));
    run(Command::new("chmod").arg("--reference").args([from, to]));
}

fn used_bytes(folder: &Path) -> u64 {
    let output = Command::new("du").args(["--summarize", "--block-size=1"]).arg(folder).output();
    let text = String::from_utf8(output.expect("du can be run").stdout).expect("text");
    text.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number of bytes")
}
