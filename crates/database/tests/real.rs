//! Real PostgreSQL: a primary, a replica and a gate, each a process of its own, on 127.0.41.x.

#![allow(clippy::unwrap_used)] // a test

#[path = "real/control.rs"]
mod control;
#[path = "real/failover.rs"]
mod failover;
#[path = "real/restart.rs"]
mod restart;
#[path = "real/site.rs"]
mod site;
#[path = "real/troubles.rs"]
mod troubles;

use std::time::{Duration, Instant};

use link::report::State;
use rustix::process::Signal;
use site::{App, Running, Site, until};
use testkit::SmallDisk;
use tokio_postgres::error::SqlState;

/// Everything runs, and commits wait for the replica.
fn start_all(site: &Site) -> [Running; 3] {
    let servers = ["database-1", "database-2", "gate-1"].map(|server| site.start(server));
    site.healthy("database-2");
    site.synchronous();
    site.gate_ready();
    servers
}

async fn table(site: &Site) -> App {
    let writer = site.client("gate-1", "read-write").await.unwrap();
    writer
        .batch_execute("CREATE TABLE entry (message text); INSERT INTO entry VALUES ('hello')")
        .await
        .unwrap();
    writer
}

/// Through the read-only gate to a replica that has this many entries, which may take a moment: for what is
/// shown to arrive, and after a fault for the replica to follow again.
async fn reads(site: &Site, wanted: i64) {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let reader = site.client("gate-1", "read-only").await.unwrap();
        let of_replica = reader.text("SELECT pg_is_in_recovery()::text").await == "true";
        let number = reader.number("SELECT count(*) FROM entry").await.ok();
        reader.close().await;
        if of_replica && number == Some(wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "not {wanted} but {number:?}, of the replica: {of_replica}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_written_through_the_gate_is_read_from_the_replica() {
    let site = Site::new("replicates", 1, "");
    let servers = ["gate-1", "database-1", "database-2"].map(|server| site.start(server));
    // An application that starts first waits, and is never told that its role does not exist.
    let early = loop {
        match site.client("gate-1", "read-write").await {
            Ok(client) => break client,
            Err(error) => assert_eq!(error.code(), Some(&SqlState::CANNOT_CONNECT_NOW), "{error}"),
        }
    };
    early.close().await;
    site.synchronous();
    site.gate_ready();
    let writer = table(&site).await;
    assert_eq!(writer.text("SHOW synchronous_standby_names").await, "ANY 1 (\"database-2\")");
    assert_eq!(writer.text("SHOW work_mem").await, "8MB");
    assert_eq!(writer.text("SHOW data_checksums").await, "on");
    assert_eq!(writer.text("SELECT host(inet_client_addr())").await, "127.0.41.1", "its machine's address");
    let rights = "SELECT rolsuper::text || rolreplication::text FROM pg_roles WHERE rolname = current_user";
    assert_eq!(writer.text(rights).await, "falsefalse");
    reads(&site, 1).await;
    cancels(&site).await;
    writer.close().await;
    servers.into_iter().rev().for_each(Running::stop);
    until("no process is left", || site.processes() == 0);
    // The second start, on what is there: at once synchronous, whether or not the replica is.
    let _servers = start_all(&site);
    reads(&site, 1).await;
}

#[tokio::test]
async fn a_killed_postgres_is_back_and_new_connections_only_pause() {
    let site = Site::new("postgres-killed", 11, "");
    let _servers = start_all(&site);
    let writer = table(&site).await;
    kill(site.postmaster(&site.settled().0));
    assert!(writer.number("SELECT pg_sleep(20)::text::bigint").await.is_err(), "its connections are cut");
    // Not one refused: the gate holds it until there is a primary again.
    let writer = site.client("gate-1", "read-write").await.unwrap();
    writer.execute("INSERT INTO entry VALUES ('again')", &[]).await.unwrap();
    reads(&site, 2).await;
    let (_, replica) = site.settled();
    kill(site.postmaster(&replica));
    site.wait(&replica, |report| report.state != State::Healthy);
    site.settled();
    writer.execute("INSERT INTO entry VALUES ('and again')", &[]).await.unwrap();
    site.gate_ready();
    reads(&site, 3).await;
}

#[tokio::test]
async fn a_killed_manager_takes_postgres_with_it_and_goes_on_from_there() {
    let site = Site::new("manager-killed", 21, "");
    let [mut one, mut two, _gate] = start_all(&site);
    let _writer = table(&site).await;
    for _ in 0..2 {
        for server in ["database-1", "database-2"] {
            let postmaster = site.postmaster(server);
            let running = if server == "database-1" { &mut one } else { &mut two };
            running.kill();
            until("the kernel ends postgres too", || !alive(postmaster));
            *running = site.start(server);
            site.wait(server, |report| report.database.as_ref().is_some_and(|own| !own.fence.is_empty()));
            site.settled();
        }
    }
    site.gate_ready();
    reads(&site, 1).await;
}

/// Everything of postgres below one guard.
fn below(site: &Site, server: &str) -> Vec<u32> {
    let (mut found, mut next) = (Vec::new(), 0);
    found.push(site.guard(server));
    while let Some(pid) = found.get(next) {
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        found.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
        next += 1;
    }
    found
}

/// A client whose backend never ends by itself, commits over and over, and looks for no signal: and the
/// process of that backend.
async fn busy(site: &Site, primary: &str) -> (App, u32) {
    let client = site.client("gate-1", "read-write").await.unwrap();
    client.batch_execute("CREATE TABLE IF NOT EXISTS busy (n int)").await.unwrap();
    let before = below(site, primary);
    let busy = site.client("gate-1", "read-write").await.unwrap();
    let loops = "DO $$ BEGIN LOOP INSERT INTO busy VALUES (1); COMMIT; END LOOP; END $$";
    let loops = async { drop(busy.batch_execute(loops).await) };
    let rows = async {
        while client.number("SELECT count(*) FROM busy").await.unwrap() < 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = loops => panic!("the loop ended"),
        () = rows => {}
    }
    let new = below(site, primary).into_iter().find(|pid| !before.contains(pid)).unwrap();
    client.close().await;
    (busy, new)
}

#[tokio::test]
async fn nothing_of_postgres_outlives_its_guard_manager_or_postmaster() {
    let site = Site::new("outlives", 101, "");
    let [mut one, mut two, _gate] = start_all(&site);
    for fault in ["the postmaster killed", "the guard killed", "the guard stopped", "the manager killed"] {
        let (primary, _) = site.settled();
        let (_client, backend) = busy(&site, &primary).await;
        signal(backend, Signal::STOP);
        let all = below(&site, &primary);
        let manager = if primary == "database-1" { &mut one } else { &mut two };
        let (begun, epoch) = (Instant::now(), site.group().epoch);
        match fault {
            "the postmaster killed" => kill(site.postmaster(&primary)),
            "the guard killed" => kill(site.guard(&primary)),
            "the guard stopped" => signal(site.guard(&primary), Signal::STOP),
            _ => manager.kill(),
        }
        until("nothing of it is left", || !all.iter().any(|pid| alive(*pid)));
        println!("{fault}: {} processes gone after {:?}", all.len(), begun.elapsed());
        if fault == "the manager killed" {
            *manager = site.start(&primary);
        }
        // The other one takes over, or postgres is started again in place where failovers follow too closely.
        until("a new epoch begins", || site.group().epoch > epoch);
        site.settled();
    }
    let fence = site.healthy("database-1").database.unwrap().fence;
    println!("in force: {fence}");
    assert!(!fence.is_empty());
}

/// A backend that is stopped while it holds a lock of PostgreSQL's stops the manager's own statements, some of
/// which may take a minute: the guard, stopped too, must be missed all the same.
#[test]
fn whatever_the_manager_waits_for_it_ends_a_postgres_whose_guard_is_stopped() {
    let site = Site::new("all-stopped", 131, "");
    let _one = site.start("database-1");
    for step in ["making roles", "is committed: open", "primary of epoch"] {
        site.wait("database-1", |report| report.because.contains(step) || report.state == State::Healthy);
        let all = below(&site, "database-1");
        let begun = Instant::now();
        all.iter().for_each(|pid| stop_if_there(*pid));
        until("nothing of it is left", || !all.iter().any(|pid| alive(*pid)));
        println!("{step}: {} processes gone after {:?}", all.len(), begun.elapsed());
        // Its limit is 2 s; some statements of the manager have one of 60 s.
        assert!(begun.elapsed() < Duration::from_secs(15), "{step}: {:?}", begun.elapsed());
    }
    site.healthy("database-1");
}

fn stop_if_there(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let _gone = rustix::process::kill_process(pid, Signal::STOP);
}

#[test]
fn a_manager_killed_at_any_step_of_the_beginning_ends_in_the_same_place() {
    let site = Site::new("beginning-killed", 31, "");
    for step in ["making a new", "starting postgres", "making roles"] {
        let mut one = site.start("database-1");
        site.wait("database-1", |report| report.because.contains(step) || report.state == State::Healthy);
        one.kill();
    }
    let _one = site.start("database-1");
    site.healthy("database-1");
    for step in ["copying", " of ", "starting postgres"] {
        let mut two = site.start("database-2");
        site.wait("database-2", |report| report.because.contains(step) || report.state == State::Healthy);
        two.kill();
    }
    let _two = site.start("database-2");
    site.healthy("database-2");
    assert!(!site.folder("database-2").join("data.new").exists());
}

#[tokio::test]
async fn a_commit_waits_while_the_replica_is_away() {
    let mut site = Site::new("replica-away", 41, "");
    // Otherwise the primary goes on alone after a moment, which is over the sooner the slower this test is.
    site.plan.database.as_mut().unwrap().strict = true;
    let [_one, two, _gate] = start_all(&site);
    let writer = table(&site).await;
    two.stop();
    site.wait("database-1", |report| {
        report.state == State::Unhealthy && report.because.contains("commits wait until database-2 is back")
    });
    let insert = writer.execute("INSERT INTO entry VALUES ('waits')", &[]);
    tokio::pin!(insert);
    // That it waits cannot be seen but by waiting; the other half of the proof is that it ends below.
    assert!(
        tokio::time::timeout(Duration::from_millis(500), &mut insert).await.is_err(),
        "acknowledged alone"
    );
    // Reads go to the primary meanwhile.
    site.wait("gate-1", |report| report.because.contains("read-only to the same"));
    let reader = site.client("gate-1", "read-only").await.unwrap();
    assert_eq!(reader.number("SELECT count(*) FROM entry").await.unwrap(), 1);
    let _two = site.start("database-2");
    insert.await.unwrap();
    assert_eq!(reader.number("SELECT count(*) FROM entry").await.unwrap(), 2);
}

/// A statement that runs through the gate ends by a cancel request through the gate.
async fn cancels(site: &Site) {
    for listen in ["read-write", "read-only"] {
        let client = site.client("gate-1", listen).await.unwrap();
        let token = client.cancel_token();
        let statement = client.batch_execute("SELECT pg_sleep(60)");
        let cancel = async {
            // Until the statement runs a cancel has no effect, so it is repeated.
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                token.cancel_query(tokio_postgres::NoTls).await.unwrap();
            }
        };
        let result = tokio::select! {
            result = statement => result,
            () = cancel => Ok(()),
        };
        let code = result.unwrap_err().code().cloned();
        assert_eq!(code, Some(SqlState::QUERY_CANCELED), "{listen}");
    }
}

