//! Each guard of the record, and what passes it.

use super::*;

/// `database-1` is primary in epoch 1 and open; commits wait for one of `members`.
fn open(members: &[&str]) -> Group {
    let created = Group::create("database-1", "boot-0", None, Mode::Synchronous);
    let mut group = created.apply(&take_over("database-1", at(0, 10))).unwrap();
    let (epoch, boot) = (1, "boot-1".to_owned());
    group.boot = boot.clone();
    for command in [
        Command::Promoted { epoch, boot: boot.clone(), timeline: 2, switch: Lsn(10), system_identifier: 7 },
        Command::Open { epoch, boot: boot.clone() },
        Command::SetSynchronous { epoch, boot, set: set(&group, members) },
    ] {
        group = group.apply(&command).unwrap();
    }
    group
}

fn set(group: &Group, members: &[&str]) -> SynchronousSet {
    SynchronousSet {
        mode: group.synchronous.mode,
        members: members.iter().map(|name| (*name).to_owned()).collect(),
        wait_for: members.len().min(1) as u32,
        generation: group.synchronous.generation + 1,
    }
}

fn at(epoch: u64, lsn: u64) -> Position {
    Position { epoch, timeline: epoch as u32 + 1, lsn: Lsn(lsn) }
}

fn renew(group: &Group) -> Command {
    Command::Renew { epoch: group.epoch, boot: group.boot.clone(), written: None }
}

fn ballot(group: &Group, server: &str) -> Group {
    let (epoch, seq) = (group.epoch, group.seq);
    group.apply(&Command::OpenBallot { server: server.into(), epoch, seq }).unwrap()
}

fn vote(group: &Group, server: &str, position: Position) -> Group {
    group.apply(&Command::Vote { server: server.into(), boot: "b".into(), position }).unwrap()
}

fn take_over(server: &str, position: Position) -> Command {
    let because = "the lease ran out".into();
    Command::TakeOver {
        server: server.into(),
        boot: "b".into(),
        position,
        lease_ms: 3000,
        when_ms: 5,
        because,
    }
}

fn members(group: &Group) -> Vec<&str> {
    group.synchronous.members.iter().map(String::as_str).collect()
}

#[track_caller]
fn refused(group: &Group, command: &Command, text: &str) {
    let refusal = group.apply(command).unwrap_err().to_string();
    assert!(refusal.contains(text), "{refusal:?} does not say {text:?}");
}

#[test]
fn it_travels_as_json_and_keeps_what_it_does_not_know() {
    let group = open(&["database-2"]);
    let mut value = serde_json::to_value(&group).unwrap();
    value["moon"] = "full".into();
    value.as_object_mut().unwrap().remove("refused");
    let read: Group = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(read.unknown["moon"], "full");
    let again = serde_json::to_value(read.apply(&renew(&read)).unwrap()).unwrap();
    assert_eq!(again["moon"], "full");
    assert_eq!(again["state"]["phase"], "open");
    assert_eq!(again["history"][0]["switch"], "0/A");
}

#[test]
fn only_the_living_holder_renews() {
    let group = open(&["database-2"]);
    assert_eq!(group.apply(&renew(&group)).unwrap().seq, group.seq + 1);
    let stale = Command::Renew { epoch: 1, boot: "boot-0".into(), written: None };
    refused(&group, &stale, "in another life");
    let old = Command::Renew { epoch: 0, boot: "boot-1".into(), written: None };
    refused(&group, &old, "in epoch 1, not in epoch 0");
}

