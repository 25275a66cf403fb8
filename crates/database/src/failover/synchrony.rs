//! Who must have a commit: two places change one after another, `synchronous_standby_names` (whose word
//! acknowledges) and the recorded set (who may be elected), and at every moment each set of servers that can acknowledge meets each set that can elect.
//!
//! | change | first | then |
//! |---|---|---|
//! | a member comes | the record | the setting |
//! | a member goes | the setting, then wait until enough of the others have all written before it | the record |
//! | the last one goes, and the site may go on alone | the record: nobody may be promoted | the setting |
//! | the first one comes | the setting, then wait as above | the record |
//!
//! So the setting is never emptied while the record has members: PostgreSQL would acknowledge every waiting commit
//! at once. A test walks every reachable pair of four servers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{AsPrimary, Names, Replica};
use crate::group::{Group, Lsn, Mode, SynchronousSet};

/// A member that has not streamed for this long is taken out, so that commits do not wait for it and so that
/// the loss of another one can still be decided on.
pub const AWAY_LIMIT: Duration = Duration::from_millis(500);

/// A connected replica that has not been heard for this long does not stream: it speaks every second, even when
/// nothing is written (wal_receiver_status_interval).
pub const REPLY_LIMIT: Duration = Duration::from_millis(1500);

/// How far behind a replica may be to become a member: what it lacks then is there in a moment.
pub const CAUGHT_UP_BYTES: u64 = 16 << 20;

/// What to change next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Done,
    /// Put these names into force.
    Names(Names),
    /// Record this set.
    Record(SynchronousSet),
    /// Until `of` have flushed what was written before the names changed; None: until that is known.
    Confirm {
        up_to: Option<Lsn>,
        of: Names,
    },
}

/// The one next step from what is to what should be.
pub fn step(group: &Group, mode: Mode, primary: &AsPrimary) -> Step {
    let wanted = wanted(group, mode, &primary.replicas);
    let flushed = |name: &String| {
        primary
            .replicas
            .iter()
            .find(|replica| &replica.name == name)
            .map_or(Lsn(0), |replica| replica.flushed)
    };
    let confirmed = primary.names_since.is_some_and(|since| {
        let have = primary.names.members.iter().filter(|name| flushed(name) >= since).count();
        have >= primary.names.wait_for as usize
    });
    next(&group.synchronous, &primary.names, confirmed, mode, &wanted, primary.names_since)
}

/// Who should be members, by how they stream.
fn wanted(group: &Group, mode: Mode, replicas: &[Replica]) -> BTreeSet<String> {
    let recorded = &group.synchronous.members;
    let leaves = |name: &String| group.reinit.contains(name);
    let good = |replica: &&Replica| {
        replica.streaming && replica.lag_bytes <= CAUGHT_UP_BYTES && !leaves(&replica.name)
    };
    let lingers = |replica: &&Replica| {
        recorded.contains(&replica.name) && replica.away < AWAY_LIMIT && !leaves(&replica.name)
    };
    let members: BTreeSet<String> = replicas
        .iter()
        .filter(|replica| good(replica) || lingers(replica))
        .map(|replica| replica.name.clone())
        .collect();
    let none_is_good = !replicas.iter().any(|replica| good(&replica));
    // Strict: with nobody left, the last known ones stay, and commits wait for them.
    if mode == Mode::Strict && none_is_good { recorded.clone() } else { members }
}

