//! How a server with data comes to follow an epoch: as it is, rewound, or copied anew.
//!
//! PostgreSQL's timeline numbers decide nothing here: two servers promoted at the same time give theirs the
//! same number, pg_rewind then finds "no rewind required", and the standby serves rows that never were.

use super::Stamp;
use crate::group::{Group, Position};

/// What must happen before the server can follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejoin {
    /// Its log is a beginning of the primary's.
    Follow,
    /// Its log left the primary's after the end of this epoch's common part; what it has beyond was never acknowledged.
    Rewind { common: u64, because: String },
    /// Nothing can be made of its data.
    Copy { because: String },
}

/// `position` is that of a sealed standby with all its log replayed, its epoch by [`Group::epoch_of`].
pub fn rejoin(group: &Group, stamp: Option<Stamp>, position: Position) -> Rejoin {
    let copy = |because: String| Rejoin::Copy { because };
    let target = group.epoch;
    let Some(stamp) = stamp else {
        return copy("nobody knows which history its data belongs to".into());
    };
    if stamp.spoiled {
        return copy("a rewind of its data was not finished".into());
    }
    let own = position.epoch;
    if own > target {
        return copy(format!("its data is of epoch {own}, which the record does not know"));
    }
    // Whether it is a beginning: of all epochs from its own to the target, the first must begin behind it.
    if own == target {
        return Rejoin::Follow;
    }
    let line: Vec<_> = group.ancestry(target).collect();
    if let Some(child) = line.iter().find(|promotion| promotion.parent == own) {
        return if position.lsn <= child.switch && !unrecorded(group, stamp, position) {
            Rejoin::Follow
        } else {
            diverged(group, stamp, position, own)
        };
    }
    let known = |epoch: u64| epoch == 0 || line.iter().any(|promotion| promotion.epoch == epoch);
    let common = group.ancestry(own).map(|promotion| promotion.parent).find(|epoch| known(*epoch));
    match common {
        Some(common) => diverged(group, stamp, position, common),
        None => copy(format!("its data is of epoch {own}, older than the recorded history")),
    }
}

/// Whether its log goes on in a timeline of its own that the record does not have: it was promoted and ended
/// before it could say so.
fn unrecorded(group: &Group, stamp: Stamp, position: Position) -> bool {
    let parent = group.promotion(position.epoch).and_then(|promotion| promotion.timeline);
    stamp.following > stamp.confirmed && parent.is_some_and(|timeline| timeline != position.timeline)
}

fn diverged(group: &Group, stamp: Stamp, position: Position, common: u64) -> Rejoin {
    let copy = |because: String| Rejoin::Copy { because };
    if stamp.rewound_in == group.epoch {
        return copy(format!("it was rewound in epoch {} and still does not follow", group.epoch));
    }
    let same_number = |promotion: &&crate::group::Promotion| {
        promotion.timeline == Some(position.timeline)
            && (promotion.epoch != position.epoch || unrecorded(group, stamp, position))
    };
    if let Some(promotion) = group.ancestry(group.epoch).find(same_number) {
        return copy(format!(
            "it has a timeline {} of its own, beside that of epoch {}",
            position.timeline, promotion.epoch
        ));
    }
    Rejoin::Rewind {
        common,
        because: format!("its log ends at {}, beyond what epoch {} goes on from", position.lsn, group.epoch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{Lsn, Mode, Promotion};

    /// Epoch 1 (timeline 2) up to 100; epoch 2 (timeline 3) a dead end of database-2 from 90; epoch 3 from 1.
    fn group(timeline_of_three: u32) -> Group {
        let mut group = Group::create("database-1", "b", Some(7), Mode::Synchronous);
        group.epoch = 3;
        group.history = [(1, 0, 2, 10), (2, 1, 3, 90), (3, 1, timeline_of_three, 100)]
            .map(|(epoch, parent, timeline, switch)| Promotion {
                epoch,
                server: "database-1".into(),
                parent,
                timeline: Some(timeline),
                switch: Lsn(switch),
                when_ms: 0,
                because: String::new(),
            })
            .to_vec();
        group
    }

    fn stamp(confirmed: u64) -> Option<Stamp> {
        Some(Stamp { system_identifier: 7, confirmed, following: confirmed, ..Stamp::default() })
    }

    fn at(epoch: u64, timeline: u32, lsn: u64) -> Position {
        Position { epoch, timeline, lsn: Lsn(lsn) }
    }

    #[track_caller]
    fn check(group: &Group, stamp: Option<Stamp>, position: Position, expect: &str) {
        let found = format!("{:?}", rejoin(group, stamp, position));
        assert!(found.contains(expect), "{found} is not {expect}");
    }

    #[test]
    fn the_table() {
        let four = group(4);
        check(&four, stamp(3), at(3, 4, 500), "Follow");
        check(&four, stamp(1), at(1, 2, 100), "Follow");
        check(&four, stamp(1), at(1, 2, 101), "Rewind { common: 1");
        check(&four, stamp(0), at(0, 1, 10), "Follow");
        check(&four, stamp(0), at(0, 1, 11), "Rewind { common: 0");
        check(&four, stamp(2), at(2, 3, 95), "Rewind { common: 1");
        check(&four, None, at(1, 2, 50), "nobody knows");
        check(&four, stamp(9), at(9, 2, 50), "epoch 9, which the record does not know");
        let once = Stamp { rewound_in: 3, ..stamp(1).unwrap() };
        check(&four, Some(once), at(1, 2, 101), "was rewound in epoch 3");
        check(&four, Some(Stamp { spoiled: true, ..once }), at(1, 2, 1), "not finished");
    }

    #[test]
    fn the_same_timeline_number_on_two_histories_is_never_rewound() {
        check(&group(3), stamp(2), at(2, 3, 95), "a timeline 3 of its own, beside that of epoch 3");
    }

    #[test]
    fn data_from_before_the_recorded_history_is_copied() {
        let mut group = group(4);
        group.history.remove(0);
        check(&group, stamp(0), at(0, 1, 5), "older than the recorded history");
    }

    #[test]
    fn a_promotion_that_nobody_heard_of_is_no_prefix() {
        // Promoted from epoch 1 at 95 into a timeline 3 that the record has under another epoch.
        let unheard = Stamp { following: 2, ..stamp(1).unwrap() };
        let mut group = group(3);
        group.history.remove(1);
        check(&group, Some(unheard), at(1, 3, 97), "a timeline 3 of its own");
    }
}