#[test]
fn a_take_over_needs_enough_sealed_votes_and_the_best_of_them() {
    let group = open(&["database-2", "database-3"]);
    refused(&group, &take_over("database-2", at(1, 50)), "no election is under way");
    let one = vote(&ballot(&group, "database-2"), "database-2", at(1, 50));
    refused(&one, &take_over("database-2", at(1, 50)), "1 of the 2 votes");
    // One vote does not end the holder's time.
    assert_eq!(one.apply(&renew(&one)).unwrap().ballot, None);
    let two = vote(&one, "database-3", at(1, 60));
    refused(&two, &renew(&two), "enough replicas have voted");
    refused(&two, &take_over("database-2", at(1, 50)), "another replica has more");
    refused(&two, &take_over("database-2", at(1, 70)), "has not voted, or from another place");
    refused(&two, &take_over("database-4", at(1, 90)), "not in the synchronous set");
    let next = two.apply(&take_over("database-3", at(1, 60))).unwrap();
    assert_eq!((next.epoch, next.holder.as_str(), &next.state), (2, "database-3", &Phase::Promoting));
    // The old holder, which has everything, stands in the set in place of the new one.
    assert_eq!(members(&next), ["database-1", "database-2"]);
    assert_eq!(next.synchronous.quorum(), 2);
    refused(&next, &Command::Renew { epoch: 1, boot: "boot-1".into(), written: None }, "in epoch 2");
}

#[test]
fn an_older_epoch_never_wins_by_a_longer_log() {
    let group = open(&["database-2", "database-3"]);
    let voted = vote(&ballot(&group, "database-2"), "database-2", at(0, 900));
    let voted = vote(&voted, "database-3", at(1, 60));
    refused(&voted, &take_over("database-2", at(0, 900)), "another replica has more");
    assert!(voted.apply(&take_over("database-3", at(1, 60))).is_ok());
}

#[test]
fn a_ballot_is_opened_by_who_waited_for_this_renewal() {
    let group = open(&["database-2"]);
    let renewed = group.apply(&renew(&group)).unwrap();
    let open = Command::OpenBallot { server: "database-2".into(), epoch: 1, seq: group.seq };
    refused(&renewed, &open, "has renewed it since");
    let stranger = Command::OpenBallot { server: "database-9".into(), epoch: 1, seq: group.seq };
    refused(&group, &stranger, "not in the synchronous set");
}

#[test]
fn whoever_went_on_alone_is_followed_by_nobody_but_itself() {
    let alone = open(&[]);
    let open = Command::OpenBallot { server: "database-2".into(), epoch: 1, seq: alone.seq };
    refused(&alone, &open, "nobody but database-1 may be primary");
    let again = alone.apply(&take_over("database-1", at(1, 90))).unwrap();
    assert_eq!((again.epoch, again.history[1].parent), (2, 1));
    refused(&alone, &take_over("database-1", at(0, 90)), "part of it is missing");
}

#[test]
fn the_last_two_go_on_as_one() {
    let group = open(&["database-2"]);
    let voted = vote(&ballot(&group, "database-2"), "database-2", at(1, 50));
    let next = voted.apply(&take_over("database-2", at(1, 50))).unwrap();
    assert!(next.synchronous.members.is_empty());
    let mut strict = voted.clone();
    strict.synchronous.mode = Mode::Strict;
    let next = strict.apply(&take_over("database-2", at(1, 50))).unwrap();
    assert_eq!((members(&next), next.synchronous.wait_for), (vec!["database-1"], 1));
}

#[test]
fn a_log_that_was_closed_in_order_needs_no_votes() {
    let group = open(&["database-2"]);
    let asked = group.apply(&Command::AskHandover { to: Some("database-2".into()) }).unwrap();
    refused(&asked, &Command::AskHandover { to: None }, "another handover");
    let (epoch, boot) = (1, "boot-1".to_owned());
    let to = "database-2".to_owned();
    let closing = asked.apply(&Command::BeginHandover { epoch, boot, to }).unwrap();
    let prefer = Some("database-2".to_owned());
    let release = Command::Release { epoch, server: "database-1".into(), prefer, clean: Some(at(1, 80)) };
    let released = closing.apply(&release).unwrap();
    refused(&released, &take_over("database-2", at(1, 79)), "no election is under way");
    let next = released.apply(&take_over("database-2", at(1, 80))).unwrap();
    assert_eq!((next.epoch, next.handover), (2, None));
}

