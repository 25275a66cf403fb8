//! Rows of the table, each as data in and a sentence out. The simulation walks the ways between them.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::failover::lease::{LEASE_DEFAULT, Timings};
use crate::failover::{AsReplica, HeldLease, Orders, Stamp, Trouble, Upstream};
use crate::group::{Lsn, Mode, Position};

const CLUSTER: u64 = 7;

/// `database-1` is primary of epoch 1 and open; `database-2` must have every commit.
fn group() -> Group {
    let position = Position { epoch: 0, timeline: 1, lsn: Lsn(5) };
    let (server, boot, because) = ("database-1".to_owned(), "boot-1".to_owned(), "first".to_owned());
    let mut group = Group::create(&server, &boot, Some(CLUSTER), Mode::Synchronous)
        .apply(&Command::TakeOver {
            server,
            boot: boot.clone(),
            position,
            lease_ms: 3000,
            when_ms: 0,
            because,
        })
        .unwrap();
    group.history[0].timeline = Some(2);
    group.state = crate::group::Phase::Open;
    group.synchronous.members = ["database-2".to_owned()].into();
    group.synchronous.wait_for = 1;
    group
}

fn seen(me: &str, group: Option<Group>) -> Seen {
    let age = Duration::from_millis(100);
    let record = match group {
        None => Record::Absent,
        Some(group) => Record::Known {
            version: 4,
            group: Arc::new(group),
            version_age: age,
            silence: age,
            epoch_age: Duration::from_secs(60),
        },
    };
    Seen {
        me: me.into(),
        boot: me.replace("database", "boot"),
        servers: vec!["database-1".into(), "database-2".into()],
        mode: Mode::Synchronous,
        timings: Timings::new(LEASE_DEFAULT),
        record,
        in_touch: true,
        lease: None,
        postgres: Postgres::Stopped { leftovers: 0 },
        data: present(CLUSTER),
        stamp: Some(Stamp { system_identifier: CLUSTER, confirmed: 1, following: 1, ..Stamp::default() }),
        remembered: Some(CLUSTER),
        upstream: Upstream::Unasked,
        installed: vec![15],
        trouble: None,
        free_bytes: u64::MAX,
        orders: Orders::default(),
        failovers: Vec::new(),
        wall_ms: 0,
    }
}

fn present(system_identifier: u64) -> Data {
    Data::Present { major: 15, system_identifier, timeline: 2, closed: None, standby: true }
}

fn replica(follows: Option<&str>) -> Postgres {
    let answer = Answer::Replica(AsReplica {
        follows: follows.map(str::to_owned),
        receiving: follows.is_some(),
        streaming: follows.is_some(),
        not_streaming: Duration::ZERO,
        replayed_all: true,
        timeline: 2,
        replayed: Lsn(80),
        lag_bytes: 0,
    });
    Postgres::Running { since: Duration::from_secs(9), answered: true, answer: Ok(answer), last_error: None }
}

fn with(mut seen: Seen, change: impl FnOnce(&mut Seen)) -> Seen {
    change(&mut seen);
    seen
}

#[track_caller]
fn check(seen: &Seen, standing: Standing, action: &str, because: &str) {
    let decision = decide(seen);
    assert_eq!(decision.standing, standing, "{decision:?}");
    assert!(format!("{:?}", decision.action).contains(action), "{decision:?} is not {action}");
    assert!(decision.because.contains(because), "{:?} does not say {because:?}", decision.because);
}

#[test]
fn what_contradicts_itself_is_told_and_left_alone() {
    let failed = |change: fn(&mut Seen), because: &str| {
        check(&with(seen("database-2", Some(group())), change), Standing::Failed, "Wait", because);
    };
    failed(|seen| seen.data = present(9), "belongs to cluster 9, not to 7 of the record");
    failed(|seen| seen.data = Data::OtherVersion(13), "made by PostgreSQL 13, which is not installed");
    failed(|seen| seen.data = Data::Unreadable("x is a file".into()), "x is a file; it is left untouched");
    let gone = with(seen("database-1", Some(group())), |seen| seen.data = Data::Absent);
    // Nobody needs to wait for its lease, and what is there says nothing of where a log ends.
    check(&gone, Standing::Failed, "clean: None", "was its last primary: put it back");
    let alien = with(seen("database-1", Some(group())), |seen| seen.data = present(9));
    check(&alien, Standing::Failed, "clean: None", "belongs to cluster 9");
    check(&seen("database-1", None), Standing::Failed, "Wait", "control has lost its state");
}

