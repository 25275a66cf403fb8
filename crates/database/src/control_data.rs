//! What pg_controldata says of a data directory while no postgres runs on it.

/// The part of it that decisions need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlData {
    /// The identity of a cluster: the same on a primary and all that was copied from it.
    pub(crate) system_identifier: u64,
    pub(crate) timeline: u32,
}

/// Reads the output of pg_controldata, run with `LC_ALL=C`.
pub(crate) fn parse(text: &str) -> Option<ControlData> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(':')).map(str::trim)
    };
    Some(ControlData {
        system_identifier: field("Database system identifier")?.parse().ok()?,
        timeline: field("Latest checkpoint's TimeLineID")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found() {
        let text = "pg_control version number:            1300\n\
                    Database system identifier:           7711132451952785352\n\
                    Database cluster state:               shut down\n\
                    Latest checkpoint's TimeLineID:       3\n\
                    Latest checkpoint's PrevTimeLineID:   2\n";
        assert_eq!(
            parse(text),
            Some(ControlData { system_identifier: 7_711_132_451_952_785_352, timeline: 3 })
        );
        assert_eq!(parse("pg_controldata: error"), None);
    }
}
