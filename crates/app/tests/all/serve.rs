//! What works: requests, the environment, the output.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use link::board::Column;
use link::report::State;
use serde_json::Value;

use crate::site::{Site, get, python, wait};

fn json(text: &str) -> HashMap<String, String> {
    let value: HashMap<String, Value> = serde_json::from_str(text).unwrap();
    value.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect()
}

#[test]
fn all_workers_take_requests_in_turn() {
    let site = Site::new(1, &python("worker.py"));
    let server = site.start();
    assert_eq!(server.says("2 of 2 workers ready").state, State::Healthy);
    assert_eq!(server.get("/.dolmen/health").status, 200);
    let pids: Vec<_> = (0..6).map(|_| server.get("/").body).collect();
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 2, "{pids:?}");
    assert_eq!((&pids[0], &pids[1]), (&pids[2], &pids[3]));
    server.stop();
}

#[test]
fn a_request_goes_to_the_least_busy_worker_whoever_made_the_others_busy() {
    let site = Site::new(2, &python("worker.py"));
    let server = site.start();
    server.says("2 of 2 workers ready");
    let address = server.address;
    let held = std::thread::spawn(move || get(address, "/hold"));
    wait(|| (0..2).any(|slot| server.board.busy(slot) == 1), || "no request is held".into());
    let free: BTreeSet<_> = (0..4).map(|_| server.get("/").body).collect();
    assert_eq!(free.len(), 1);
    // The web server on this machine counts in the same memory.
    let claims: Vec<_> = (0..3).map(|_| server.board.claim(Column::Web, |_| false).unwrap()).collect();
    let other = server.get("/").body;
    assert!(!free.contains(&other), "the free one has more requests now");
    drop(claims);
    site.script("release", "");
    assert_eq!(held.join().unwrap().body, other);
    server.stop();
}

#[test]
fn rfc9110_7_6_3_both_ways_are_marked() {
    let site = Site::new(3, &python("worker.py"));
    let server = site.start();
    server.says("2 of 2 workers ready");
    let answer = server.get("/headers");
    assert_eq!(json(&answer.body)["via"], "1.1 app-1");
    assert!(answer.head.contains("\r\nvia: 1.1 app-1"), "{}", answer.head);
    server.stop();
}

#[test]
fn the_environment_is_what_the_plan_says_and_little_else() {
    let mut site = Site::new(4, &python("worker.py"));
    site.app().workers = 1;
    let server = site.start();
    server.says("1 of 1 worker ready");
    let environment = json(&server.get("/environment").body);
    let files = site.files();
    let path = std::env::var("PATH").unwrap();
    let expect = [
        ("HOST", "127.0.42.4"),
        ("DATABASE_URL", "postgres://app:p%40ss%20word@127.0.42.4:6432/app"),
        ("DATABASE_REPLICA_URL", "postgres://app:p%40ss%20word@127.0.42.4:6433/app"),
        ("DOLMEN_SERVER", "app-1"),
        ("DOLMEN_SITE", "www.foobar.com"),
        ("COLOUR", "blue"),
        ("TOKEN", "hidden"),
        ("CWD", files.to_str().unwrap()),
        ("PATH", &path),
    ];
    for (name, value) in expect {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
    let port = server.board.worker(0).unwrap().port();
    assert_eq!(environment["PORT"], port.to_string());
    assert!((20_000..=32_767).contains(&port));
    let known = [
        "CWD",
        "PORT",
        "DOLMEN_FOLDER",
        "DOLMEN_APP_PROCESS",
        "HOME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "USER",
        "LOGNAME",
        "TMPDIR",
    ];
    let others = ["SSL_CERT_FILE", "SSL_CERT_DIR", "LC_CTYPE"];
    let is_known = |name: &str| {
        expect.iter().any(|(one, _)| *one == name) || known.contains(&name) || others.contains(&name)
    };
    let leaked: Vec<_> = environment.keys().filter(|name| !is_known(name)).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    server.stop();
}

#[test]
fn a_worker_that_listens_on_localhost_is_found_there() {
    let mut site = Site::new(5, &python("worker.py local"));
    site.app().workers = 1;
    let server = site.start();
    server.says("1 of 1 worker ready");
    assert!(server.board.worker(0).unwrap().ip().is_loopback());
    assert_eq!(server.board.worker(0).unwrap().ip().octets()[3], 1);
    assert_eq!(server.get("/").status, 200);
    server.stop();
}

#[test]
fn programs_beside_dolmen_are_found() {
    let mut site = Site::new(6, "greeter worker.py");
    let interpreter = python("");
    std::os::unix::fs::symlink(interpreter.trim(), site.root.join("programs/greeter")).unwrap();
    site.app().workers = 1;
    let server = site.start();
    server.says("1 of 1 worker ready");
    server.stop();
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_workers_write_is_in_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let site = Site::new(7, &python("worker.py odd"));
    let server = site.start();
    server.says("2 of 2 workers ready");
    let text = || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let has = |expect: &str| wait(|| text().contains(expect), || format!("no {expect:?} in {}", text()));
    has("worker: app-1 worker 1: hello from ");
    has("app-1 worker 2: odd \u{fffd}\\u{7} bytes");
    has("x… (904 bytes left out)");
    server.stop();
}

#[test]
fn finished_requests_leave_the_workers_idle_and_an_idle_server_ends_soon() {
    let site = Site::new(8, &python("worker.py"));
    let server = site.start();
    server.says("2 of 2 workers ready");
    for _ in 0..10 {
        assert_eq!(server.get("/").status, 200);
    }
    assert_eq!((server.board.busy(0), server.board.busy(1)), (0, 0));
    server.order_stop(Duration::from_secs(5));
    assert!(server.wait() < Duration::from_secs(2));
}
