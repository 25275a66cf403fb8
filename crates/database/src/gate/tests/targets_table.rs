//! The table of targets: what control and the servers say, and where connections go.

use link::report::{DatabaseReport, MachineReport, MachineState, ServerReport, SiteReport};

use super::super::lead::Lead;
use super::super::targets::{self, Route, Targets};
use super::*;

const FAR: u64 = targets::LAG_LIMIT_BYTES + 1;

fn report(name: &str, state: State, primary: bool, streaming: bool, lag_bytes: u64) -> ServerReport {
    ServerReport {
        generation: 1,
        did: String::new(),
        refused: false,
        name: name.into(),
        role: Role::Database,
        machine: "beta".into(),
        pid: (state != State::Down).then_some(7),
        state,
        because: "told".into(),
        listen: Vec::new(),
        counters: Default::default(),
        traffic: Vec::new(),
        other_build: false,
        finishing: Vec::new(),
        database: Some(DatabaseReport { primary, timeline: 1, streaming, lag_bytes, ..Default::default() }),
    }
}

fn site(servers: Vec<ServerReport>) -> SiteReport {
    let (address, because) = (String::new(), String::new());
    SiteReport {
        machines: vec![MachineReport {
            name: "beta".into(),
            address,
            state: MachineState::Up,
            because,
            notes: Vec::new(),
            servers,
        }],
    }
}

/// What becomes of `before`, in the words of `status`.
fn next(lead: &Lead, servers: Vec<ServerReport>, before: &Targets) -> Targets {
    targets::next(&plan_of_three(), lead, &site(servers), before)
}

fn none_yet() -> Targets {
    targets::first(&plan_of_three(), &Default::default()).unwrap()
}

fn names(targets: &Targets) -> (String, Vec<&str>, Vec<&str>) {
    let name = |target: &'_ Target| target.name.clone();
    let list = |targets: &'_ [Target]| targets.iter().map(|target| name(target).leak() as &str).collect();
    let primary = targets.primary.as_ref().map_or_else(Clone::clone, |primary| name(&primary.target));
    (primary, list(&targets.following), list(&targets.standing))
}

fn one() -> ServerReport {
    report("database-1", State::Healthy, true, false, 0)
}

fn two() -> ServerReport {
    report("database-2", State::Healthy, false, true, 9)
}

#[test]
fn without_a_record_the_reports_decide() {
    let check = |before: &Targets, servers, primary: &str, following: &[&str], standing: &[&str]| {
        let next = next(&Lead::Unrecorded, servers, before);
        assert_eq!(names(&next), (primary.to_owned(), following.to_vec(), standing.to_vec()));
        next
    };
    let waiting = none_yet();
    check(&waiting, vec![], "waiting for database-1 on 127.0.41.1:5432", &[], &[]);
    let starting = report("database-1", State::Starting, true, false, 0);
    check(&waiting, vec![starting.clone()], "database-1 is starting: told", &[], &[]);
    let led = check(&waiting, vec![one(), two()], "database-1", &["database-2"], &[]);
    check(&led, vec![], "database-1", &["database-2"], &[]);
    // Known already, so its role is made: connections wait at its door.
    check(&led, vec![starting], "database-1", &[], &[]);
    let unhealthy = report("database-1", State::Unhealthy, true, false, 0);
    check(&waiting, vec![unhealthy], "database-1", &[], &[]);
    let lags = report("database-2", State::Healthy, false, true, FAR);
    check(&led, vec![one(), lags], "database-1", &[], &["database-2"]);
    check(&led, vec![one(), report("database-2", State::Down, false, true, 0)], "database-1", &[], &[]);
    let alone = report("database-2", State::Healthy, false, false, 0);
    check(&led, vec![one(), alone.clone()], "database-1", &[], &["database-2"]);
    check(&led, vec![report("database-2", State::Healthy, true, false, 0)], "database-2", &[], &[]);
    // Without a primary the replicas that run still take reads, though they follow nobody.
    let lost = || report("database-1", State::Down, false, false, 0);
    let away = check(&led, vec![lost(), alone], "database-1", &[], &["database-2"]);
    assert!(away.primary_is_away && away.allow(&Route::Replica(away.standing[0].clone())));
    let starting = report("database-2", State::Starting, false, false, 0);
    check(&led, vec![lost(), starting], "database-1", &[], &[]);
}

#[test]
fn the_record_decides_whatever_the_reports_claim() {
    let check = |lead: &Lead, servers, expect: &str| {
        let next = next(lead, servers, &none_yet());
        assert_eq!(next.to_string(), expect);
        next
    };
    let open = |server: &str, epoch| Lead::Open { server: server.into(), epoch };
    let to_one = "read-write to database-1 on 127.0.41.1:5432 (epoch 3), read-only ";
    check(&open("database-1", 3), vec![], &format!("{to_one}to the same server"));
    check(&open("database-1", 3), vec![one(), two()], &format!("{to_one}over 1 replica"));
    // Two claims, and the reports are behind: only the record counts, and a claimant takes no reads either.
    let to_two = "read-write to database-2 on 127.0.41.2:5432 (epoch 4), read-only ";
    check(&open("database-2", 4), vec![one(), two()], &format!("{to_two}to the same server"));
    let nobody = Lead::Nobody("database-2 is being promoted (epoch 4)".into());
    let held = "no primary: database-2 is being promoted (epoch 4); read-only ";
    let waiting = check(&nobody, vec![one(), two()], &format!("{held}over 1 replica"));
    check(&nobody, vec![one()], &format!("{held}to nobody either"));
    check(
        &open("database-9", 5),
        vec![],
        "no primary: database-9 is the primary, but not in the plan of this gate; read-only to nobody either",
    );
    // A sealed replica keeps its readers until there is somebody to follow, and those of the new primary stay.
    let sealed = report("database-2", State::Healthy, false, false, 0);
    let during = next(&nobody, vec![sealed.clone()], &waiting);
    let readers = Route::Replica(during.standing[0].clone());
    assert!(during.allow(&readers));
    assert!(!next(&open("database-1", 5), vec![one(), sealed.clone()], &during).allow(&readers));
    assert!(next(&open("database-2", 5), vec![one(), sealed], &during).allow(&readers));
    // Its agent does not answer: no new readers, but those that are there stay.
    let unseen = ServerReport { database: None, ..report("database-2", State::Down, false, false, 0) };
    let unseen = next(&open("database-1", 5), vec![one(), unseen], &during);
    assert!(unseen.allow(&readers) && unseen.following.is_empty() && unseen.standing.is_empty());
}

#[test]
fn another_epoch_is_another_primary() {
    let open = |epoch| Lead::Open { server: "database-1".into(), epoch };
    let third = next(&open(3), vec![], &none_yet());
    let route = Route::Primary(third.primary.clone().unwrap());
    assert!(third.allow(&route));
    assert!(!next(&open(4), vec![], &third).allow(&route));
    assert!(!next(&Lead::Nobody("it hands over".into()), vec![], &third).allow(&route));
}
