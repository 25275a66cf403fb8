//! A site whose processes were killed or hang: `dolmen stop` ends all of it, and the status says what is wrong.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use testkit::{Site, until};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// The smallest site of two machines.
const FILES: &str = "[machines]\nalpha = \"10.0.0.1\"\nbeta = \"10.0.0.2\"\n[web]\nroot = \".\"\non = [\"alpha\", \"beta\"]\n";

fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap();
    assert!(status.success(), "no process {pid}");
}

fn agent(site: &Site, machine: &str) -> u32 {
    let record = std::fs::read_to_string(site.state().join("machines").join(machine).join("agent.json"));
    let record: serde_json::Value = serde_json::from_str(&record.unwrap()).unwrap();
    record["agent"]["pid"].as_u64().unwrap() as u32
}

fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[track_caller]
fn stops(site: &Site) {
    site.run(&["stop"]).fine();
    assert!(site.processes().is_empty(), "{:?}", site.processes());
}

#[test]
fn a_site_whose_up_was_killed_and_begun_again_stops() {
    let site = Site::new(DOLMEN, 77, FILES);
    site.up();
    let up = parent(agent(&site, "alpha"));
    let servers = (site.pid("web-1"), site.pid("web-2"));
    signal(up, "KILL");
    until("the end of `up`", Duration::from_secs(5), || (parent(agent(&site, "alpha")) != up).then_some(()));
    site.up();
    assert_eq!((site.pid("web-1"), site.pid("web-2")), servers, "the new `up` takes over what runs");
    stops(&site);
}

#[test]
fn a_site_without_up_or_with_nothing_but_up_stops() {
    let site = Site::new(DOLMEN, 78, FILES);
    site.up();
    signal(parent(agent(&site, "alpha")), "KILL");
    stops(&site);
    site.up();
    for machine in ["alpha", "beta"] {
        site.run(&["kill", machine]).fine();
    }
    stops(&site);
}

#[test]
fn an_agent_that_hangs_is_ended_and_stays_so() {
    let site = Site::new(DOLMEN, 79, FILES);
    site.up();
    signal(agent(&site, "beta"), "STOP");
    stops(&site);
}

#[test]
fn frozen_servers_and_agents_do_not_keep_a_site_from_ending_soon() {
    let site = Site::new(DOLMEN, 187, FILES);
    site.up();
    signal(site.pid("web-1"), "STOP");
    signal(agent(&site, "beta"), "STOP");
    let began = std::time::Instant::now();
    stops(&site);
    // Each server was given ten seconds, and the agent was asked for each role.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_stranger_on_the_link_holds_up_no_server() {
    let site = Site::new(DOLMEN, 81, FILES);
    site.up();
    let link = site.state().join("machines/alpha/link.sock");
    let _silent: Vec<_> = (0..32).map(|_| UnixStream::connect(&link).unwrap()).collect();
    signal(site.pid("web-1"), "KILL");
    until("a server that starts again", Duration::from_secs(5), || {
        (site.run(&["status"]).code == 0).then_some(())
    });
}

/// Ends the agent and waits for the next one.
fn next_agent(site: &Site, machine: &str) {
    let killed = agent(site, machine);
    signal(killed, "KILL");
    until("the next agent", Duration::from_secs(5), || (agent(site, machine) != killed).then_some(()));
}

#[test]
fn a_server_that_hangs_while_its_agent_begins_anew_is_not_called_fine() {
    let site = Site::new(DOLMEN, 82, FILES);
    site.up();
    let frozen = site.pid("web-1");
    // A child that is stopped gets SIGHUP from the kernel when its parent dies; from now on it is nobody's child.
    next_agent(&site, "alpha");
    site.until_healthy();
    signal(frozen, "STOP");
    next_agent(&site, "alpha");
    until("another process of the server", Duration::from_secs(10), || {
        let fine = site.run(&["status"]).code == 0;
        assert!(!fine || site.pid("web-1") != frozen, "called fine before it spoke to its new agent");
        fine.then_some(())
    });
}

#[test]
fn a_folder_that_was_moved_while_its_site_ran_still_leads_to_it() {
    let mut site = Site::new(DOLMEN, 84, FILES);
    site.up();
    let moved = site.folder.with_added_extension("moved");
    std::fs::rename(&site.folder, &moved).unwrap();
    site.folder = moved;
    assert_eq!(site.run(&["status"]).code, 0);
    stops(&site);
}
