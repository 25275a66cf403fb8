//! Programs that know nothing of us, at a gate, while the primary is switched and lost: pgbench, and a pool of
//! SQLAlchemy with psycopg as many a web application has it. And what must not happen because of load alone.

#![allow(clippy::unwrap_used)] // a test

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Site, until};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// Data on alpha and beta; gamma votes, and its gate is asked.
const SITE: &str =
    "[machines]\nalpha = \"10.0.0.1\"\nbeta = \"10.0.0.2\"\ngamma = \"10.0.0.3\"\n[database]\n";

const POOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/pool.py");

/// Connections of pgbench and of the pool.
const CONNECTIONS: usize = 4;

fn up(block: u8) -> Site {
    let site = Site::new(DOLMEN, block, SITE);
    site.up();
    until_whole(&site);
    site
}

/// Waits until there is a primary with a synchronous replica; says which it is.
#[track_caller]
fn until_whole(site: &Site) -> String {
    until("a primary with a replica", Duration::from_secs(60), || {
        let status = site.status();
        let whole = status["healthy"] == true && status["database"]["replicas"][0]["synchronous"] == true;
        whole.then(|| status["database"]["primary"].as_str().unwrap().to_owned())
    })
}

fn read(site: &Site, file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(site.state().join(file)).unwrap()).unwrap()
}

/// A program that finds the database by what libpq reads from the environment.
fn client(site: &Site, program: &str) -> Command {
    let mut command = Command::new(program);
    let name = read(site, "plan.json")["database"]["name"].as_str().unwrap().to_owned();
    let password = read(site, "secrets.json")["app-password"].as_str().unwrap().to_owned();
    let gate = site.address(3, 6432);
    command.env("PGHOST", gate.ip().to_string()).env("PGPORT", gate.port().to_string());
    command.env("PGUSER", &name).env("PGDATABASE", &name).env("PGPASSWORD", password);
    command
}

/// Of the newest PostgreSQL here; distributions keep it beside the server.
fn pgbench() -> String {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = folders.map(|folder| folder.path().join("bin/pgbench")).collect();
    found.retain(|program| program.exists());
    found.sort();
    found.pop().map_or_else(|| "pgbench".into(), |program| program.display().to_string())
}

/// What pgbench says that it has done.
fn processed(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    line.and_then(|number| number.split('/').next()?.trim().parse().ok()).unwrap_or(0)
}

/// The primary hands over, and then its machine is killed and comes back.
fn switch_and_lose(site: &Site, mut after: impl FnMut(&str)) {
    let first = until_whole(site);
    // On a computer that has no time for it the heir may be late, and the primary goes on: that is told, and no fault.
    until("a switchover", Duration::from_secs(60), || {
        let ran = site.run(&["switchover"]);
        assert!(ran.code == 0 || ran.says("is the primary again"), "{ran:?}");
        (ran.code == 0).then_some(())
    });
    let second = until_whole(site);
    assert_ne!(first, second);
    after("switchover");
    let machine = if second == "database-1" { "alpha" } else { "beta" };
    site.run(&["kill", machine]).fine();
    until("a new primary", Duration::from_secs(30), || {
        (site.run(&["psql", "--", "-XAtqc", "CREATE TABLE failed_over ()"]).code == 0).then_some(())
    });
    after("machine killed");
    site.run(&["start", machine]).fine();
    until_whole(site);
    after("machine back");
}

/// Also when the test fails, so that no thread is waited for that never ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn pgbench_goes_on_after_a_switchover_and_a_failover_and_its_books_balance() {
    let site = up(138);
    let initial = client(&site, &pgbench()).args(["-i", "-q", "-s", "2"]).output().unwrap();
    assert!(initial.status.success(), "{initial:?}");
    let (ended, done, cut) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let ends = Ends(&ended);
        // It has no way to connect again itself: one whose connections were cut is started again.
        let runs = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let run = ["-n", "-c", &CONNECTIONS.to_string(), "-t", "25"];
                let ran = client(&site, &pgbench()).args(run).output().unwrap();
                done.fetch_add(processed(&String::from_utf8_lossy(&ran.stdout)), Ordering::Relaxed);
                cut.fetch_add(u64::from(!ran.status.success()), Ordering::Relaxed);
            }
        });
        switch_and_lose(&site, |what| {
            let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
            until(&format!("transactions after: {what}"), Duration::from_secs(30), || {
                (done.load(Ordering::Relaxed) > before).then_some(())
            });
            println!("{what}: the next transactions within {:?}", began.elapsed());
        });
        drop(ends);
        runs.join().unwrap();
    });
    let books = "SELECT (SELECT count(*) FROM pgbench_history), (SELECT sum(delta) FROM pgbench_history), \
                 (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
                 (SELECT sum(bbalance) FROM pgbench_branches)";
    let books = site.run(&["psql", "--", "-XAtqc", books]).fine().out;
    let books: Vec<i64> = books.trim().split('|').map(|number| number.parse().unwrap()).collect();
    let (done, cut) = (done.into_inner(), cut.into_inner());
    println!("{done} transactions, {cut} runs cut short, {} in the history", books[0]);
    // One that was cut may have been committed before it could be told.
    assert!(books[0] >= done as i64, "{done} transactions were acknowledged, and there are {}", books[0]);
    assert!(books[1..].iter().all(|sum| *sum == books[1]), "the books do not balance: {books:?}");
    // Two faults, each of which may meet a run that just begins as well.
    assert!(done > 0 && cut <= 4, "{cut} runs were cut short");
}