/// At a version from after control began anew.
fn recovered(me: &str, group: Group) -> Seen {
    with(seen(me, Some(group)), |seen| {
        if let Record::Known { version, .. } = &mut seen.record {
            *version = link::control::LIFT + 4;
        }
        seen.servers.push("database-3".into());
    })
}

#[test]
fn a_record_that_control_began_anew_with_is_settled_by_all_servers() {
    let stale = recovered("database-2", group());
    check(&stale, Standing::Boot, "BeginAnew { floor: 1048576", "may have forgotten a failover");
    // Even the holder with a lease, and one whose data is of a promotion that was forgotten.
    let held = with(recovered("database-1", group()), |seen| {
        seen.lease = Some(HeldLease { epoch: 1, left: Duration::from_secs(2) });
    });
    check(&held, Standing::Boot, "BeginAnew", "began anew");
    let servers = stale.servers.iter().cloned().collect();
    let anew = group().apply(&Command::BeginAnew { floor: 1 << 20, servers }).unwrap();
    let sealed = |me, group: &Group| with(recovered(me, group.clone()), |seen| seen.postgres = replica(None));
    check(&sealed("database-1", &anew), Standing::Sealed, "OpenBallot", "an election of all servers");
    let open = Command::OpenBallot { server: "database-1".into(), epoch: 1 << 20, seq: 2 };
    let position = Position { epoch: 1, timeline: 2, lsn: Lsn(0x50) };
    let vote = |name: &str| Command::Vote { server: name.into(), boot: "b".into(), position };
    let two = ["database-1", "database-2"];
    let two = two.iter().fold(anew.apply(&open).unwrap(), |group, name| group.apply(&vote(name)).unwrap());
    check(
        &sealed("database-1", &two),
        Standing::Sealed,
        "Wait",
        "2 of 3 votes, waiting for database-3; control",
    );
    let all = two.apply(&vote("database-3")).unwrap();
    check(
        &sealed("database-1", &all),
        Standing::Promoting,
        "TakeOver",
        "control began anew, and this server has",
    );

    let knows_more = |group: &Group| {
        with(sealed("database-3", group), |seen| {
            seen.stamp = seen.stamp.map(|stamp| Stamp { following: 2, ..stamp });
        })
    };
    check(
        &knows_more(&anew),
        Standing::Failed,
        "Stop",
        "`dolmen switchover --force database-3` lets this data",
    );
    let forced = anew.apply(&Command::ForceTakeOver { server: "database-3".into() }).unwrap();
    check(
        &knows_more(&forced),
        Standing::Promoting,
        "TakeOver",
        "the operator makes this server the primary",
    );
    let (server, because) = ("database-3".to_owned(), String::new());
    let take_over =
        Command::TakeOver { server, boot: "b".into(), position, lease_ms: 3000, when_ms: 0, because };
    let taken = forced.apply(&take_over).unwrap();
    assert_eq!((taken.epoch, taken.synchronous.members.len()), ((1 << 20) + 1, 0));
    check(
        &knows_more(&taken),
        Standing::Promoting,
        "TakeOver",
        "nobody else took over from the last primary",
    );
    // One that is to be copied has no say in who is the next one.
    let ordered = anew.apply(&Command::Reinit { server: "database-3".into() }).unwrap();
    check(
        &knows_more(&ordered),
        Standing::Sealed,
        "Wait",
        "which control has forgotten, is to be copied anew",
    );
}

#[test]
fn the_first_server_alone_makes_the_record() {
    let fresh = |me| {
        with(seen(me, None), |seen| (seen.data, seen.stamp, seen.remembered) = (Data::Absent, None, None))
    };
    check(&fresh("database-1"), Standing::Initialising, "Create", "making a new database cluster");
    check(&fresh("database-2"), Standing::Boot, "Wait", "waiting for database-1");
}

