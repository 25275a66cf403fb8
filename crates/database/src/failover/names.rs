//! `synchronous_standby_names`: whose word a commit waits for.

use std::collections::BTreeSet;
use std::fmt;

use crate::group::SynchronousSet;

/// `ANY w (a, b)`, or nothing. Named servers, never `*`, which any client could claim to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    pub wait_for: u32,
    pub members: BTreeSet<String>,
}

impl Names {
    /// Commits wait for nobody.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// What the recorded set asks for.
    pub fn of(set: &SynchronousSet) -> Self {
        if set.wait_for == 0 {
            return Self::nobody();
        }
        Self { wait_for: set.wait_for, members: set.members.clone() }
    }

    /// As PostgreSQL says it; None for what was not written by us.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::nobody());
        }
        let (count, rest) = text.strip_prefix("ANY ")?.split_once(' ')?;
        let list = rest.strip_prefix('(')?.strip_suffix(')')?;
        let unquoted = |name: &str| name.strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
        let members = list.split(", ").map(unquoted).collect::<Option<_>>()?;
        Some(Self { wait_for: count.parse().ok()?, members })
    }
}

/// Quoted, because of the hyphen in a server's name.
impl fmt::Display for Names {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.members.is_empty() {
            return Ok(());
        }
        let quoted: Vec<String> = self.members.iter().map(|name| format!("\"{name}\"")).collect();
        write!(to, "ANY {} ({})", self.wait_for, quoted.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_are_written() {
        let two = Names { wait_for: 1, members: ["database-3".into(), "database-2".into()].into() };
        assert_eq!(two.to_string(), r#"ANY 1 ("database-2", "database-3")"#);
        for names in [two, Names::nobody()] {
            assert_eq!(Names::parse(&names.to_string()), Some(names));
        }
        for foreign in ["*", "ANY 1 (*)", "FIRST 1 (\"a\")", "ANY x (\"a\")", "a"] {
            assert_eq!(Names::parse(foreign), None, "{foreign}");
        }
    }
}
