//! What contradicts itself, so that a person must decide. Nothing is touched, and the remedy is named.

use super::seen::{Data, Record, Seen, Upstream};
use super::view::View;

/// The contradiction, if there is one.
pub(super) fn refuse(seen: &Seen) -> Option<String> {
    let view = View::of(seen);
    let recorded = view.and_then(|view| view.group.system_identifier);
    match &seen.data {
        Data::Absent => absent(seen, view, recorded),
        Data::Unreadable(why) => Some(format!("{why}; it is left untouched: mend it or move it away")),
        Data::OtherVersion(major) => Some(format!(
            "the data directory was made by PostgreSQL {major}, which is not installed here (found: {}): install \
             it, or move the data with pg_upgrade; it is left untouched",
            list(&seen.installed)
        )),
        Data::Present { system_identifier: is, standby, .. } => {
            let known = |known: Option<u64>| known.filter(|known| known != is);
            let stamped = seen.stamp.map(|stamp| stamp.system_identifier);
            let of = |owner: &str, known: u64| {
                format!(
                    "the data directory belongs to cluster {is}, not to {known}{owner}: put the right one back, or \
                     move the folder of this server away to have the primary copied; it is left untouched"
                )
            };
            known(recorded)
                .map(|known| of(" of the record", known))
                .or_else(|| known(seen.remembered).map(|known| of(" that was here before", known)))
                .or_else(|| known(stamped).map(|known| of(" that was here before", known)))
                .or_else(|| upstream(seen, *is))
                .or_else(|| unrecorded(seen, *standby))
                .or_else(|| beyond(seen, view?))
        }
    }
}

/// A replica without data is copied anew. A last primary without data is not: it may be the only one with
/// everything.
fn absent(seen: &Seen, view: Option<View>, recorded: Option<u64>) -> Option<String> {
    let cluster = seen.remembered.or(recorded)?;
    let gone = match view {
        Some(view) => view.i_hold(),
        None => matches!(seen.record, Record::Absent),
    };
    gone.then(|| {
        format!(
            "the data directory of cluster {cluster} is gone, and this server was its last primary: put it back, \
             or make a replica the primary with `dolmen switchover --force SERVER` and lose what that lacks"
        )
    })
}

fn upstream(seen: &Seen, is: u64) -> Option<String> {
    let view = View::of(seen).filter(|view| !view.i_hold())?;
    match &seen.upstream {
        Upstream::Reached { system_identifier: theirs, .. } if *theirs != is => Some(format!(
            "the data directory belongs to cluster {is}, but {} has cluster {theirs}: move the folder of this \
             server away to have it copied; it is left untouched",
            view.group.holder
        )),
        _ => None,
    }
}

/// Data that control should know of and does not.
fn unrecorded(seen: &Seen, standby: bool) -> Option<String> {
    if !matches!(seen.record, Record::Absent) {
        return None;
    }
    let first = seen.servers.first() == Some(&seen.me);
    match seen.stamp {
        Some(stamp) => Some(format!(
            "control has no record of the database, but the data here is of epoch {}: control has lost its \
             state: bring the folders of its servers back; the data is left untouched",
            stamp.confirmed.max(stamp.following)
        )),
        None if first && standby => Some(
            "the plan makes this server the first primary, but its data directory is a replica's: name the machine \
             of the old primary first in [database] on; it is left untouched"
                .to_owned(),
        ),
        None => None,
    }
}

/// Data of an epoch that the record has never heard of: control was recovered from the state of a voter that had not
/// heard of it. What of it was acknowledged only a person can know.
fn beyond(seen: &Seen, view: View) -> Option<String> {
    let (group, me) = (view.group, &seen.me);
    let decided = group.reinit.contains(me) || group.force.as_ref() == Some(me);
    let newest = forgotten(&view).filter(|_| !decided)?;
    Some(format!(
        "the data here is of epoch {newest}, of which control knows nothing, so it has forgotten a failover: \
         `dolmen switchover --force {me}` lets this data count, `dolmen database reinit {me}` copies that of the \
         primary; it is left untouched"
    ))
}

/// The epoch of the data here, when the record should know of it and does not. That of the holder counts: it was
/// taken over with, and is marked with the new epoch next.
pub(super) fn forgotten(view: &View) -> Option<u64> {
    let (stamp, group) = (view.seen.stamp?, view.group);
    let newest = stamp.confirmed.max(stamp.following);
    let remembers = group.history.first().is_none_or(|first| newest >= first.epoch);
    let unknown = newest > 0 && remembers && group.promotion(newest).is_none();
    (unknown && !view.i_hold()).then_some(newest)
}

fn list(majors: &[u32]) -> String {
    majors.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
