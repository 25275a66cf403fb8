//! Servers, agents and machines that die or hang under load: what the clients saw, request by request.
//!
//! A request may fail only if it was inside the process that was killed: sent before the kill was done, and not yet
//! answered when it began. `make drill` runs the same with more rounds (DOLMEN_DRILL_ROUNDS).

use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Load, Report, Site, until};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// The load of the issue: requests a second.
const GETS: u32 = 500;
const POSTS: u32 = 50;

/// How long the load runs before and after a fault.
const CALM: Duration = Duration::from_millis(1200);

fn rounds() -> u32 {
    std::env::var("DOLMEN_DRILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// What happened under load, and when the fault began and was done, since the load began.
struct Seen {
    report: Report,
    fault: (Duration, Duration),
}

/// Runs the load, does the fault in the middle of it.
fn under_load(site: &Site, calm: Duration, fault: impl FnOnce()) -> Seen {
    let began = Instant::now();
    let load = Load::begin(site.front(), "/", GETS, POSTS);
    std::thread::sleep(CALM);
    let start = began.elapsed();
    fault();
    let done = began.elapsed();
    std::thread::sleep(calm);
    Seen { report: load.finish(), fault: (start, done) }
}

impl Seen {
    /// Fails when a request failed that was not inside the process at the time; says how many were.
    #[track_caller]
    fn only_inside(&self, what: &str) {
        let (start, done) = self.fault;
        let inside =
            |outcome: &&testkit::Outcome| outcome.sent <= done && outcome.sent + outcome.took >= start;
        let (inside, outside): (Vec<_>, Vec<_>) = self.report.failed.iter().partition(inside);
        println!(
            "{what}: {} GET, {} POST; failed inside the killed process {}, else {}; slowest {:?}",
            self.report.gets,
            self.report.posts,
            inside.len(),
            outside.len(),
            self.report.slowest
        );
        assert!(outside.is_empty(), "{what}: failed without having been inside: {outside:?}");
    }

    #[track_caller]
    fn nothing_failed(&self, what: &str) {
        let Report { gets, posts, slowest, failed, .. } = &self.report;
        println!("{what}: {gets} GET, {posts} POST; failed {}; slowest {slowest:?}", failed.len());
        assert!(failed.is_empty(), "{what}: {failed:?}");
    }

    /// Every entry that was acknowledged is in the database.
    #[track_caller]
    fn nothing_lost(&self, site: &Site) {
        let last = self.report.acknowledged.last().expect("something was written").clone();
        until("the last entry", Duration::from_secs(5), || {
            let list = site.get("/api/entries?limit=200").text();
            list.contains(&format!("\"{last}\"")).then_some(())
        });
    }
}

fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(status.expect("kill is there").success());
}

/// Signals from outside. It is done when the agents have noticed too: until then the kernel takes connections for
/// processes that are gone.
fn kill(site: &Site, servers: &[(&str, u32)]) {
    let mut processes: Vec<u32> = servers.iter().flat_map(|(_, pid)| children(*pid)).collect();
    processes.extend(servers.iter().map(|(_, pid)| pid));
    servers.iter().for_each(|(_, pid)| signal(*pid, "-KILL"));
    until_gone(&processes);
    until("the agents notice", Duration::from_secs(5), || {
        let noticed =
            |(server, pid): &(&str, u32)| site.server(server)["pid"].as_u64() != Some((*pid).into());
        servers.iter().all(noticed).then_some(())
    });
}

/// Ends a server in some way. It is done when the process and its children (the workers of an app server) are
/// gone: until then they may still take requests.
fn gone_with(pid: u32, end: impl FnOnce()) {
    let mut processes = children(pid);
    processes.push(pid);
    end();
    until_gone(&processes);
}

fn until_gone(processes: &[u32]) {
    until("the end of the processes", Duration::from_secs(5), || {
        processes.iter().all(|pid| is_gone(*pid)).then_some(())
    });
}

/// The first thread of a process is a zombie before the others have ended; until then its sockets are open.
fn is_gone(pid: u32) -> bool {
    let threads =
        std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |threads| threads.flatten().count());
    threads == 0 || threads == 1 && stat(pid).is_none_or(|(state, _)| state == "Z")
}

