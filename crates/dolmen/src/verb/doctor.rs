//! `dolmen doctor`: what this machine lacks for the site, and the command that mends it.

mod database;

use std::path::Path;
use std::process::ExitCode;

use plan::{Place, Plan, Role};

use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use crate::up::prepare;

/// Disk space below which a database will soon stop.
const FREE_BYTES: u64 = 1024 * 1024 * 1024;

/// Descriptors that a busy balancer needs: two for each connection.
const DESCRIPTORS: u64 = 4096;

#[derive(Debug, clap::Args)]
pub struct Doctor {}

/// What was found, and what would mend it.
enum Finding {
    Fine(String),
    Lacks { what: String, mend: String },
}

impl Doctor {
    pub fn run(self, file: &Path) -> Result<ExitCode, Failure> {
        let home = super::home(file)?;
        let plan = if file.exists() {
            Some(prepare::mean(&home, &prepare::read(&home)?, Place::Up { block: 1 }, 1)?)
        } else {
            None
        };
        let runs_postgres = plan.as_ref().is_none_or(|plan| plan.role(Role::Database).next().is_some());
        let for_postgres = |find: &dyn Fn() -> Finding| runs_postgres.then(find);
        let findings = [
            for_postgres(&postgres),
            for_postgres(&|| database::sync(&home.folder)),
            for_postgres(&|| database::namespaces(Path::new("/proc/sys"))),
            program(&home, plan.as_ref()),
            disk(&home)?,
            descriptors(),
        ];
        let mut lacks = false;
        for finding in findings.into_iter().flatten() {
            match finding {
                Finding::Fine(what) => out::line(&format!("  fine   {what}")),
                Finding::Lacks { what, mend } => {
                    lacks = true;
                    out::line(&format!("  lacks  {what}"));
                    out::line(&format!("         {mend}"));
                }
            }
        }
        Ok(if lacks { ExitCode::from(1) } else { ExitCode::SUCCESS })
    }
}

fn postgres() -> Finding {
    match ::database::find_postgres() {
        Ok(found) => Finding::Fine(format!("PostgreSQL {} in {}", found.version, found.bin.display())),
        Err(error) => Finding::Lacks {
            what: error.to_string(),
            mend:
                "sudo apt-get install postgresql   # Debian, Ubuntu; then stop its own cluster if it made one"
                    .into(),
        },
    }
}

fn program(home: &Home, plan: Option<&Plan>) -> Option<Finding> {
    let command = &plan?.app.as_ref()?.command;
    let words = plan::command::words(command).ok()?;
    let name = words.first()?;
    let beside = crate::site::beside_binary().ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        [Some(home.folder.clone()), beside].into_iter().flatten().chain(std::env::split_paths(&path));
    let found = folders.map(|folder| folder.join(name)).find(|candidate| candidate.is_file());
    Some(match found {
        Some(program) => Finding::Fine(format!("application: {}", program.display())),
        None => Finding::Lacks {
            what: format!(
                "the program {name} of `[app] command`: not in the site's folder, beside dolmen, or on PATH"
            ),
            mend: "build or install it, or correct `command`".into(),
        },
    })
}

fn disk(home: &Home) -> Result<Option<Finding>, Failure> {
    let free = rustix::fs::statvfs(&home.folder).map_err(std::io::Error::from)?;
    let bytes = free.f_bavail * free.f_frsize;
    let mib = bytes / 1024 / 1024;
    Ok(Some(if bytes >= FREE_BYTES {
        Finding::Fine(format!("disk: {mib} MiB free"))
    } else {
        Finding::Lacks {
            what: format!("disk: only {mib} MiB free"),
            mend: "make room: a database that cannot write stops".into(),
        }
    }))
}

fn descriptors() -> Option<Finding> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    Some(match limit {
        Some(limit) if limit < DESCRIPTORS => Finding::Lacks {
            what: format!("open files: at most {limit}"),
            mend: format!("ulimit -Hn {DESCRIPTORS}, or LimitNOFILE= in the unit"),
        },
        Some(limit) => Finding::Fine(format!("open files: up to {limit}")),
        None => Finding::Fine("open files: unlimited".into()),
    })
}
