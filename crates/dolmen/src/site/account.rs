//! The accounts that servers run under when dolmen was started by root: never one for all.
//!
//! The application cannot read the database's files, and neither can touch the servers' sockets or keys.

use std::process::Command;

use plan::Role;

use super::StateError;

/// Balancer, web, DNS and gates; the application; the database. Each is a group of its own as well.
const NAMES: [&str; 3] = ["dolmen", "dolmen-app", "dolmen-db"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::App => "dolmen-app",
        Role::Database => "dolmen-db",
        Role::Dns | Role::Balancer | Role::Web | Role::Gate | Role::Control | Role::Monitor => "dolmen",
    }
}

/// The account of a role; none when we are not root.
pub fn of(role: Role) -> Option<Account> {
    if is_root() { find(name_of(role)) } else { None }
}

/// The application's account, which may read the application files.
pub fn application() -> Option<Account> {
    of(Role::App)
}

/// Looks in /etc/passwd, where `useradd --system` writes.
fn find(name: &str) -> Option<Account> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut fields =
        passwd.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(name))?;
    let uid = fields.nth(2)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Account { uid, gid })
}

/// Makes the accounts that are not there yet.
pub fn make_all() -> Result<(), StateError> {
    NAMES.iter().filter(|name| find(name).is_none()).try_for_each(|name| make(name))
}

fn make(name: &str) -> Result<(), StateError> {
    let failed = |because: String| StateError::Account { name: name.to_owned(), because };
    let arguments = [
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
    ];
    // Not on every root's PATH.
    let output = Command::new("/usr/sbin/useradd").args(arguments).arg(name).output();
    let output = output.map_err(|error| failed(format!("cannot run useradd: {error}")))?;
    // Two sites may start at once: what counts is that it is there.
    if find(name).is_none() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(())
}