/// State and parent of a process (proc_pid_stat(5)).
fn stat(pid: u32) -> Option<(String, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("there is a /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

#[test]
fn only_what_was_inside_a_killed_server_fails() {
    let site = Site::guestbook(DOLMEN, 71);
    site.up();
    for _ in 0..rounds() {
        for server in ["web-1", "web-2", "app-1", "app-2"] {
            let pid = site.pid(server);
            let kill = || gone_with(pid, || drop(site.run(&["kill", server]).fine()));
            let seen = under_load(&site, CALM, kill);
            seen.only_inside(&format!("kill {server}"));
            seen.nothing_lost(&site);
            let seen = under_load(&site, CALM, || drop(site.run(&["start", server]).fine()));
            seen.nothing_failed(&format!("start {server}"));
            site.until_healthy();
        }
    }
}

#[test]
fn a_server_that_crashes_is_mended() {
    let site = Site::guestbook(DOLMEN, 72);
    site.up();
    for _ in 0..rounds() {
        for server in ["web-1", "app-2"] {
            let pid = site.pid(server);
            let seen = under_load(&site, CALM, || kill(&site, &[(server, pid)]));
            seen.only_inside(&format!("kill -9 {server}"));
            site.until_healthy();
            assert_ne!(site.pid(server), pid);
        }
    }
}

#[test]
fn both_servers_of_a_machine_may_go() {
    let site = Site::guestbook(DOLMEN, 73);
    site.up();
    for _ in 0..rounds() {
        let (web, app) = (site.pid("web-1"), site.pid("app-1"));
        let seen = under_load(&site, CALM, || kill(&site, &[("web-1", web), ("app-1", app)]));
        seen.only_inside("kill -9 of web-1 and app-1");
        site.until_healthy();
        let (web, app) = (site.pid("web-1"), site.pid("app-1"));
        let seen = under_load(&site, CALM, || {
            gone_with(web, || drop(site.run(&["kill", "web-1"]).fine()));
            gone_with(app, || drop(site.run(&["kill", "app-1"]).fine()));
        });
        seen.only_inside("kill of web-1 and app-1");
        site.run(&["start", "web-1"]).fine();
        site.run(&["start", "app-1"]).fine();
        site.until_healthy();
    }
}

#[test]
fn a_server_that_hangs_goes_out_of_rotation() {
    let site = Site::guestbook(DOLMEN, 74);
    let text = std::fs::read_to_string(site.folder.join("dolmen.toml")).expect("the example has a site file");
    let hurried = "timeouts = { first-byte = \"2s\" }";
    let text = text.replace("mode = \"active-active\"", &format!("{hurried}\nmode = \"active-active\""));
    site.write("dolmen.toml", &text.replace("root = \"public\"", &format!("{hurried}\nroot = \"public\"")));
    site.up();
    for server in ["web-1", "app-2"] {
        let pid = site.pid(server);
        let seen = under_load(&site, Duration::from_secs(5), || signal(pid, "-STOP"));
        let slow = |outcome: &&testkit::Outcome| outcome.sent > seen.fault.1 + Duration::from_secs(4);
        let late: Vec<_> = seen.report.failed.iter().filter(slow).collect();
        println!(
            "SIGSTOP {server}: {} GET, {} POST; failed {}; slowest {:?}",
            seen.report.gets,
            seen.report.posts,
            seen.report.failed.len(),
            seen.report.slowest
        );
        assert!(late.is_empty(), "{server} was still in rotation: {late:?}");
        assert!(seen.report.slowest < Duration::from_secs(5), "bounded by the time-outs");
        let calm = under_load(&site, CALM, || {});
        calm.nothing_failed(&format!("with {server} stopped"));
        signal(pid, "-CONT");
        site.until_healthy();
    }
}

#[test]
fn an_agent_that_is_killed_costs_nothing() {
    let site = Site::guestbook(DOLMEN, 75);
    site.up();
    for _ in 0..rounds() {
        for machine in ["alpha", "beta", "gamma"] {
            let agent = agent(&site, machine);
            let before = pids(&site);
            // Its children, the servers, go on.
            let seen = under_load(&site, CALM, || {
                signal(agent, "-KILL");
                until_gone(&[agent]);
            });
            seen.nothing_failed(&format!("kill -9 of the agent of {machine}"));
            until("the agent is back", Duration::from_secs(5), || {
                (self::agent(&site, machine) != agent && site.run(&["status"]).code == 0).then_some(())
            });
            assert_eq!(pids(&site), before, "nothing was restarted");
        }
    }
    // It is in command again.
    site.run(&["kill", "web-1"]).fine();
    assert_eq!(site.server("web-1")["state"], "down");
    site.run(&["start", "web-1"]).fine();
    site.until_healthy();
}

fn agent(site: &Site, machine: &str) -> u32 {
    let path = site.state().join("machines").join(machine).join("agent.json");
    let text = std::fs::read_to_string(path).expect("the agent writes a record");
    let record: serde_json::Value = serde_json::from_str(&text).expect("the record is JSON");
    record["agent"]["pid"].as_u64().expect("the agent has a process") as u32
}

fn pids(site: &Site) -> Vec<(String, u64)> {
    let status = site.status();
    let servers = status["servers"].as_array().expect("there are servers").clone();
    servers.iter().map(|s| (s["name"].to_string(), s["pid"].as_u64().unwrap_or(0))).collect()
}

#[test]
fn a_machine_that_is_killed_comes_back() {
    let site = Site::guestbook(DOLMEN, 76);
    site.up();
    let entry = site.post_entry("Ada", "before the machine was lost");
    site.run(&["kill", "gamma"]).fine();
    let seen = under_load_of_reads(&site);
    seen.nothing_failed("with machine gamma down");
    let status = site.run(&["status"]);
    assert_eq!(status.code, 1);
    assert!(status.says("machine gamma is down"), "{}", status.out);
    site.run(&["start", "gamma"]).fine();
    site.until_healthy();
    let list = site.get("/api/entries?limit=5").text();
    assert!(list.contains(&format!("\"id\":{}", entry["id"])), "{list}");
}

/// Without a replica a commit waits, as synchronous replication promises: so only reads.
fn under_load_of_reads(site: &Site) -> Seen {
    // The machine's servers need a moment to be found missing; what was inside them may fail.
    std::thread::sleep(CALM);
    let began = Instant::now();
    let load = Load::begin(site.front(), "/", GETS, 0);
    std::thread::sleep(CALM);
    let now = began.elapsed();
    Seen { report: load.finish(), fault: (now, now) }
}
