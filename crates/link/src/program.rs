//! The program file: where a newer one is looked for, which one a process runs, and which build it is.
//!
//! A running program keeps its file, whatever becomes of the name: an upgrade of the package replaces the file on
//! disk, and nothing happens until `dolmen upgrade`. So two questions are asked of the kernel each time: what lies at
//! the path now, and what a process was started from.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// Names the program file for the processes that we start: their own link to it follows a file that is moved away
/// (`mv dolmen dolmen.old`), and would not find the one that takes its place.
pub const VARIABLE: &str = "DOLMEN_PROGRAM";

/// Bytes of the digest that name a build: enough for people and for telling apart.
const ID_BYTES: usize = 6;

/// One build of dolmen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// `0.1.0`
    pub version: String,
    /// The beginning of the SHA-256 of the program file, in hexadecimal digits.
    pub id: String,
}

impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.version, self.id)
    }
}

/// A file that cannot be mistaken for another one as long as a process runs it or somebody has it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode(u64, u64);

impl From<Metadata> for Inode {
    fn from(meta: Metadata) -> Self {
        Self(meta.dev(), meta.ino())
    }
}

/// Where this program lay on disk when that was first asked for, and where one that replaces it does: whoever is to
/// know it later asks when it begins, since the kernel's answer follows the file to another name.
pub fn path() -> io::Result<PathBuf> {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PATH.get() {
        return Ok(path.clone());
    }
    let path = find()?;
    Ok(PATH.get_or_init(|| path).clone())
}

fn find() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    let path = std::env::current_exe()?;
    Ok(match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(replaced) => PathBuf::from(OsStr::from_bytes(replaced)),
        None => path,
    })
}

/// What lies at this path now.
pub fn at(path: &Path) -> io::Result<Inode> {
    Ok(fs::metadata(path)?.into())
}

/// What this process runs.
pub fn mine() -> io::Result<Inode> {
    at(Path::new("/proc/self/exe"))
}

/// What that process runs; an error when it has ended, or is none of ours.
pub fn of(pid: u32) -> io::Result<Inode> {
    at(&PathBuf::from(format!("/proc/{pid}/exe")))
}

/// Names the build in this file.
pub fn id(file: &mut File) -> io::Result<String> {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let sha256 = suite.tls13().map(|suite| suite.common.hash_provider).ok_or(io::ErrorKind::Unsupported)?;
    let mut context = sha256.start();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => context.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(context.finish().as_ref().iter().take(ID_BYTES).map(|byte| format!("{byte:02x}")).collect())
}

/// The build that this process runs.
pub fn my_build(version: &str) -> io::Result<Build> {
    let id = id(&mut File::open("/proc/self/exe")?)?;
    Ok(Build { version: version.to_owned(), id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_content_and_a_process_by_its_file() {
        let mine = std::env::current_exe().unwrap();
        assert_eq!(at(&mine).unwrap(), super::mine().unwrap());
        assert_eq!(of(std::process::id()).unwrap(), super::mine().unwrap());
        let copy = std::env::temp_dir().join(format!("dolmen-program-{}", std::process::id()));
        fs::copy(&mine, &copy).unwrap();
        assert_ne!(at(&copy).unwrap(), super::mine().unwrap());
        let same = id(&mut File::open(&copy).unwrap()).unwrap();
        assert_eq!(same, my_build("x").unwrap().id);
        assert_eq!(same.len(), 2 * ID_BYTES);
        let mut longer = File::options().append(true).open(&copy).unwrap();
        io::Write::write_all(&mut longer, b"x").unwrap();
        assert_ne!(id(&mut File::open(&copy).unwrap()).unwrap(), same);
        fs::remove_file(&copy).unwrap();
    }
}
