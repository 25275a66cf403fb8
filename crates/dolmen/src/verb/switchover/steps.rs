//! What happened between two versions of the record, in sentences, and whether that was the end of it.
//!
//! A watcher may miss versions in between, never the order: so the steps come from the difference of two.

use database::group::{Group, Phase};

/// The steps from one version to a later one, oldest first.
pub fn steps(old: &Group, new: &Group) -> Vec<String> {
    let mut steps = Vec::new();
    let before = (new.epoch == old.epoch).then_some(old);
    if before.is_some() {
        steps.extend(ending(old, new));
        steps.extend(votes(old, new));
    } else if let Some(promotion) = new.promotion(new.epoch) {
        steps.push(format!("{} takes over in epoch {}: {}", new.holder, new.epoch, promotion.because));
    }
    if !before.is_some_and(is_promoted) {
        steps.extend(promoted(new));
    }
    if new.is_open() && !before.is_some_and(Group::is_open) {
        steps.push(format!("{} takes writes", new.holder));
    }
    steps
}

/// What becomes of the primary.
fn ending(old: &Group, new: &Group) -> Option<String> {
    let holder = &new.holder;
    match &new.state {
        state if *state == old.state => None,
        Phase::HandingOver => {
            let to = new.handover.as_ref().and_then(|handover| handover.to.as_deref());
            let to = to.unwrap_or("another server");
            Some(format!("{holder} ends in order for {to}; the gates hold their clients"))
        }
        Phase::Released { clean: Some(end), .. } => {
            Some(format!("{holder} has ended at {} and released its lease", end.lsn))
        }
        Phase::Released { clean: None, .. } => {
            Some(format!("{holder} did not end in order; it released its lease, and an election decides"))
        }
        Phase::Promoting | Phase::Open => None,
    }
}

fn is_promoted(group: &Group) -> bool {
    group.promotion(group.epoch).is_some_and(|promotion| promotion.timeline.is_some())
}

fn promoted(group: &Group) -> Option<String> {
    let promotion = group.promotion(group.epoch)?;
    let timeline = promotion.timeline?;
    Some(format!("{} is promoted: timeline {timeline} begins at {}", group.holder, promotion.switch))
}

fn votes(old: &Group, new: &Group) -> Vec<String> {
    let voted = |group: &Group, name: &str| {
        group.ballot.as_ref().is_some_and(|ballot| ballot.votes.contains_key(name))
    };
    let votes = new.ballot.iter().flat_map(|ballot| &ballot.votes);
    let new_ones = votes.filter(|(name, _)| !voted(old, name));
    new_ones.map(|(name, vote)| format!("{name} votes: its log ends at {}", vote.position.lsn)).collect()
}

/// How it stands with what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    UnderWay,
    Done,
    /// The primary will not, and says why.
    Refused(String),
    /// Something else came of it.
    Otherwise(String),
}

/// `asked`: the record just after the order, for `to` if that was named.
pub fn outcome(asked: &Group, to: Option<&str>, now: &Group) -> Outcome {
    if now.epoch == asked.epoch {
        return match &now.refused {
            Some(because) if now.handover.is_none() && now.is_open() => Outcome::Refused(because.clone()),
            _ => Outcome::UnderWay,
        };
    }
    if !now.is_open() {
        return Outcome::UnderWay;
    }
    let because = now.promotion(now.epoch).map_or("", |promotion| promotion.because.as_str());
    match to {
        Some(to) if now.holder == to => Outcome::Done,
        Some(to) => Outcome::Otherwise(format!("{} is the primary, not {to}: {because}", now.holder)),
        None if now.holder == asked.holder => {
            Outcome::Otherwise(format!("{} is the primary again: {because}", now.holder))
        }
        None => Outcome::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use database::group::{Command, Lsn, Mode, Position, SynchronousSet};

    fn change(group: &Group, command: Command) -> Group {
        group.apply(&command).unwrap()
    }

    fn at(epoch: u64, lsn: u64) -> Position {
        Position { epoch, timeline: 1, lsn: Lsn(lsn) }
    }

    fn take_over(server: &str, position: Position) -> Command {
        let (server, boot) = (server.to_owned(), server.to_owned());
        Command::TakeOver {
            server,
            boot,
            position,
            lease_ms: 3000,
            when_ms: 0,
            because: "it was asked to".into(),
        }
    }

    /// database-1 is primary in epoch 1, with database-2 in its synchronous set, and is asked to hand over.
    fn asked() -> Group {
        let group = Group::create("database-1", "database-1", Some(7), Mode::Synchronous);
        let group = open(&change(&group, take_over("database-1", at(0, 10))), 2);
        let members = ["database-2".to_owned()].into();
        let set = SynchronousSet { mode: Mode::Synchronous, members, wait_for: 1, generation: 2 };
        let boot = group.boot.clone();
        let group = change(&group, Command::SetSynchronous { epoch: 1, boot, set });
        change(&group, Command::AskHandover { to: None })
    }

    fn open(group: &Group, timeline: u32) -> Group {
        let (epoch, boot) = (group.epoch, group.boot.clone());
        let (switch, system_identifier) = (Lsn(0x20), 7);
        let promoted = Command::Promoted { epoch, boot: boot.clone(), timeline, switch, system_identifier };
        change(&change(group, promoted), Command::Open { epoch, boot })
    }

    #[test]
    fn each_step_of_a_handover_is_told_once() {
        let asked = asked();
        let (epoch, boot) = (1, asked.boot.clone());
        let begun = change(&asked, Command::BeginHandover { epoch, boot, to: "database-2".into() });
        let renewed = change(&begun, Command::Renew { epoch, boot: begun.boot.clone(), written: None });
        let server = "database-1".to_owned();
        let (prefer, clean) = (Some("database-2".into()), Some(at(1, 0x30)));
        let released = change(&renewed, Command::Release { epoch, server, prefer, clean });
        let taken = change(&released, take_over("database-2", at(1, 0x30)));
        let opened = open(&taken, 3);
        let all = [&asked, &begun, &renewed, &released, &taken, &opened];
        let told: Vec<String> = all.windows(2).flat_map(|pair| steps(pair[0], pair[1])).collect();
        assert_eq!(
            told,
            [
                "database-1 ends in order for database-2; the gates hold their clients",
                "database-1 has ended at 0/30 and released its lease",
                "database-2 takes over in epoch 2: it was asked to",
                "database-2 is promoted: timeline 3 begins at 0/20",
                "database-2 takes writes",
            ]
        );
        for group in &all[..5] {
            assert_eq!(outcome(&asked, None, group), Outcome::UnderWay);
        }
        assert_eq!(outcome(&asked, None, &opened), Outcome::Done);
        assert_eq!(outcome(&asked, Some("database-2"), &opened), Outcome::Done);
        assert!(matches!(outcome(&asked, Some("database-3"), &opened), Outcome::Otherwise(_)));
    }

    #[test]
    fn a_refusal_ends_it_and_only_its_own() {
        let asked = asked();
        let (epoch, boot) = (1, asked.boot.clone());
        let because = "it lags".to_owned();
        let refused = change(&asked, Command::RefuseHandover { epoch, boot, because: because.clone() });
        assert_eq!(outcome(&asked, None, &refused), Outcome::Refused(because));
        let again = change(&refused, Command::AskHandover { to: None });
        assert_eq!(outcome(&again, None, &again), Outcome::UnderWay);
    }
}