/// The order of the two places, alone: see the head of this file. Commits wait for one member.
pub fn next(
    recorded: &SynchronousSet,
    names: &Names,
    confirmed: bool,
    mode: Mode,
    wanted: &BTreeSet<String>,
    names_since: Option<Lsn>,
) -> Step {
    let set = |members: &BTreeSet<String>, mode: Mode| {
        let wait_for =
            if matches!(mode, Mode::Asynchronous { .. }) { 0 } else { members.len().min(1) as u32 };
        let generation = recorded.generation + 1;
        Step::Record(SynchronousSet { mode, members: members.clone(), wait_for, generation })
    };
    let wanted_names = Names { wait_for: wanted.len().min(1) as u32, members: wanted.clone() };
    if matches!(mode, Mode::Asynchronous { .. }) {
        return match () {
            () if recorded.mode != mode || recorded.members != *wanted => set(wanted, mode),
            () if *names != Names::nobody() => Step::Names(Names::nobody()),
            () => Step::Done,
        };
    }
    // Of an asynchronous set nobody has everything for certain: as if it were empty.
    let was_asynchronous = matches!(recorded.mode, Mode::Asynchronous { .. });
    if was_asynchronous || recorded.members.is_empty() {
        return match () {
            () if *names != wanted_names => Step::Names(wanted_names),
            () if wanted.is_empty() && recorded.mode == mode => Step::Done,
            () if confirmed || wanted.is_empty() => set(wanted, mode),
            () => Step::Confirm { up_to: names_since, of: wanted_names },
        };
    }
    if wanted.is_empty() {
        return set(wanted, mode);
    }
    let all: BTreeSet<String> = recorded.members.union(wanted).cloned().collect();
    match () {
        () if all != recorded.members || recorded.mode != mode => set(&all, mode),
        () if *names != wanted_names => Step::Names(wanted_names),
        () if recorded.members == *wanted => Step::Done,
        () if confirmed => set(wanted, mode),
        () => Step::Confirm { up_to: names_since, of: wanted_names },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, VecDeque};

    const ALL: [&str; 3] = ["database-2", "database-3", "database-4"];

    fn subset(bits: usize) -> BTreeSet<String> {
        ALL.iter()
            .enumerate()
            .filter(|(bit, _)| bits >> bit & 1 == 1)
            .map(|(_, name)| (*name).into())
            .collect()
    }

    fn subsets_of(set: &BTreeSet<String>, size: usize) -> Vec<BTreeSet<String>> {
        (0..1 << ALL.len()).map(subset).filter(|some| some.len() == size && some.is_subset(set)).collect()
    }

    /// Every set that can acknowledge meets every set that can elect.
    fn meets(recorded: &SynchronousSet, names: &Names) -> bool {
        if recorded.members.is_empty() {
            return true; // nobody but the holder, which has everything
        }
        let acknowledging = subsets_of(&names.members, names.wait_for as usize);
        let electing = subsets_of(&recorded.members, recorded.quorum());
        acknowledging.iter().all(|some| electing.iter().all(|others| !some.is_disjoint(others)))
    }

    /// Every state that the steps can reach while what is wanted changes at will; `spoil` breaks the order.
    fn walk(mode: Mode, spoil: impl Fn(&SynchronousSet, &Names, Step) -> Step) -> Result<usize, String> {
        let start = (SynchronousSet::nobody(mode), Names::nobody(), false);
        let mut known = BTreeSet::new();
        let mut queue = VecDeque::from([start]);
        let key = |set: &SynchronousSet, names: &Names, confirmed: bool| {
            (set.members.clone(), names.clone(), confirmed)
        };
        while let Some((recorded, names, confirmed)) = queue.pop_front() {
            if !known.insert(key(&recorded, &names, confirmed)) {
                continue;
            }
            if !meets(&recorded, &names) {
                return Err(format!("{:?} is recorded while {names} is in force", recorded.members));
            }
            // What was acknowledged may change under the feet of the next step: confirmation comes any time.
            queue.push_back((recorded.clone(), names.clone(), true));
            for bits in 0..1 << ALL.len() {
                let wanted = subset(bits);
                if mode == Mode::Strict && wanted.is_empty() && !recorded.members.is_empty() {
                    continue;
                }
                let step = next(&recorded, &names, confirmed, mode, &wanted, None);
                queue.push_back(match spoil(&recorded, &names, step) {
                    Step::Names(names) => (recorded.clone(), names, false),
                    Step::Record(set) => (SynchronousSet { generation: 0, ..set }, names.clone(), confirmed),
                    Step::Done | Step::Confirm { .. } => continue,
                });
            }
        }
        Ok(known.len())
    }

    #[test]
    fn whoever_acknowledges_meets_whoever_elects_in_every_reachable_state() {
        for mode in [Mode::Synchronous, Mode::Strict] {
            assert!(walk(mode, |_, _, step| step).unwrap() > 50);
        }
    }

    #[test]
    fn the_setting_before_the_record_is_caught() {
        // A member comes: the setting first.
        let swapped = |_: &SynchronousSet, names: &Names, step| match step {
            Step::Record(set) if set.members.is_superset(&names.members) && *names != Names::of(&set) => {
                Step::Names(Names::of(&set))
            }
            other => other,
        };
        assert!(walk(Mode::Synchronous, swapped).unwrap_err().contains("is in force"));
    }

    #[test]
    fn the_record_before_the_setting_is_caught_when_a_member_goes() {
        let swapped = |recorded: &SynchronousSet, _: &Names, step| match step {
            Step::Names(names) if !names.members.is_empty() && names.members.is_subset(&recorded.members) => {
                let generation = recorded.generation + 1;
                let (members, wait_for) = (names.members, names.wait_for);
                Step::Record(SynchronousSet { mode: recorded.mode, members, wait_for, generation })
            }
            other => other,
        };
        assert!(walk(Mode::Synchronous, swapped).is_err());
    }

    #[test]
    fn emptying_the_setting_before_the_record_says_alone_is_caught() {
        let hasty = |recorded: &SynchronousSet, names: &Names, step| match step {
            Step::Record(set)
                if set.members.is_empty() && !recorded.members.is_empty() && *names != Names::nobody() =>
            {
                Step::Names(Names::nobody())
            }
            other => other,
        };
        assert!(walk(Mode::Synchronous, hasty).unwrap_err().contains("while  is in force"));
    }
}
