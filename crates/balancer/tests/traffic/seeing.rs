//! What is to be seen of traffic: the access log, counts of each server, error pages.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use link::report::{PoolTraffic, ServerTraffic};
use plan::{AccessLog, LogFormat, RateLimit};
use serde_json::Value;

use crate::stage::{Answer, Balancer, Server, settle};

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dolmen-seeing-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn log(&self) -> AccessLog {
        let path = Some(self.0.join("access.log"));
        AccessLog { format: LogFormat::Json, path, ..AccessLog::default() }
    }

    /// The lines of a balancer that has ended, without those of the stage itself.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.0.join("access.log")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["target"] != "/wait").collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn id_of(answer: &Answer) -> String {
    let start = answer.body.find("Request ").unwrap() + "Request ".len();
    answer.body[start..start + 32].to_owned()
}

#[test]
fn each_request_has_its_line_and_its_cause() {
    let (folder, mut one) = (Folder::new(), Server::start("one"));
    let balancer = Balancer::before(&[&one], |section| {
        section.access_log = Some(folder.log());
        section.limits.body_bytes = Some(10);
    });
    balancer.get_with("User-Agent: \"odd\"\tend\r\nCookie: secret\r\n", "/a?b=c");
    balancer.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nConnection: close\r\n\r\nhello world");
    let refused = balancer.ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    balancer.get("/.dolmen/health");
    one.die();
    let failed = balancer.get("/gone");
    assert_eq!((refused.status, failed.status), (400, 503));
    let ids = [id_of(&refused), id_of(&failed)];
    drop(balancer);
    let lines = folder.lines();
    let seen: Vec<_> = lines.iter().map(|line| (line["status"].as_u64(), line["cause"].as_str())).collect();
    let down = seen[3].1;
    assert!(down == Some("connect-failed") || down == Some("no-server"), "{down:?}");
    assert_eq!(
        seen,
        [
            (Some(200), None),
            (Some(413), Some("body-too-large")),
            (Some(400), Some("bad-request")),
            (Some(503), down),
        ]
    );
    let first = &lines[0];
    assert_eq!((first["server"].as_str(), first["target"].as_str()), (Some("web-1"), Some("/a?b=c")));
    assert_eq!(first["user_agent"].as_str(), Some("\"odd\"\tend"));
    assert!(first["answer_ms"].as_f64() <= first["total_ms"].as_f64());
    assert_eq!(lines[2]["reason"], "the Host field is missing, repeated or malformed");
    assert_eq!([lines[2]["id"].as_str().unwrap(), lines[3]["id"].as_str().unwrap()], ids);
    let text = std::fs::read_to_string(folder.0.join("access.log")).unwrap();
    assert!(!text.contains("secret") && !text.contains('\x1b'));
}

#[test]
fn waits_and_limits_have_their_causes() {
    let (folder, one) = (Folder::new(), Server::start("one"));
    let balancer = Balancer::before(&[&one], |section| {
        section.access_log = Some(folder.log());
        section.pool.servers[0].max_connections = Some(1);
        section.pool.queue = plan::Queue { length: 1, timeout_ms: 100 };
    });
    std::thread::scope(|scope| {
        scope.spawn(|| balancer.get("/slow/400"));
        balancer.wait_for_requests(1);
        assert_eq!(balancer.get("/late").status, 503);
    });
    let counted = || balancer.traffic().into_iter().next().unwrap_or_default().counts.ended;
    balancer.wait_until("it is counted", || counted().get("queue-late") == Some(&1));
    drop(balancer);
    let lines = folder.lines();
    let late = lines.iter().find(|line| line["target"] == "/late").unwrap();
    assert_eq!((late["cause"].as_str(), late["server"].as_str()), (Some("queue-late"), None));
    assert!(late["queue_ms"].as_f64().unwrap() >= 90.0, "{late}");

    let folder = Folder::new();
    let balancer = Balancer::before(&[], |section| {
        section.access_log = Some(folder.log());
        section.rate_limit = Some(RateLimit { requests: 1, per_ms: 3_600_000, burst: 1 });
    });
    assert_eq!([balancer.get("/").status, balancer.get("/").status], [503, 429]);
    drop(balancer);
    let causes: Vec<_> =
        folder.lines().iter().map(|line| line["cause"].as_str().unwrap().to_owned()).collect();
    assert_eq!(causes, ["no-server", "rate-limit"]);
}

