//! The states of a database server. The table is printed in docs/failover.md; a test compares them.

/// What a server is, as [`super::decide`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Boot,
    Initialising,
    Cloning,
    Starting,
    Following,
    Sealed,
    Promoting,
    Primary,
    HandingOver,
    Fencing,
    Released,
    Rejoining,
    Ending,
    Paused,
    Failed,
}

/// One row: the state, what postgres is in it, where read-write clients are led, when it is left.
pub type Row = (Standing, &'static str, &'static str, &'static str);

/// The table of states.
pub const TABLE: [Row; 15] = [
    (Standing::Boot, "must be dead: leftovers are killed", "held", "the record was read from control"),
    (Standing::Initialising, "none yet: initdb", "held", "the cluster is made"),
    (Standing::Cloning, "the old one if any, until the copy is whole", "to the primary", "the copy is whole"),
    (
        Standing::Starting,
        "a sealed standby that replays its log",
        "to the primary",
        "all its log is replayed",
    ),
    (
        Standing::Following,
        "standby of the holder",
        "to the primary",
        "the holder is silent for a lease, or released its lease, or a ballot is open",
    ),
    (
        Standing::Sealed,
        "standby without WAL receiver, all its log replayed",
        "held",
        "it takes over, or the ballot is over",
    ),
    (
        Standing::Promoting,
        "being promoted, then read-write for us alone",
        "held",
        "the epoch is committed as every commit will be",
    ),
    (
        Standing::Primary,
        "read-write",
        "to it",
        "the lease ends, postgres dies, or another primary is asked for",
    ),
    (
        Standing::HandingOver,
        "ending in order, at most 2 s",
        "cut, held",
        "it has ended: the lease is released",
    ),
    (Standing::Fencing, "killed, every process of it", "cut, held", "no process is left"),
    (Standing::Released, "none, or a sealed standby", "held", "another took over, or nobody did"),
    (Standing::Rejoining, "follows, is rewound or copied", "to the primary", "it streams"),
    (Standing::Ending, "ending in order", "held", "the agent's order is carried out"),
    (Standing::Paused, "as it was", "as it was", "the operator resumes"),
    (Standing::Failed, "as it was, or stopped; its data is kept", "held", "a person has decided"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_docs_is_this_one() {
        let docs = include_str!("../../../../docs/failover.md");
        for (standing, postgres, clients, left) in TABLE {
            let row = format!("| {standing:?} | {postgres} | {clients} | {left} |");
            assert!(docs.contains(&row), "docs/failover.md lacks this row:\n{row}");
        }
    }
}
