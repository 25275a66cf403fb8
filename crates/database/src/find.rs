//! Where PostgreSQL is on this machine, and which version.
//!
//! Distributions keep the server's programs off PATH, in a folder for each major version. All folders are
//! looked at, because a data directory needs the major version that made it, not the newest one.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version that we run.
const OLDEST: u32 = 14;

/// Names a folder that holds the programs, in place of all others.
const VARIABLE: &str = "DOLMEN_POSTGRES_BIN";

/// Every program that the manager needs.
const PROGRAMS: [&str; 6] = ["initdb", "postgres", "pg_basebackup", "pg_ctl", "pg_controldata", "pg_rewind"];

/// Folders with one subfolder for each major version: Debian and Ubuntu; Red Hat, Fedora and SUSE.
const ROOTS: [(&str, &str); 3] =
    [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), ("/usr/lib", "postgresql")];

/// One installed PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// The folder of its programs.
    pub bin: PathBuf,
    pub version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// No usable PostgreSQL; says what was seen and how to install one.
#[derive(Debug, thiserror::Error)]
#[error(
    "no PostgreSQL {OLDEST} or newer with all of {} was found{}; install it (Debian and Ubuntu: apt install \
     postgresql; Fedora and Red Hat: dnf install postgresql-server postgresql-contrib) or name its folder in {VARIABLE}",
    PROGRAMS.join(", "), seen(rejected)
)]
pub struct NotFound {
    /// Each folder that had something of it, and why it does not do.
    pub rejected: Vec<String>,
}

fn seen(rejected: &[String]) -> String {
    if rejected.is_empty() { String::new() } else { format!(" ({})", rejected.join("; ")) }
}

/// The newest PostgreSQL of this machine, or the one in [`VARIABLE`].
pub fn find_postgres() -> Result<Postgres, NotFound> {
    let found = installed()?;
    Ok(found.into_iter().next().expect("`installed` never returns an empty list"))
}

/// All that are installed, newest first; never empty.
pub(crate) fn installed() -> Result<Vec<Postgres>, NotFound> {
    let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        return among(&folders(&std::env::var_os("PATH").unwrap_or_default()));
    };
    among(std::slice::from_ref(&folder)).map_err(|mut error| {
        if error.rejected.is_empty() {
            error.rejected.push(format!("{VARIABLE} names {}, which has no postgres", folder.display()));
        }
        error
    })
}

/// No psql; says how to install one.
#[derive(Debug, thiserror::Error)]
#[error(
    "no psql was found; install it (Debian and Ubuntu: apt install postgresql-client; Fedora and Red Hat: dnf install \
     postgresql) or name its folder in {VARIABLE}"
)]
pub struct NoPsql;

/// The newest psql of this machine, which understands every server that is not newer; or the one in [`VARIABLE`].
pub fn find_psql() -> Result<PathBuf, NoPsql> {
    let folders = match std::env::var_os(VARIABLE) {
        Some(folder) => vec![PathBuf::from(folder)],
        None => folders(&std::env::var_os("PATH").unwrap_or_default()),
    };
    let programs = folders.into_iter().map(|folder| folder.join("psql")).filter(|program| program.is_file());
    let known = programs.filter_map(|program| Some((version_of(&program)?, program)));
    // Of equal versions the last one: distributions put a script of that name on PATH.
    known.max_by_key(|(version, _)| *version).map(|(_, program)| program).ok_or(NoPsql)
}

fn version_of(program: &Path) -> Option<Version> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn folders(path: &OsStr) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(path).collect();
    for (root, prefix) in ROOTS {
        let Ok(entries) = std::fs::read_dir(root) else { continue };
        let versioned = entries.flatten().filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
            number
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        folders.extend(versioned.map(|entry| entry.path().join("bin")));
    }
    folders
}

fn among(folders: &[PathBuf]) -> Result<Vec<Postgres>, NotFound> {
    let mut found: Vec<Postgres> = Vec::new();
    let mut rejected = Vec::new();
    for folder in folders {
        match examine(folder) {
            Ok(Some(postgres)) if found.iter().all(|other| other.bin != postgres.bin) => found.push(postgres),
            Ok(_) => {}
            Err(why) => rejected.push(why),
        }
    }
    // The sort is stable: of equal versions the one that stands first on PATH wins.
    found.sort_by_key(|postgres| std::cmp::Reverse(postgres.version));
    if found.is_empty() { Err(NotFound { rejected }) } else { Ok(found) }
}

/// `Ok(None)` for a folder that has nothing to do with it.
fn examine(folder: &Path) -> Result<Option<Postgres>, String> {
    if !folder.join("postgres").is_file() {
        return Ok(None);
    }
    if let Some(missing) = PROGRAMS.iter().find(|program| !folder.join(program).is_file()) {
        return Err(format!("{} has no {missing}", folder.display()));
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output();
    let output = output.map_err(|error| format!("{}/postgres cannot run: {error}", folder.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(&text)
        .ok_or_else(|| format!("{}/postgres says \"{}\" as its version", folder.display(), text.trim()))?;
    if version.major < OLDEST {
        return Err(format!("{} has version {version}", folder.display()));
    }
    Ok(Some(Postgres { bin: folder.to_owned(), version }))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; also `16beta1` and `17devel`.
fn parse_version(text: &str) -> Option<Version> {
    let word = text.split_whitespace().nth(2)?;
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let end = digits(word);
    let major = word[..end].parse().ok()?;
    let rest = word[end..].strip_prefix('.').unwrap_or("");
    let minor = rest[..digits(rest)].parse().unwrap_or(0);
    Some(Version { major, minor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_writes_them() {
        let check = |text, expect| assert_eq!(parse_version(text).map(|v| v.to_string()).as_deref(), expect);
        check("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some("15.18"));
        check("postgres (PostgreSQL) 14.2\n", Some("14.2"));
        check("postgres (PostgreSQL) 17beta2\n", Some("17.0"));
        check("postgres (PostgreSQL) 18devel\n", Some("18.0"));
        check("something else", None);
        check("", None);
    }

    #[test]
    fn a_folder_without_all_programs_is_named_in_the_error() {
        let folder = std::env::temp_dir().join(format!("dolmen-find-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::File::create(folder.join("postgres")).unwrap();
        let error = among(&[folder.clone(), "/nowhere".into()]).unwrap_err().to_string();
        assert!(error.contains("has no initdb") && error.contains("apt install postgresql"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn this_machine_has_one() {
        let postgres = find_postgres().unwrap();
        assert!(postgres.version.major >= OLDEST, "{postgres:?}");
    }
}
