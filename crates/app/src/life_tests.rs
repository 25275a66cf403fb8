//! The table of a worker's life, row by row.

use super::Act::{Kill, Publish, Spawn, Terminate, Withdraw};
use super::*;

const TIMES: Times = Times { start: Duration::from_secs(30), stop: Duration::from_secs(10) };

/// A life and a clock that moves only when told.
struct Tale {
    life: Life,
    now: Instant,
}

impl Tale {
    fn new() -> Self {
        let now = Instant::now();
        Self { life: Life::new(TIMES, now), now }
    }

    fn starting() -> Self {
        let mut tale = Self::new();
        tale.check(Event::Begin, &[Spawn], "");
        tale
    }

    fn ready() -> Self {
        let mut tale = Self::starting();
        tale.after(300).check(Event::Well, &[Publish], "is ready after 300 ms");
        tale
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now += Duration::from_millis(ms);
        self
    }

    #[track_caller]
    fn check(&mut self, event: Event, acts: &[Act], because: &str) -> &mut Self {
        let step = self.life.step(event, self.now);
        assert_eq!((step.acts.as_slice(), step.because.as_deref().unwrap_or("")), (acts, because));
        self
    }

    #[track_caller]
    fn wakes_after(&self, ms: u64) -> &Self {
        assert_eq!(self.life.wake().map(|wake| wake - self.now), Some(Duration::from_millis(ms)));
        self
    }
}

fn status(code: i32) -> Event {
    Event::Exited(Exit { code: Some(code), ..Exit::default() })
}

fn said(code: i32, line: &str) -> Event {
    Event::Exited(Exit { code: Some(code), last_line: Some(line.into()), ..Exit::default() })
}

fn ill() -> Event {
    Event::Ill("it answered 500".into())
}

#[test]
fn a_good_life() {
    let mut tale = Tale::ready();
    assert_eq!(tale.life.standing(), Standing::Ready);
    tale.after(5000).check(Event::Well, &[], "");
    tale.check(Event::Stop(Duration::from_secs(60)), &[Withdraw], "").wakes_after(8000);
    assert!(tale.life.is_draining());
    tale.after(100).check(Event::Idle, &[Terminate], "has no request left and was asked to end");
    tale.wakes_after(9900);
    tale.after(50).check(status(0), &[Withdraw], "ended: exited with status 0 after 5.5 s");
    assert!(tale.life.is_gone());
}

#[test]
fn one_that_exits_at_once_is_tried_later_and_later() {
    let mut tale = Tale::starting();
    let line = "ModuleNotFoundError: No module named 'flask'";
    for wait in ["250 ms", "500 ms", "1 s", "2 s", "4 s", "8 s", "16 s", "30 s", "30 s"] {
        let because = format!("exited at once with status 1 ({line}), next try in {wait}");
        tale.after(200).check(said(1, line), &[Withdraw], &because);
        assert_eq!(tale.life.standing(), Standing::Trouble(because));
        tale.check(Event::Tick, &[], "");
        tale.after(30_000).check(Event::Tick, &[Spawn], "");
    }
}

#[test]
fn the_trouble_is_told_until_it_is_ready_again() {
    let mut tale = Tale::starting();
    tale.check(status(3), &[Withdraw], "exited at once with status 3, next try in 250 ms").wakes_after(250);
    tale.after(250).check(Event::Tick, &[Spawn], "");
    assert!(matches!(tale.life.standing(), Standing::Trouble(_)));
    tale.after(1500).check(Event::Well, &[Publish], "is ready after 1.5 s");
    assert_eq!(tale.life.standing(), Standing::Ready);
}

#[test]
fn failures_are_forgotten_after_a_stable_time() {
    let mut tale = Tale::starting();
    tale.check(status(1), &[Withdraw], "exited at once with status 1, next try in 250 ms");
    tale.after(250).check(Event::Tick, &[Spawn], "").check(Event::Well, &[Publish], "is ready after 0 ms");
    tale.after(29_000).check(status(1), &[Withdraw], "exited with status 1 after 29 s, next try in 500 ms");
    tale.after(500).check(Event::Tick, &[Spawn], "").check(Event::Well, &[Publish], "is ready after 0 ms");
    tale.after(31_000).check(
        Event::Exited(Exit { signal: Some(9), ..Exit::default() }),
        &[Withdraw],
        "was ended by signal 9 after 31 s, next try in 250 ms",
    );
}