#[test]
fn a_primary_whose_lease_ends_is_fenced() {
    let left = |left| {
        with(seen("database-1", Some(group())), |seen| seen.lease = Some(HeldLease { epoch: 1, left }))
    };
    check(&left(Duration::ZERO), Standing::Fencing, "Fence", "could not be renewed");
    let died = with(left(Duration::from_secs(2)), |seen| {
        seen.trouble =
            Some(Trouble { what: "postgres was killed by signal 9".into(), retry_in: Duration::ZERO });
    });
    check(&died, Standing::Released, "Release", "killed by signal 9: another server may take over at once");
    // What ends one primary after another is no failing machine.
    let again = with(died, |seen| seen.failovers = vec![Duration::from_secs(3)]);
    check(&again, Standing::Starting, "Close", "clients are held until postgres is promoted again");
    let unheard = with(again.clone(), |seen| seen.in_touch = false);
    check(&unheard, Standing::Starting, "Start", "starting postgres");
    let close = Command::Close { epoch: 1, server: "database-1".into() };
    let closed = group().apply(&close).unwrap();
    assert!(closed.apply(&close).is_err(), "once");
    assert!(group().apply(&Command::Close { epoch: 1, server: "database-2".into() }).is_err());
    let closed = with(again, |seen| seen.record = super::tests::seen("database-1", Some(closed)).record);
    check(&closed, Standing::Starting, "Start", "starting postgres");
}

#[test]
fn a_handover_goes_on_when_the_lease_went_first() {
    let asked = group().apply(&Command::AskHandover { to: Some("database-2".into()) }).unwrap();
    let (epoch, boot, to) = (1, "boot-1".to_owned(), "database-2".to_owned());
    let handing = asked.apply(&Command::BeginHandover { epoch, boot, to }).unwrap();
    let ended = with(seen("database-1", Some(handing)), |seen| {
        // Two failovers lately: of its own accord it would give nothing away.
        seen.failovers = vec![Duration::from_secs(3), Duration::from_secs(9)];
        let Data::Present { closed, .. } = &mut seen.data else { panic!("there is data") };
        *closed = Some(Lsn(80));
    });
    check(&ended, Standing::HandingOver, "Release", "ended in order: database-2 may take over");
    assert!(format!("{:?}", decide(&ended).action).contains("prefer: Some(\"database-2\")"));
}

#[test]
fn a_replica_opens_an_election_after_the_lease_and_takes_over_after_the_patience() {
    let follows = |silent: u64| {
        with(seen("database-2", Some(group())), |seen| {
            seen.postgres = replica(Some("database-1"));
            if let Record::Known { silence, .. } = &mut seen.record {
                *silence = Duration::from_millis(silent);
            }
        })
    };
    check(&follows(2654), Standing::Following, "Wait", "replica of database-1, streaming");
    check(&follows(2655), Standing::Sealed, "OpenBallot", "database-1 is silent, its lease at its end");
    let open = Command::OpenBallot { server: "database-2".into(), epoch: 1, seq: 1 };
    let position = Position { epoch: 1, timeline: 2, lsn: Lsn(0x50) };
    let vote = Command::Vote { server: "database-2".into(), boot: "boot-2".into(), position };
    let elected = group().apply(&open).unwrap().apply(&vote).unwrap();
    let sealed = |silent: u64| {
        with(seen("database-2", Some(elected.clone())), |seen| {
            seen.postgres = replica(None);
            if let Record::Known { silence, .. } = &mut seen.record {
                *silence = Duration::from_millis(silent);
            }
        })
    };
    check(&sealed(3179), Standing::Sealed, "Wait", "elected, until database-1 is fenced for certain");
    check(&sealed(3180), Standing::Promoting, "TakeOver", "ran out, and this server has most");
}

#[test]
fn a_voter_is_sealed_first() {
    let ballot =
        group().apply(&Command::OpenBallot { server: "database-2".into(), epoch: 1, seq: 1 }).unwrap();
    let voter =
        |follows| with(seen("database-2", Some(ballot.clone())), |seen| seen.postgres = replica(follows));
    check(&voter(Some("database-1")), Standing::Sealed, "Seal", "sealing itself");
    check(&voter(None), Standing::Sealed, "Vote", "voting with 0/50 of epoch 1");
}

#[test]
fn nothing_is_done_while_paused_but_what_protects() {
    let mut paused = group();
    paused.paused = true;
    check(&seen("database-2", Some(paused.clone())), Standing::Paused, "Wait", "paused, no automatic action");
    let over = with(seen("database-1", Some(paused)), |seen| {
        seen.lease = Some(HeldLease { epoch: 1, left: Duration::ZERO });
    });
    check(&over, Standing::Fencing, "Fence", "paused");
}

#[test]
fn a_replica_that_cannot_start_is_copied_when_the_operator_wants_it() {
    let mut ordered = group();
    ordered.reinit.insert("database-2".into());
    check(&seen("database-2", Some(ordered.clone())), Standing::Starting, "Start", "starting postgres");
    ordered.synchronous.members.clear();
    ordered.synchronous.wait_for = 0;
    check(&seen("database-2", Some(ordered)), Standing::Cloning, "Wait", "the operator wants it copied anew");
}
