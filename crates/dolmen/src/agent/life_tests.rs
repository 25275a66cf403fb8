//! The table of a server's life, event by event.

use super::*;

fn report(state: State) -> Event {
    let because = "as the server says".into();
    Event::Report(Report { state, because, database: None, takes_connections: false })
}

fn running(now_ms: u64) -> Life {
    let mut life = Life::new(now_ms, false);
    assert_eq!(life.step(now_ms, Event::Time), [Action::Spawn]);
    assert_eq!(life.step(now_ms, Event::Spawned { pid: 7 }), []);
    assert_eq!(life.step(now_ms, Event::Hello), []);
    assert_eq!(life.step(now_ms, report(State::Starting)), []);
    assert_eq!(life.step(now_ms, report(State::Healthy)), [Action::Accept]);
    life
}

fn ended() -> Event {
    Event::Ended { how: "was ended by signal 9".into() }
}

#[test]
fn a_server_that_holds_early_comers_takes_connections_while_it_starts() {
    let mut life = Life::new(0, false);
    life.step(0, Event::Time);
    life.step(0, Event::Spawned { pid: 7 });
    life.step(0, Event::Hello);
    let Event::Report(starting) = report(State::Starting) else { unreachable!() };
    let holds = || Event::Report(Report { takes_connections: true, ..starting.clone() });
    assert_eq!(life.step(0, holds()), [Action::Accept]);
    assert_eq!(life.step(1, holds()), []);
    assert_eq!(life.step(2, report(State::Healthy)), []);
    assert_eq!(life.state(3).state, State::Healthy);
}

#[test]
fn a_stable_server_that_dies_is_started_at_once_and_connections_wait_a_little() {
    let mut life = running(0);
    assert_eq!(life.step(60_000, ended()), [Action::Spawn]);
    assert_eq!(life.step(60_001, Event::Spawned { pid: 8 }), []);
    assert_eq!(life.due_ms(), Some(60_000 + PATIENCE_MS));
    assert_eq!(life.step(60_100, report(State::Healthy)), [Action::Accept], "the new process is told");
    assert_eq!(life.step(60_000 + PATIENCE_MS, Event::Time), [], "and the sockets never refused");
    assert_eq!(life.step(60_300, report(State::Healthy)), [], "once");
}

#[test]
fn connections_are_refused_when_the_restart_takes_longer() {
    let mut life = running(0);
    life.step(60_000, ended());
    life.step(60_001, Event::Spawned { pid: 8 });
    assert_eq!(life.step(60_000 + PATIENCE_MS, Event::Time), [Action::Refuse]);
    assert_eq!(life.step(61_000, report(State::Healthy)), [Action::Accept]);
}

#[test]
fn nobody_waits_for_a_server_that_is_slow_to_start() {
    let mut life = Life { patience_ms: 0, ..running(0) };
    assert_eq!(life.step(60_000, ended()), [Action::Refuse, Action::Spawn]);
    life.step(60_001, Event::Spawned { pid: 8 });
    assert_eq!(life.due_ms(), Some(60_001 + HELLO_MS), "it is not refused twice");
    assert_eq!(life.step(61_000, report(State::Healthy)), [Action::Accept]);
}

#[test]
fn a_server_that_keeps_dying_is_tried_ever_more_seldom() {
    let mut life = running(0);
    let mut now_ms = 100;
    let mut waits = Vec::new();
    life.step(now_ms, ended());
    for _ in 0..9 {
        life.step(now_ms, Event::Spawned { pid: 8 });
        assert_eq!(life.step(now_ms, ended()), [Action::Refuse]);
        let until_ms = life.due_ms().unwrap();
        waits.push(until_ms - now_ms);
        now_ms = until_ms;
        assert_eq!(life.step(now_ms, Event::Time), [Action::Spawn]);
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000, 15_000]);
}

