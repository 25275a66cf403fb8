//! The table of decisions: what was seen on the left, the action and the sentence on the right.

use super::*;

const MY_CLUSTER: u64 = 7;

fn primary() -> Duty {
    Duty::Primary { replicas: vec!["database-2".into()], synchronous: true }
}

fn replica(upstream: Upstream) -> Duty {
    Duty::Replica { primary: "database-1".into(), address: "10.0.0.1:5432".into(), upstream }
}

fn reached(system_identifier: u64, slot: bool) -> Upstream {
    Upstream::Reached { major: 15, system_identifier, slot }
}

fn data(standby: bool) -> Data {
    Data::Present { major: 15, system_identifier: MY_CLUSTER, timeline: 1, standby }
}

/// A server with nothing on disk that was never started.
fn fresh(duty: Duty) -> Seen {
    Seen {
        duty,
        memory: Memory::default(),
        installed: vec![16, 15],
        process: Process::Stopped { leftovers: 0 },
        data: Data::Absent,
        trouble: None,
        free_bytes: u64::MAX,
    }
}

fn with(mut seen: Seen, change: impl FnOnce(&mut Seen)) -> Seen {
    change(&mut seen);
    seen
}

fn runs(seen: Seen, answer: Answer) -> Seen {
    let process = Process::Running {
        since: Duration::from_secs(9),
        answered: true,
        answer: Ok(answer),
        last_error: None,
    };
    with(seen, |seen| {
        seen.data = data(matches!(seen.duty, Duty::Replica { .. }));
        seen.process = process;
    })
}

fn replica_state(state: &str) -> Vec<ReplicaReport> {
    vec![ReplicaReport { name: "database-2".into(), state: state.into(), synchronous: false, lag_bytes: 0 }]
}

fn as_primary(state: &str, names: &str, set_up: bool) -> Answer {
    Answer::Primary { timeline: 1, replicas: replica_state(state), synchronous_names: names.into(), set_up }
}

fn as_replica(streaming: bool) -> Answer {
    Answer::Replica { timeline: 1, streaming, lag_bytes: 0 }
}

#[track_caller]
fn check(seen: Seen, action: Action, state: State, text: &str) {
    let (decided, sentence) = decide(&seen);
    assert_eq!((decided, sentence.state), (action, state), "{}", sentence.text);
    assert!(sentence.text.contains(text), "{:?} lacks {text:?}", sentence.text);
}

const NAMES: &str = "ANY 1 (\"database-2\")";

#[test]
fn beginning_without_data() {
    use State::{Starting, Unhealthy};
    check(fresh(primary()), Action::Initialise, Starting, "making a new database cluster");
    let replica = |upstream| fresh(replica(upstream));
    let wait = "waiting for database-1 at 10.0.0.1:5432 to copy it: ";
    check(
        replica(Upstream::Unreachable("refused".into())),
        Action::Wait,
        Starting,
        &format!("{wait}refused"),
    );
    check(replica(reached(MY_CLUSTER, false)), Action::Wait, Starting, "has not made our replication slot");
    check(replica(reached(MY_CLUSTER, true)), Action::Clone { major: 15 }, Starting, "copying database-1");
    let newer = Upstream::Reached { major: 17, system_identifier: MY_CLUSTER, slot: true };
    check(replica(newer), Action::Wait, Unhealthy, "runs PostgreSQL 17, which is not installed here");
}

#[test]
fn starting_on_data() {
    let mine = with(fresh(primary()), |seen| seen.data = data(false));
    check(mine.clone(), Action::Start { major: 15 }, State::Starting, "starting postgres");
    let left = with(mine.clone(), |seen| seen.process = Process::Stopped { leftovers: 3 });
    check(left, Action::EndLeftovers, State::Starting, "ending 3 processes");
    // A replica serves what it has while the primary is away.
    let alone = with(fresh(replica(Upstream::Unreachable("x".into()))), |seen| seen.data = data(true));
    check(alone, Action::Start { major: 15 }, State::Starting, "starting postgres");
    let trouble = |retry_in| Some(Trouble { what: "postgres ended".into(), retry_in });
    let resting = with(mine.clone(), |seen| seen.trouble = trouble(Duration::from_secs(1)));
    check(resting, Action::Wait, State::Unhealthy, "postgres ended; trying again soon");
    let rested = with(mine, |seen| seen.trouble = trouble(Duration::ZERO));
    check(rested, Action::Start { major: 15 }, State::Starting, "starting postgres again: postgres ended");
}

