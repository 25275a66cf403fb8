//! What a database that fails over needs besides PostgreSQL: a disk that syncs within the lease, and a kernel that
//! lets the guard make a namespace.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use ::database::failover::lease::LEASE_DEFAULT;

use super::Finding;

/// How often the disk is tried; the slowest counts, as a lease cannot wait for better times.
const TRIES: usize = 8;

/// A page of PostgreSQL's log.
const PAGE: [u8; 8192] = [0; 8192];

/// The part of a lease that one sync may take.
const SLOW: u32 = 10;

/// A setting of the kernel: where it stands, which values forbid, and what mends it.
type Setting = (&'static str, fn(u64) -> bool, &'static str);

/// Settings that forbid an unprivileged account its namespaces.
const FORBIDDEN: [Setting; 4] = [
    (
        "kernel/unprivileged_userns_clone",
        |value| value == 0,
        "sudo sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        |value| value != 0,
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("user/max_user_namespaces", |value| value == 0, "sudo sysctl -w user.max_user_namespaces=10000"),
    ("user/max_pid_namespaces", |value| value == 0, "sudo sysctl -w user.max_pid_namespaces=10000"),
];

/// The disk under this folder.
pub fn sync(folder: &Path) -> Finding {
    let limit = LEASE_DEFAULT / SLOW;
    match slowest(folder) {
        Ok(took) if took <= limit => {
            Finding::Fine(format!("sync: a page is on the disk within {}", ms(took)))
        }
        Ok(took) => Finding::Lacks {
            what: format!("sync: a page took {} to be on the disk; a lease allows {}", ms(took), ms(limit)),
            mend: "put the site on a disk of its own, or on a faster one: a slow one causes failovers".into(),
        },
        Err(error) => Finding::Lacks {
            what: format!("sync: cannot write in {}: {error}", folder.display()),
            mend: format!("sudo chown $USER {}", folder.display()),
        },
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn slowest(folder: &Path) -> io::Result<Duration> {
    let path = folder.join(format!(".dolmen-sync-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let mut turns = (0..TRIES).map(|_| {
        let began = Instant::now();
        file.write_all(&PAGE)?;
        file.sync_data()?;
        Ok(began.elapsed())
    });
    let slowest = turns
        .try_fold(Duration::ZERO, |slowest, took: io::Result<Duration>| took.map(|took| slowest.max(took)));
    std::fs::remove_file(&path)?;
    slowest
}

/// Without namespaces the guard still fences, by a weaker way; `docs/fencing.md` tells the difference.
pub fn namespaces(kernel: &Path) -> Finding {
    let value = |name: &str| std::fs::read_to_string(kernel.join(name)).ok()?.trim().parse().ok();
    let forbids = |(name, forbidden, _): &&(&str, fn(u64) -> bool, &str)| value(name).is_some_and(forbidden);
    match FORBIDDEN.iter().find(forbids) {
        None => Finding::Fine("namespaces: the guard of PostgreSQL may make its own".into()),
        Some((name, _, mend)) => Finding::Lacks {
            what: format!(
                "namespaces: {} forbids them, so that the guard of PostgreSQL has a weaker fence",
                name.replace('/', ".")
            ),
            mend: (*mend).to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::disk::{self, Access};

    #[test]
    fn a_kernel_that_forbids_namespaces_is_found_by_its_setting() {
        let folder = std::env::temp_dir().join(format!("dolmen-doctor-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("user")).unwrap();
        std::fs::create_dir_all(folder.join("kernel")).unwrap();
        let set = |name: &str, value: &str| {
            disk::replace(&folder.join(name), value.as_bytes(), Access::Owner).unwrap()
        };
        set("user/max_user_namespaces", "31000\n");
        assert!(matches!(namespaces(&folder), Finding::Fine(_)));
        set("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        let Finding::Lacks { what, mend } = namespaces(&folder) else { panic!("it is forbidden") };
        assert!(what.contains("kernel.apparmor_restrict_unprivileged_userns forbids"), "{what}");
        assert!(mend.ends_with("apparmor_restrict_unprivileged_userns=0"), "{mend}");
        assert!(slowest(&folder).unwrap() > Duration::ZERO);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(sync(&folder), Finding::Lacks { .. }));
    }
}