#[test]
fn a_deep_folder_works_and_what_contradicts_the_plan_is_left_alone() {
    let site = Site::new("deep", 61, &"x".repeat(150));
    let one = site.start("database-1");
    site.healthy("database-1");
    let two = site.start("database-2");
    site.healthy("database-2");
    site.synchronous();
    two.stop();
    one.stop();
    let data = |server: &str| site.folder(server).join("data");
    let refused = |server: &str, text: &str| {
        let running = site.start(server);
        site.wait(server, |report| report.state == State::Unhealthy && report.because.contains(text));
        assert!(data(server).join("PG_VERSION").exists());
        running.stop();
    };
    let aside = data("database-2").with_file_name("aside");
    // Made by a version that is not here.
    let version = data("database-1").join("PG_VERSION");
    let content = std::fs::read_to_string(&version).unwrap();
    for major in ["13", "99"] {
        link::disk::replace(&version, major.as_bytes(), link::disk::Access::Everyone).unwrap();
        refused("database-1", &format!("made by PostgreSQL {major}, which is not installed here"));
    }
    link::disk::replace(&version, content.as_bytes(), link::disk::Access::Everyone).unwrap();
    // Gone: nobody begins empty by accident.
    std::fs::rename(data("database-1"), &aside).unwrap();
    let running = site.start("database-1");
    site.wait("database-1", |report| {
        report.because.contains("is gone, and this server was its last primary")
    });
    std::fs::rename(&aside, data("database-1")).unwrap();
    site.healthy("database-1");
    // Of another cluster than the one that was here.
    let memory = site.folder("database-2").join("memory.json");
    let content = std::fs::read(&memory).unwrap();
    link::disk::replace(&memory, br#"{"system_identifier":5}"#, link::disk::Access::Everyone).unwrap();
    refused("database-2", "not to 5 that was here before");
    link::disk::replace(&memory, &content, link::disk::Access::Everyone).unwrap();
    // A replica that has no data any more is copied anew.
    std::fs::rename(data("database-2"), &aside).unwrap();
    let _two = site.start("database-2");
    site.settled();
    drop(running);
}

#[test]
fn why_postgres_cannot_start_is_told_in_its_own_words() {
    let mut site = Site::new("cannot-start", 71, "");
    let address = site.plan.server("database-1").unwrap().listens("postgres").unwrap();
    let taken = std::net::TcpListener::bind(address).unwrap();
    let one = site.start("database-1");
    site.wait("database-1", |report| {
        report.state == State::Unhealthy && report.because.contains("could not bind IPv4 address")
    });
    // It goes on trying: what is mended is enough.
    drop(taken);
    site.healthy("database-1");
    one.stop();
    let set = |site: &mut Site, key: &str, value: &str| {
        site.plan.database.as_mut().unwrap().settings = [(key.to_owned(), value.to_owned())].into();
    };
    set(&mut site, "wrk_mem", "1MB");
    let one = site.start("database-1");
    site.wait("database-1", |report| {
        report.state == State::Unhealthy && report.because.contains("parameter \"wrk_mem\"")
    });
    one.stop();
    set(&mut site, "port", "1");
    let mut one = site.start("database-1");
    assert!(!one.process.wait().unwrap().success());
    assert!(site.output("database-1").contains("the port follows from the plan; remove it"));
}

#[tokio::test]
async fn a_full_disk_stops_writes_and_loses_none() {
    let site = Site::new("disk-full", 81, "");
    let folder = site.folder("database-1");
    let Some(disk) = SmallDisk::where_allowed(&folder, 160 << 20) else { return };
    let _servers = ["database-1", "gate-1"].map(|server| site.start(server));
    site.healthy("database-1");
    site.healthy("gate-1");
    let writer = table(&site).await;
    disk.fill();
    let text = "INSERT INTO entry SELECT repeat(md5(i::text), 100) FROM generate_series(1, 20000) AS i";
    assert!(writer.batch_execute(text).await.is_err());
    site.wait("database-1", |report| {
        report.state == State::Unhealthy && report.because.contains("left on the disk of the data, make room")
    });
    disk.make_room();
    site.healthy("database-1");
    let reader = site.client("gate-1", "read-write").await.unwrap();
    assert_eq!(reader.number("SELECT count(*) FROM entry").await.unwrap(), 1);
}

#[tokio::test]
async fn a_frozen_postgres_is_told_and_does_not_hold_up_its_manager() {
    let site = Site::new("frozen", 91, "");
    let [one, _gate] = ["database-1", "gate-1"].map(|server| site.start(server));
    site.healthy("database-1");
    site.healthy("gate-1");
    let _writer = table(&site).await;
    let postmaster = site.postmaster("database-1");
    signal(postmaster, Signal::STOP);
    // The manager's own session is a process that goes on: a new one is what does not come up.
    let backends = format!("/proc/{postmaster}/task/{postmaster}/children");
    for backend in std::fs::read_to_string(backends).unwrap().split_whitespace() {
        signal(backend.parse().unwrap(), Signal::STOP);
    }
    site.wait("database-1", |report| {
        report.state == State::Unhealthy && report.because.contains("does not answer")
    });
    // It still takes orders, and ends what cannot be asked to end.
    one.stop_within(2_000);
    assert!(!alive(postmaster));
}

fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A process that is dead but not reaped yet has no current folder any more.
fn alive(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}
