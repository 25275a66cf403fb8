//! Every way to part three machines, and packets that are lost between them, under clients outside who reach all of
//! them and count what fails. With one way cut, the third machine sees both sides.

use std::time::{Duration, Instant};

use testkit::{Bed, Load, Outcome, Report};

use super::guestbook::has_all;
use super::stage::{ALL, is_drill, joined, until_healthy};

/// A machine that was cut off is noticed within this time.
const AGAIN: Duration = Duration::from_secs(2);

/// How long a fault lasts: longer than anything that notices it takes.
const FAULT: Duration = Duration::from_secs(6);

/// The same with a database: its lease, an election and a promotion on a busy computer.
const WRITES_AGAIN: Duration = Duration::from_secs(10);

type Ways = &'static [(&'static str, &'static str)];

const ALPHA_BETA: (&str, &str) = ("alpha", "beta");
const ALPHA_GAMMA: (&str, &str) = ("alpha", "gamma");
const BETA_GAMMA: (&str, &str) = ("beta", "gamma");

/// The ways that are cut: one, so that one machine sees both sides; two, so that one is alone; all.
const PARTITIONS: [Ways; 7] = [
    &[ALPHA_BETA],
    &[ALPHA_GAMMA],
    &[BETA_GAMMA],
    &[ALPHA_BETA, ALPHA_GAMMA],
    &[ALPHA_BETA, BETA_GAMMA],
    &[ALPHA_GAMMA, BETA_GAMMA],
    &[ALPHA_BETA, ALPHA_GAMMA, BETA_GAMMA],
];

/// What clients of each machine saw while a fault began, lasted and was healed; and when it began and ended.
struct Seen {
    reports: Vec<(&'static str, Report)>,
    began: Duration,
    ended: Duration,
}

impl Seen {
    /// Requests of this kind that failed, and were sent neither right before the fault nor soon after a change.
    fn late(&self, method: &str, patience: Duration) -> Vec<(&'static str, &Outcome)> {
        let soon = |sent: Duration, change: Duration| sent + AGAIN >= change && sent < change + patience;
        let failed = |outcome: &&Outcome| {
            outcome.method == method && !soon(outcome.sent, self.began) && !soon(outcome.sent, self.ended)
        };
        let all = self
            .reports
            .iter()
            .flat_map(|(machine, report)| report.failed.iter().map(move |f| (*machine, f)));
        all.filter(|(_, outcome)| failed(outcome)).collect()
    }
}

fn play(
    bed: &Bed,
    what: &str,
    (path, gets, posts): (&'static str, u32, u32),
    lasts: Duration,
    fault: impl FnOnce(),
) -> Seen {
    let began = Instant::now();
    let loads = ALL.map(|machine| (machine, Load::begin(bed.address(machine, 80), path, gets, posts)));
    std::thread::sleep(AGAIN);
    let at = began.elapsed();
    fault();
    std::thread::sleep(lasts);
    let ended = began.elapsed();
    bed.heal();
    until_healthy(bed, &ALL);
    let healthy = began.elapsed() - ended;
    let reports = loads.map(|(machine, load)| (machine, load.finish()));
    for (machine, report) in &reports {
        let failed = |method| report.failed.iter().filter(|failed| failed.method == method).count();
        println!(
            "{what}: {machine} answered {} GETs, {} failed, and {} POSTs, {} failed; slowest {:?}",
            report.gets,
            failed("GET"),
            report.posts,
            failed("POST"),
            report.slowest
        );
    }
    println!("{what}: all is healthy {healthy:?} after it was healed");
    Seen { reports: reports.into(), began: at, ended }
}

fn part(bed: &Bed, ways: Ways) {
    ways.iter().for_each(|(one, other)| bed.part(one, other));
}

#[test]
fn files_are_served_whoever_hears_whom() {
    let bed = joined();
    let some = if is_drill() { &PARTITIONS[..] } else { &PARTITIONS[..1] };
    for ways in some {
        let seen = play(&bed, &format!("{ways:?}"), ("/hello.txt", 80, 0), FAULT, || part(&bed, ways));
        let late = seen.late("GET", AGAIN);
        assert!(late.is_empty(), "{ways:?}: {} failed: {:?}", late.len(), late.first());
    }
    if is_drill() {
        packets_are_lost(&bed);
    }
}

fn packets_are_lost(bed: &Bed) {
    for percent in [2, 10, 30] {
        let lose = || ALL.iter().for_each(|machine| bed.machine(machine).lose_packets(percent));
        let seen = play(bed, &format!("{percent} % of the packets"), ("/hello.txt", 80, 0), FAULT, lose);
        // What is lost is sent again, by clients too; only at such a loss a connection may take longer than they wait.
        let failed: usize = seen.reports.iter().map(|(_, report)| report.failed.len()).sum();
        assert!(percent > 10 || failed == 0, "{percent} %: {failed} failed");
    }
}

/// Of a guestbook: what it acknowledged it keeps, and with one way cut it goes on.
pub fn of_a_guestbook(bed: &Bed) {
    let mut acknowledged = Vec::new();
    for ways in PARTITIONS {
        let what = format!("{ways:?}");
        let seen = play(bed, &what, ("/api/entries", 20, 10), FAULT + WRITES_AGAIN, || part(bed, ways));
        acknowledged.extend(seen.reports.iter().flat_map(|(_, report)| report.acknowledged.clone()));
        // Who is alone may have neither application nor database; with one way cut everybody reaches both.
        if matches!(ways, [_]) {
            let late = seen.late("GET", AGAIN);
            assert!(late.is_empty(), "{what}: {} GETs failed: {:?}", late.len(), late.first());
        }
        // An application knows only its machine's gate, so that the one cut off from the primary writes nothing.
        if matches!(ways, [cut] if *cut != BETA_GAMMA) {
            let late = seen.late("POST", WRITES_AGAIN);
            assert!(late.is_empty(), "{what}: {} POSTs failed: {:?}", late.len(), late.first());
        }
        has_all(bed, "alpha", &acknowledged);
    }
}
