//! When a commit waits for a replica.
//!
//! The rule while roles are fixed: the primary of a new site commits alone until the first replica has its
//! copy and streams; from that moment a commit is acknowledged when one replica has it on disk, and that
//! stays so over restarts. When all replicas are away afterwards, commits wait for one to come back.
//!
//! Why not wait from the first moment: the application makes its tables when it starts, and a copy of the
//! database takes as long as it takes. Nothing is lost by it, because a replica that was never complete could
//! never have taken over. Why not go on alone when the last replica goes away: emptying
//! `synchronous_standby_names` acknowledges every waiting commit at once, and someone who then makes the
//! replica a primary by hand loses them. Going on alone is safe once it is recorded where every candidate
//! must look that no one may be promoted meanwhile; there is no such place yet.

/// Whether commits should wait now.
pub(crate) fn wanted(planned: bool, replicas: &[String], already: bool, streaming: bool) -> bool {
    planned && !replicas.is_empty() && (already || streaming)
}

/// The value of `synchronous_standby_names`. Named servers, never `*`, which any client could claim to be.
pub(crate) fn names(waits: bool, replicas: &[String]) -> String {
    if !waits {
        return String::new();
    }
    let quoted: Vec<String> = replicas.iter().map(|name| format!("\"{name}\"")).collect();
    format!("ANY 1 ({})", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_wait_from_the_first_streaming_replica_on() {
        let two = ["database-2".to_owned()];
        for (planned, replicas, already, streaming, expect) in [
            (true, &two[..], false, false, false),
            (true, &two[..], false, true, true),
            (true, &two[..], true, false, true),
            (true, &two[..], true, true, true),
            (false, &two[..], true, true, false),
            (true, &[][..], true, false, false),
        ] {
            assert_eq!(wanted(planned, replicas, already, streaming), expect);
        }
    }

    #[test]
    fn names_are_quoted_because_of_the_hyphen() {
        let replicas = ["database-2".to_owned(), "database-3".to_owned()];
        assert_eq!(names(true, &replicas), r#"ANY 1 ("database-2", "database-3")"#);
        assert_eq!(names(false, &replicas), "");
    }
}
