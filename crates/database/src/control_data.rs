//! What pg_controldata says of a data directory while no postgres runs on it.

use crate::group::Lsn;

/// The part of it that decisions need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlData {
    /// The identity of a cluster: the same on a primary and all that was copied from it.
    pub(crate) system_identifier: u64,
    pub(crate) timeline: u32,
    /// After a primary ended in order: one byte past the beginning of its shutdown checkpoint.
    pub(crate) closed: Option<Lsn>,
}

/// Reads the output of pg_controldata, run with `LC_ALL=C`.
pub(crate) fn parse(text: &str) -> Option<ControlData> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(':')).map(str::trim)
    };
    let in_order = field("Database cluster state") == Some("shut down");
    let checkpoint: Option<Lsn> = field("Latest checkpoint location").and_then(|at| at.parse().ok());
    Some(ControlData {
        system_identifier: field("Database system identifier")?.parse().ok()?,
        timeline: field("Latest checkpoint's TimeLineID")?.parse().ok()?,
        closed: checkpoint.filter(|_| in_order).map(|Lsn(at)| Lsn(at + 1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pg_control version number:            1300\n\
                        Database system identifier:           7711132451952785352\n\
                        Database cluster state:               shut down\n\
                        Latest checkpoint location:           0/1529C28\n\
                        Latest checkpoint's TimeLineID:       3\n\
                        Latest checkpoint's PrevTimeLineID:   2\n";

    #[test]
    fn the_fields_are_found() {
        let expect = ControlData {
            system_identifier: 7_711_132_451_952_785_352,
            timeline: 3,
            closed: Some(Lsn(0x0152_9C29)),
        };
        assert_eq!(parse(TEXT), Some(expect));
        assert_eq!(parse("pg_controldata: error"), None);
    }

    #[test]
    fn a_standby_has_closed_nothing() {
        for state in ["shut down in recovery", "in production", "in archive recovery"] {
            assert_eq!(parse(&TEXT.replace("shut down", state)).unwrap().closed, None);
        }
    }
}