#[test]
fn the_state_says_how_it_ended_and_when_the_next_try_is() {
    let mut life = running(0);
    life.step(100, ended());
    life.step(100, Event::Spawned { pid: 8 });
    life.step(200, Event::Ended { how: "exited with status 1".into() });
    let state = life.state(300);
    assert_eq!((state.state, state.because.as_str()), (State::Down, "exited with status 1; next try in 1 s"));
}

#[test]
fn a_killed_server_stays_down_until_it_is_started() {
    let mut life = running(0);
    assert_eq!(life.step(100, Event::Kill), [Action::Refuse, Action::Kill]);
    assert_eq!(life.step(110, ended()), [Action::Refuse]);
    assert!(life.over() && life.due_ms().is_none());
    assert_eq!(life.state(120).state, State::Down);
    assert_eq!(life.step(200, Event::Start), [Action::Spawn]);
}

#[test]
fn a_start_that_comes_while_the_kill_is_under_way_is_not_lost() {
    let mut life = running(0);
    life.step(100, Event::Kill);
    assert_eq!(life.step(101, Event::Start), []);
    assert_eq!(life.step(110, ended()), [Action::Spawn]);
}

#[test]
fn a_start_does_not_save_a_server_that_overstays_its_stop() {
    let mut life = running(0);
    life.step(100, Event::Stop { within_ms: 500 });
    assert_eq!(life.step(200, Event::Start), []);
    assert_eq!(life.step(100 + 500 + STOP_GRACE_MS, Event::Time), [Action::Kill]);
    assert_eq!(life.step(1700, ended()), [Action::Spawn]);
}

#[test]
fn a_stopped_server_is_killed_when_it_overstays() {
    let mut life = running(0);
    assert_eq!(life.step(100, Event::Stop { within_ms: 500 }), [Action::AskToStop { within_ms: 500 }]);
    assert_eq!(life.step(110, report(State::Draining)), [Action::Refuse], "what waits is taken first");
    assert_eq!(life.state(100).state, State::Draining);
    assert_eq!(life.step(900, Event::Time), []);
    assert_eq!(life.step(100 + 500 + STOP_GRACE_MS, Event::Time), [Action::Kill]);
    assert_eq!(life.step(1700, ended()), [Action::Refuse]);
    assert!(life.over());
}

#[test]
fn a_process_that_never_says_hello_is_killed() {
    let mut life = Life::new(0, false);
    life.step(0, Event::Time);
    life.step(0, Event::Spawned { pid: 7 });
    assert_eq!(life.step(HELLO_MS, Event::Time), [Action::Kill]);
}

#[test]
fn a_server_that_cannot_be_spawned_is_tried_again_later() {
    let mut life = Life::new(0, false);
    assert_eq!(life.step(0, Event::Time), [Action::Spawn]);
    assert_eq!(life.step(0, Event::SpawnFailed { because: "no such file".into() }), [Action::Refuse]);
    assert!(life.due_ms().is_some_and(|due| due > 0));
}

#[test]
fn an_order_to_kill_while_the_process_is_made_is_carried_out() {
    let mut life = Life::new(0, false);
    life.step(0, Event::Time);
    life.step(0, Event::Kill);
    assert_eq!(life.step(1, Event::Spawned { pid: 7 }), [Action::Refuse, Action::Kill]);
}

#[test]
fn a_successor_serves_at_once_and_begins_with_a_clean_slate() {
    let mut life = running(0);
    assert_eq!(life.serving().map(|report| report.state), Some(State::Healthy));
    life.step(1_000, ended());
    life.step(1_001, Event::Spawned { pid: 8 });
    assert_eq!(life.serving(), None, "it does not serve yet");
    life.step(1_002, Event::Hello);
    life.step(1_100, report(State::Healthy));
    let Event::Report(said) = report(State::Healthy) else { unreachable!() };
    assert_eq!(life.step(2_000, Event::Succeeded { pid: 9, report: said }), [Action::Accept]);
    assert_eq!((life.pid(), life.state(2_001).state), (Some(9), State::Healthy));
    assert_eq!(life.step(2_002, ended()), [Action::Spawn], "its first end is the first");
}