#[test]
fn contradictions_are_told_and_nothing_is_touched() {
    let refused = |seen: Seen, text: &str| check(seen, Action::Wait, State::Unhealthy, text);
    let mine = with(fresh(primary()), |seen| seen.data = data(false));
    let memory = |identifier| Memory { system_identifier: Some(identifier), synchronous: false };
    refused(
        with(fresh(primary()), |seen| seen.memory = memory(7)),
        "the data directory of cluster 7 is gone",
    );
    refused(with(mine.clone(), |seen| seen.memory = memory(8)), "belongs to cluster 7, not to 8");
    refused(
        with(mine.clone(), |seen| seen.data = Data::OtherVersion(13)),
        "made by PostgreSQL 13, which is not installed",
    );
    refused(with(mine.clone(), |seen| seen.data = data(true)), "its data directory is a replica's");
    refused(with(mine, |seen| seen.data = Data::Unreadable("x is a file".into())), "x is a file; it is left");
    let copy = |upstream, standby| with(fresh(replica(upstream)), |seen| seen.data = data(standby));
    refused(copy(reached(9, true), true), "belongs to cluster 7, but database-1 has cluster 9");
    refused(copy(reached(MY_CLUSTER, true), false), "was a primary's");
}

#[test]
fn a_running_primary() {
    use State::{Healthy, Starting, Unhealthy};
    let primary = |state: &str, names: &str, set_up, already| {
        let seen = runs(fresh(primary()), as_primary(state, names, set_up));
        with(seen, |seen| seen.memory.synchronous = already)
    };
    check(primary("disconnected", "", false, false), Action::SetUp, Starting, "making roles");
    let alone = "primary, timeline 1, 0 of 1 replicas streaming: commits do not wait";
    check(primary("disconnected", "", true, false), Action::Wait, Healthy, alone);
    check(primary("backup", "", true, false), Action::Wait, Healthy, "0 of 1");
    check(primary("streaming", "", true, false), Action::SetSynchronous(true), Healthy, "1 of 1");
    check(primary("streaming", NAMES, true, true), Action::Wait, Healthy, "1 of 1 replicas streaming");
    let waits = "0 of 1 replicas streaming: commits wait until database-2 is back";
    check(primary("disconnected", NAMES, true, true), Action::Wait, Unhealthy, waits);
    let soon = with(primary("disconnected", NAMES, true, true), |seen| {
        if let Process::Running { since, .. } = &mut seen.process {
            *since = Duration::from_secs(1);
        }
    });
    check(soon, Action::Wait, Starting, waits);
    // Never emptied once it was in force.
    check(primary("disconnected", "", true, true), Action::SetSynchronous(true), Unhealthy, waits);
    let full = with(primary("streaming", NAMES, true, true), |seen| seen.free_bytes = 12 << 20);
    check(full, Action::Wait, Unhealthy, "only 12 MB left on the disk of the data, make room");
    let resting = with(primary("disconnected", "", false, false), |seen| {
        seen.trouble = Some(Trouble { what: "cannot set up".into(), retry_in: Duration::from_secs(1) });
    });
    check(resting, Action::Wait, Unhealthy, "cannot set up");
}

#[test]
fn a_running_replica() {
    use State::{Healthy, Unhealthy};
    let replica = |upstream, streaming| runs(fresh(replica(upstream)), as_replica(streaming));
    let well = "replica of database-1, streaming, less than 1 MB behind";
    check(replica(Upstream::Unasked, true), Action::Wait, Healthy, well);
    let gone = Upstream::Unreachable("connection refused".into());
    check(replica(gone, false), Action::Wait, Unhealthy, "not streaming: connection refused");
    check(replica(reached(MY_CLUSTER, true), false), Action::Wait, Unhealthy, "not streaming");
    check(replica(reached(9, true), false), Action::Stop, Unhealthy, "but database-1 has cluster 9");
    let writes = runs(fresh(self::replica(Upstream::Unasked)), as_primary("streaming", "", true));
    check(writes, Action::Stop, Unhealthy, "takes writes although database-1 is the primary");
    let follows = runs(fresh(primary()), as_replica(true));
    check(follows, Action::Wait, Unhealthy, "follows another server");
}

#[test]
fn a_postgres_that_does_not_answer() {
    let silent = |seconds, answered, error: Option<&str>| {
        with(fresh(primary()), |seen| {
            seen.data = data(false);
            seen.process = Process::Running {
                since: Duration::from_secs(seconds),
                answered,
                answer: Err("silence".into()),
                last_error: error.map(str::to_owned),
            };
        })
    };
    check(silent(1, false, None), Action::Wait, State::Starting, "postgres is starting: silence");
    let text = "does not answer: silence; it last said: out of memory";
    check(silent(61, false, Some("out of memory")), Action::Wait, State::Unhealthy, text);
    check(silent(1, true, Some("out of memory")), Action::Wait, State::Unhealthy, text);
}

#[test]
fn sizes_are_whole() {
    for (count, text) in
        [(0, "0 bytes"), (1, "1 byte"), (2048, "2 kB"), (35 << 20, "35 MB"), (3 << 30, "3 GB")]
    {
        assert_eq!(bytes(count), text);
    }
}