#[test]
fn a_pool_that_tests_its_connections_needs_no_change() {
    let site = up(139);
    // Debian's, for which its packages of SQLAlchemy and psycopg are.
    let mut pool = client(&site, "/usr/bin/python3");
    pool.arg(POOL).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut pool = pool.spawn().unwrap();
    let mut says = BufReader::new(pool.stdout.take().unwrap());
    let mut line = String::new();
    says.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    switch_and_lose(&site, |_| std::thread::sleep(Duration::from_secs(1)));
    drop(pool.stdin.take());
    line.clear();
    says.read_line(&mut line).unwrap();
    assert!(pool.wait().unwrap().success());
    let said: Value = serde_json::from_str(&line).unwrap();
    let failed = said["failed"].as_array().unwrap();
    println!(
        "{} acknowledged, longest pause {} s, failed: {failed:?}",
        said["acknowledged"], said["longest_s"]
    );
    assert_eq!(said["lost"], 0);
    assert!(said["acknowledged"].as_u64().unwrap() > 100);
    // A transaction on its way when the primary goes may fail, once for each connection and fault.
    assert!(failed.len() <= 2 * CONNECTIONS, "{} transactions failed: {failed:?}", failed.len());
}

/// How long the load goes on; the drill sets twenty minutes.
fn load_for() -> Duration {
    let seconds = std::env::var("DOLMEN_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// psql as the account that postgres runs under; root is nobody in the namespace of postgres.
fn as_superuser() -> Command {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let account: &[&str] = &["setpriv", "--reuid=dolmen-db", "--regid=dolmen-db", "--clear-groups"];
    let words = [if root { account } else { &[] }, &["psql", "-XqU", "postgres", "-d", "postgres"]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir("/");
    command
}

/// Ended with the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn load_alone_makes_no_failover() {
    let site = up(140);
    let initial = client(&site, &pgbench()).args(["-i", "-q", "-s", "10"]).output().unwrap();
    assert!(initial.status.success(), "{initial:?}");
    let before = site.status()["database"]["agreed"]["epoch"].clone();
    let primary = until_whole(&site);
    let cores = std::thread::available_parallelism().unwrap().get();
    let burn = |_| Child(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    let burners: Vec<Child> = (0..cores).map(burn).collect();
    let seconds = load_for().as_secs().to_string();
    let mut run = client(&site, &pgbench());
    run.args(["-n", "-c", "16", "-j", "2", "-T", &seconds]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = run.spawn().unwrap();
    let (machine, number) = if primary == "database-1" { ("alpha", 1) } else { ("beta", 2) };
    let sockets = site.state().join("machines").join(machine).join("servers").join(&primary).join("socket");
    let (until, mut checkpoints, mut backups) = (Instant::now() + load_for(), 0, 0);
    while Instant::now() < until {
        let made = as_superuser().args(["-c", "CHECKPOINT", "-h"]).arg(&sockets).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        checkpoints += 1;
        let copy = site.folder.join("copy");
        let mut backup = client(&site, &pgbench().replace("pgbench", "pg_basebackup"));
        backup.args([
            "-U",
            "replicator",
            "-p",
            "5432",
            "-h",
            &site.address(number, 5432).ip().to_string(),
            "-D",
        ]);
        backup.arg(&copy);
        backup.env("PGPASSWORD", read(&site, "secrets.json")["replication-password"].as_str().unwrap());
        let made = backup.args(["-X", "stream", "-c", "fast"]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        backups += 1;
        std::fs::remove_dir_all(copy).unwrap();
    }
    let ran = run.wait_with_output().unwrap();
    drop(burners);
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    println!(
        "{seconds} s: {} transactions, {checkpoints} checkpoints, {backups} base backups",
        processed(&text)
    );
    assert!(ran.status.success(), "a connection was cut: {}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(until_whole(&site), primary);
    assert_eq!(site.status()["database"]["agreed"]["epoch"], before, "nobody asked for a failover");
}
