//! What the servers and agents of the example take while nothing happens.

#![allow(clippy::unwrap_used)] // a test

use std::time::Duration;

use testkit::Site;

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// The sum of what belongs to each, memory that several share being divided among them. An unoptimized program is
/// several times as large, and relocates more.
const LIMIT_MB: f64 = if cfg!(debug_assertions) { 100.0 } else { 60.0 };

/// How long nothing happens before it is looked at.
const IDLE: Duration = Duration::from_secs(5);

/// In kB, as the kernel says it (proc(5), smaps_rollup).
fn proportional(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[test]
fn all_servers_and_agents_of_the_example_fit_into_sixty_megabytes() {
    let site = Site::guestbook(DOLMEN, 141);
    site.up();
    site.until_healthy();
    std::thread::sleep(IDLE);
    // Not PostgreSQL and the workers, which are other programs.
    let is_ours = |pid: &u32| {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == site.program())
    };
    let ours = site.processes().0.into_iter().filter(|(pid, _)| is_ours(pid));
    let found: Vec<(f64, String)> =
        ours.filter_map(|(pid, command)| Some((proportional(pid)? * 1024.0 / 1e6, command))).collect();
    for (megabytes, command) in &found {
        let end = command.char_indices().nth(40).map_or(command.len(), |(end, _)| end);
        println!("{megabytes:>6.2} MB  {}", &command[..end]);
    }
    let sum: f64 = found.iter().map(|(megabytes, _)| megabytes).sum();
    println!("{sum:>6.2} MB in {} processes", found.len());
    // `up`, three agents, thirteen servers and two guards.
    assert_eq!(found.len(), 19);
    assert!(sum <= LIMIT_MB, "{sum:.1} MB are more than {LIMIT_MB} MB");
}