/// The traffic up to now. The answer to a last request, of a class that no other has, marks its end: one thread
/// counts in order.
fn counted(balancer: &Balancer, mark: u64) -> PoolTraffic {
    assert_eq!(balancer.get("/status/300").status, 300);
    let pool = || balancer.traffic().into_iter().next().unwrap_or_default();
    balancer.wait_until("it is counted", || pool().counts.answers.get("3xx") == Some(&mark));
    pool()
}

#[test]
fn counts_are_those_of_the_traffic() {
    let (one, mut two) = (Server::start("one"), Server::start("two"));
    // Nothing but requests finds out that a server died, and none is ejected for it.
    let balancer = Balancer::before(&[&one, &two], |section| {
        (section.pool.check.interval_ms, section.pool.check.fast_interval_ms) = (3_600_000, 3_600_000);
        section.pool.eject.failures = 1_000;
    });
    settle(&balancer, &["one", "two"]);
    let before = counted(&balancer, 1);
    for _ in 0..5 {
        assert_eq!([balancer.get("/").status, balancer.get("/status/404").status], [200, 404]);
    }
    two.die();
    for _ in 0..4 {
        assert_eq!(balancer.get("/").status, 200);
    }
    let after = counted(&balancer, 2);
    let grown = |name: &str| after.counts.answers[name] - before.counts.answers.get(name).unwrap_or(&0);
    assert_eq!((grown("2xx"), grown("4xx"), grown("3xx")), (9, 5, 1));
    let asked = |pool: &PoolTraffic| pool.servers.iter().map(|server| server.counts.requests).sum::<u64>();
    let (one, two) = (&after.servers[0], &after.servers[1]);
    let failed = two.counts.ended["connect-failed"];
    assert!((2..=3).contains(&failed), "each second request goes to the dead server first: {failed}");
    assert_eq!(after.counts.requests - before.counts.requests, 15);
    assert_eq!(asked(&after) - asked(&before), 15 + failed);
    assert_eq!((after.counts.retries, one.counts.retries, two.counts.retries), (failed, failed, 0));
    assert_eq!((after.counts.times.count, after.queue), (after.counts.requests, 0));
    let answered =
        |server: &ServerTraffic| server.counts.times.count == server.counts.answers.values().sum::<u64>();
    assert!(answered(one) && answered(two), "{after:?}");
    assert!(one.counts.bytes_out > 0 && one.up && one.changes == 1 && one.under_way == 0, "{one:?}");
}

#[test]
fn errors_are_told_on_the_pages_of_the_site() {
    let folder = Folder::new();
    let write = |name: &str, text: &str| {
        std::io::Write::write_all(&mut std::fs::File::create(folder.0.join(name)).unwrap(), text.as_bytes())
            .unwrap();
    };
    write("503.html", "<p>{status} {reason}: closed. Request {request_id}, please");
    write("4xx.html", "<p>no. Request {request_id}");
    let own = Balancer::before(&[], |section| section.error_pages = Some(folder.0.clone()));
    let closed = own.get("/");
    assert_eq!(
        closed.body,
        format!("<p>503 Service Unavailable: closed. Request {}, please", id_of(&closed))
    );
    let malformed = own.ask("GET / HTTP/1.1\r\n\r\n");
    assert_eq!((malformed.status, malformed.body.starts_with("<p>no. Request ")), (400, true));
    assert!(malformed.head.contains("content-type: text/html; charset=utf-8"), "{}", malformed.head);
    // A folder that cannot be read is no reason to be down.
    let none = Balancer::before(&[], |section| section.error_pages = Some(Path::new("/nowhere").into()));
    assert!(none.get("/").body.contains("<p><small>Request "));
}

#[test]
fn a_full_disk_stops_no_request() {
    let one = Server::start("one");
    let balancer = Balancer::before(&[&one], |section| {
        section.access_log = Some(AccessLog { path: Some("/dev/full".into()), ..AccessLog::default() });
    });
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(1_200) {
        assert_eq!(balancer.get("/").status, 200);
    }
}