#[test]
fn one_that_is_never_healthy_is_ended_and_tried_again() {
    let mut tale = Tale::starting();
    tale.wakes_after(30_000);
    tale.after(1000).check(ill(), &[], "");
    let why = "was not healthy within 30 s (it answered 500)";
    tale.after(29_000).check(Event::Tick, &[Terminate], why).wakes_after(2000);
    assert_eq!(tale.life.standing(), Standing::Trouble(why.into()));
    tale.after(2000).check(Event::Tick, &[Kill], "did not end when asked and was killed");
    tale.check(
        Event::Exited(Exit { signal: Some(9), ..Exit::default() }),
        &[Withdraw],
        &format!("{why}, next try in 250 ms"),
    );
}

#[test]
fn one_that_falls_ill_is_taken_out_and_comes_back() {
    let mut tale = Tale::ready();
    tale.check(ill(), &[], "").check(ill(), &[], "").check(Event::Well, &[], "");
    tale.check(ill(), &[], "").check(ill(), &[], "");
    tale.check(ill(), &[Withdraw], "failed 3 health checks in a row (it answered 500)");
    assert!(matches!(tale.life.standing(), Standing::Trouble(_)));
    tale.check(Event::Well, &[Publish], "is well again");
    assert_eq!(tale.life.standing(), Standing::Ready);
}

#[test]
fn one_that_stays_ill_is_replaced_after_its_requests() {
    let mut tale = Tale::ready();
    for _ in 0..2 {
        tale.check(ill(), &[], "");
    }
    tale.check(ill(), &[Withdraw], "failed 3 health checks in a row (it answered 500)");
    for _ in 0..6 {
        tale.check(ill(), &[], "");
    }
    tale.check(ill(), &[], "failed 10 health checks in a row (it answered 500) and is replaced");
    tale.wakes_after(8000);
    tale.after(8000).check(
        Event::Tick,
        &[Terminate],
        "still has requests, but no more time, and was asked to end",
    );
    tale.check(
        status(0),
        &[Withdraw],
        "failed 10 health checks in a row (it answered 500), next try in 250 ms",
    );
}

#[test]
fn a_taken_port_is_another_try_at_once_but_not_forever() {
    let mut tale = Tale::starting();
    let taken = Exit { code: Some(1), port_taken: true, ..Exit::default() };
    for _ in 0..5 {
        tale.check(Event::Exited(taken.clone()), &[Spawn], "found its port taken and gets another");
    }
    tale.check(Event::Exited(taken), &[Withdraw], "exited at once with status 1, next try in 250 ms");
}

#[test]
fn a_command_that_cannot_be_started() {
    let mut tale = Tale::starting();
    tale.check(
        Event::CannotStart("\"nothing\" is nowhere".into()),
        &[Withdraw],
        "cannot be started: \"nothing\" is nowhere, next try in 250 ms",
    );
}

#[test]
fn a_stop_in_every_phase() {
    let stop = || Event::Stop(Duration::from_secs(4));
    let mut new = Tale::new();
    assert!(new.check(stop(), &[], "").life.is_gone());
    let mut starting = Tale::starting();
    starting.check(stop(), &[Terminate], "was asked to end before it was ready").wakes_after(1000);
    starting.check(stop(), &[], "").check(status(0), &[Withdraw], "ended: exited at once with status 0");
    let mut waiting = Tale::starting();
    waiting.check(status(1), &[Withdraw], "exited at once with status 1, next try in 250 ms");
    assert!(waiting.check(stop(), &[], "").life.is_gone());
    let mut draining = Tale::ready();
    draining.check(stop(), &[Withdraw], "").wakes_after(3000);
    draining.check(stop(), &[], "").wakes_after(3000);
    let why = "still has requests, but no more time, and was asked to end";
    draining.after(3000).check(Event::Tick, &[Terminate], why).wakes_after(1000);
    draining.after(1000).check(Event::Tick, &[Kill], "did not end when asked and was killed");
    draining.check(stop(), &[], "");
    assert!(draining.check(status(0), &[Withdraw], "ended: exited with status 0 after 4.3 s").life.is_gone());
    draining.check(Event::Begin, &[], "");
}

#[test]
fn one_that_retires_has_all_the_time_it_is_given_and_may_be_told_to_hurry() {
    let mut tale = Tale::ready();
    tale.check(Event::Retire(Duration::from_secs(3_600)), &[Withdraw], "");
    tale.after(60_000).check(Event::Tick, &[], "");
    assert!(tale.life.is_draining(), "longer than a stop may take");
    tale.check(Event::Stop(Duration::from_secs(4)), &[], "");
    tale.after(4_000).check(
        Event::Tick,
        &[Terminate],
        "still has requests, but no more time, and was asked to end",
    );
}