#[test]
fn asynchronous_sites_lose_no_more_than_the_lag_limit() {
    let mut group = open(&[]);
    group.synchronous.mode = Mode::Asynchronous { max_lag_bytes: 10 };
    group.synchronous.members.insert("database-2".into());
    group.written = Some(Lsn(100));
    let voted = vote(&ballot(&group, "database-2"), "database-2", at(1, 89));
    refused(&voted, &take_over("database-2", at(1, 89)), "further behind 0/64 than the lag limit");
    let voted = vote(&ballot(&group, "database-2"), "database-2", at(1, 90));
    assert!(voted.apply(&take_over("database-2", at(1, 90))).is_ok());
}

#[test]
fn while_paused_nobody_is_elected() {
    let group = open(&["database-2"]).apply(&Command::Pause).unwrap();
    let open = Command::OpenBallot { server: "database-2".into(), epoch: 1, seq: group.seq };
    refused(&group, &open, "paused");
    refused(&group, &Command::AskHandover { to: None }, "paused");
    let resumed = group.apply(&Command::Resume).unwrap();
    assert!(resumed.apply(&open).is_ok());
}

#[test]
fn the_operator_may_force_and_then_nobody_else_has_everything() {
    let group = open(&["database-2", "database-3"]);
    let forced = group.apply(&Command::ForceTakeOver { server: "database-3".into() }).unwrap();
    let next = forced.apply(&take_over("database-3", at(1, 5))).unwrap();
    assert!(next.synchronous.members.is_empty());
    assert_eq!(next.force, None);
}

#[test]
fn a_log_counts_for_an_epoch_once_it_has_passed_its_beginning() {
    let group = open(&["database-2"]);
    assert_eq!(group.epoch_of(0, 1, 2, Lsn(10)), 0);
    assert_eq!(group.epoch_of(0, 1, 2, Lsn(11)), 1);
    assert_eq!(group.epoch_of(0, 1, 1, Lsn(99)), 0, "another timeline");
    assert_eq!(group.epoch_of(3, 9, 2, Lsn(99)), 3, "an epoch that nobody knows");
}

/// Seeds 5062 and 14469 of the simulation: the manager of a replica stood still while the primary came back as itself.
#[test]
fn a_log_counts_for_the_later_epochs_of_the_server_that_it_follows() {
    let mut group = open(&["database-2"]);
    let later = |epoch, server: &str, timeline| {
        let first = group.promotion(1).unwrap().clone();
        Promotion {
            epoch,
            server: server.into(),
            parent: 1,
            timeline: Some(timeline),
            switch: Lsn(50),
            ..first
        }
    };
    let (own, other, again) =
        (later(2, "database-1", 3), later(3, "database-2", 4), later(4, "database-1", 3));
    group.history.extend([own, other]);
    assert_eq!(group.epoch_of(1, 1, 3, Lsn(51)), 2);
    assert_eq!(group.epoch_of(1, 1, 3, Lsn(50)), 1, "only up to where it began");
    assert_eq!(group.epoch_of(1, 1, 4, Lsn(51)), 1, "of another server");
    group.history.push(again);
    assert_eq!(group.epoch_of(1, 1, 3, Lsn(51)), 1, "the server has given that number twice");
}

/// Seeds 26212 and 32238 of the simulation: promoted, ended before control knew of it, and promoted again for the same
/// epoch or the next one.
#[test]
fn an_epoch_begins_where_its_first_timeline_did() {
    let released = {
        let mut group = open(&["database-2"]);
        group.state = Phase::Released { prefer: None, clean: Some(at(1, 40)) };
        group
    };
    let taken = released.apply(&take_over("database-2", at(1, 40))).unwrap();
    let promoted = Command::Promoted {
        epoch: 2,
        boot: taken.boot.clone(),
        timeline: 4,
        switch: Lsn(41),
        system_identifier: 7,
    };
    let next = taken.apply(&promoted).unwrap();
    assert_eq!(next.promotion(2).map(|promotion| promotion.switch), Some(Lsn(40)));
    let next = taken.apply(&take_over("database-2", at(1, 41))).unwrap();
    assert_eq!(next.promotion(3).map(|promotion| promotion.switch), Some(Lsn(40)));
}

#[test]
fn the_history_is_bounded() {
    let mut group = open(&[]);
    for _ in 0..HISTORY_MAX * 2 {
        let position = at(group.epoch, 50);
        group = group.apply(&take_over("database-1", position)).unwrap();
    }
    assert_eq!(group.history.len(), HISTORY_MAX);
    assert_eq!(group.ancestry(group.epoch).count(), HISTORY_MAX);
}

#[test]
fn only_the_first_server_makes_the_first_epoch() {
    let created = Group::create("database-1", "boot-1", None, Mode::Synchronous);
    let read: Group = serde_json::from_value(serde_json::to_value(&created).unwrap()).unwrap();
    assert_eq!(read, created);
    refused(&created, &take_over("database-2", at(0, 5)), "nobody but database-1 may be primary");
    let first = created.apply(&take_over("database-1", at(0, 10))).unwrap();
    assert_eq!((first.epoch, first.is_open(), first.can_be_followed()), (1, false, false));
}

#[test]
fn after_a_new_beginning_all_must_vote_and_epochs_go_on_far_beyond() {
    assert_eq!((floor(7), floor(3 * link::control::LIFT + 7)), (0, 3 << 20));
    let group = open(&["database-2"]);
    assert!(!group.is_in_doubt(7) && group.is_in_doubt(link::control::LIFT));
    let servers = ["database-2".to_owned(), "database-3".to_owned()].into();
    let command = Command::BeginAnew { floor: 1 << 20, servers };
    let anew = group.apply(&command).unwrap();
    assert!(anew.began_anew() && anew.is_released() && !anew.is_in_doubt(link::control::LIFT));
    assert_eq!(members(&anew), ["database-1", "database-2", "database-3"], "the last holder too");
    refused(&anew, &command, "epoch 1048576");
    refused(&anew, &renew(&group), "epoch");
    // Nobody has a right but by everyone's vote: neither the last holder nor a majority.
    refused(&anew, &take_over("database-1", at(1, 90)), "no election is under way");
    let two = vote(&vote(&ballot(&anew, "database-1"), "database-1", at(1, 70)), "database-2", at(1, 90));
    refused(&two, &take_over("database-2", at(1, 90)), "2 of the 3 votes");
    let all = vote(&two, "database-3", at(1, 80));
    refused(&all, &take_over("database-3", at(1, 80)), "another replica has more");
    let next = all.apply(&take_over("database-2", at(1, 90))).unwrap();
    assert_eq!((next.epoch, next.promotion(next.epoch).unwrap().parent), ((1 << 20) + 1, 1));
    // Who voted may have none of what was acknowledged: the winner alone has everything.
    assert!(next.synchronous.members.is_empty());
}

#[test]
fn a_promotion_under_way_may_have_been_forgotten() {
    let group = open(&["database-2"]);
    let elected = vote(&ballot(&group, "database-2"), "database-2", at(1, 90));
    let promoting = elected.apply(&take_over("database-2", at(1, 90))).unwrap();
    assert_eq!(promoting.history.len(), 2);
    let anew = promoting.apply(&Command::BeginAnew { floor: 1 << 20, servers: BTreeSet::new() }).unwrap();
    assert_eq!(anew.history.len(), 1, "its data is of an epoch that nobody knows");
    let strict =
        Group { synchronous: SynchronousSet { mode: Mode::Strict, ..group.synchronous.clone() }, ..group };
    let anew = strict.apply(&Command::BeginAnew { floor: 1 << 20, servers: BTreeSet::new() }).unwrap();
    let all = vote(&vote(&ballot(&anew, "database-1"), "database-1", at(1, 70)), "database-2", at(1, 90));
    let next = all.apply(&take_over("database-2", at(1, 90))).unwrap();
    assert_eq!((members(&next), next.synchronous.wait_for), (vec!["database-1"], 1), "strict stays strict");
}
