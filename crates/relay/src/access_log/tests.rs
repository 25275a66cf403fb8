//! The access log as a whole: lines word by word, what is missing, and files that come and go.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::{Instant, UNIX_EPOCH};

use super::*;
use crate::codec::request::{Refusal, RequestHead};
use crate::meter::Meter;
use crate::outcome::{Cause, Outcome};

const PATIENCE: Duration = Duration::from_secs(10);

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/balancer.md");

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dolmen-access-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("access.log")
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn head(text: &str) -> RequestHead {
    let mut head = RequestHead::default();
    head.load(text.as_bytes()).unwrap();
    head
}

fn outcome(status: u16) -> Outcome {
    let now = Instant::now();
    let id = [0x4f1d_20c8_9b3e_7a65, 0x0c2d_8e91_f7a6_43b0];
    let mut outcome = Outcome::new(id, "203.0.113.7:51234".parse().unwrap(), now);
    outcome.status = status;
    outcome.bytes_in = 181;
    (outcome.bytes_out, outcome.head_out) = (5_312, 192);
    outcome.total = Duration::from_micros(47_250);
    outcome
}

/// One that a server answered, after another could not be reached.
fn served() -> Outcome {
    let pool = Meter::of_pool("shop", 1);
    let mut outcome = outcome(200);
    outcome.meter = Some(Meter::of_server("web-2", &pool));
    outcome.tries = 2;
    outcome.queue = Duration::from_micros(3_100);
    outcome.asked = outcome.began + Duration::from_millis(4);
    outcome.connect = Some(Duration::from_micros(400));
    outcome.first_byte = Some(Duration::from_micros(39_000));
    outcome
}

fn line(format: LogFormat, request: Option<&RequestHead>, outcome: &Outcome) -> String {
    let ended = UNIX_EPOCH + Duration::from_micros(1_795_398_616_170_250);
    let began = ended - outcome.total;
    let entry = Entry { request, outcome, began, open: 3 };
    let mut out = Vec::new();
    line::write(format, &mut out, "balancer-1", &entry, &mut Stamp::default());
    String::from_utf8(out).unwrap()
}

/// The line is this one, and the manual shows it.
fn check(format: LogFormat, request: Option<&RequestHead>, outcome: &Outcome, expect: &str) {
    let line = line(format, request, outcome);
    assert_eq!(line.trim_end(), expect);
    assert!(fs::read_to_string(DOCS).unwrap().contains(expect), "docs/balancer.md does not show {expect}");
}

#[test]
fn a_request_that_was_served() {
    let request = head(
        "GET /cart?item=7 HTTP/1.1\r\nHost: www.foobar.com\r\nCookie: secret\r\nAuthorization: secret\r\n\
         Referer: https://www.foobar.com/\r\nUser-Agent: Mozilla/5.0 (X11; \"odd\\\t)\r\n\r\n",
    );
    check(
        LogFormat::Combined,
        Some(&request),
        &served(),
        r#"203.0.113.7 - - [23/Nov/2026:01:50:16 +0000] "GET /cart?item=7 HTTP/1.1" 200 5120 "https://www.foobar.com/" "Mozilla/5.0 (X11; \x22odd\x5C\x09)""#,
    );
    check(
        LogFormat::Timers,
        Some(&request),
        &served(),
        r#"203.0.113.7:51234 [23/Nov/2026:01:50:16.123] balancer-1 shop/web-2 3/0/34/47 200 5312 - 3/1 4f1d20c89b3e7a650c2d8e91f7a643b0 "GET /cart?item=7 HTTP/1.1""#,
    );
    check(
        LogFormat::Json,
        Some(&request),
        &served(),
        r#"{"time":"2026-11-23T01:50:16.123Z","by":"balancer-1","id":"4f1d20c89b3e7a650c2d8e91f7a643b0","client":"203.0.113.7:51234","method":"GET","host":"www.foobar.com","target":"/cart?item=7","version":"HTTP/1.1","referer":"https://www.foobar.com/","user_agent":"Mozilla/5.0 (X11; \u0022odd\u005C\u0009)","status":200,"bytes_in":181,"bytes_out":5312,"pool":"shop","server":"web-2","tries":2,"reused":false,"queue_ms":3.100,"connect_ms":0.400,"answer_ms":34.600,"total_ms":47.250,"open":3,"cause":null}"#,
    );
}

#[test]
fn what_was_no_request_and_what_nobody_served() {
    let mut refused = outcome(400);
    (refused.cause, refused.refusal) = (Some(Cause::BadRequest), Some(Refusal::BareLineFeed));
    check(
        LogFormat::Timers,
        None,
        &refused,
        r#"203.0.113.7:51234 [23/Nov/2026:01:50:16.123] balancer-1 -/- 0/-1/-1/47 400 5312 bad-request 3/0 4f1d20c89b3e7a650c2d8e91f7a643b0 "<BADREQ>""#,
    );
    let json = line(LogFormat::Json, None, &refused);
    assert!(
        json.contains(r#""cause":"bad-request","reason":"a line of the head does not end in CRLF"}"#),
        "{json}"
    );
    let mut unserved = outcome(503);
    (unserved.meter, unserved.cause) = (Some(Meter::of_pool("", 1)), Some(Cause::QueueLate));
    let request = head("GET / HTTP/1.0\r\n\r\n");
    let text = line(LogFormat::Timers, Some(&request), &unserved);
    assert!(text.contains(" balancer-1 -/- 0/-1/-1/47 503 5312 queue-late 3/0 "), "{text}");
}

fn planned(format: LogFormat, path: PathBuf) -> plan::AccessLog {
    plan::AccessLog { format, path: Some(path), ..plan::AccessLog::default() }
}

fn begin(planned: &plan::AccessLog) -> AccessLog {
    AccessLog::begin(Some(planned), "balancer-1", Path::new("/nowhere"), 2).unwrap()
}

fn note(log: &AccessLog, target: &str) {
    let request = head(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let outcome = outcome(200);
    let ended = std::time::SystemTime::now();
    log.note(0, &Entry { request: Some(&request), outcome: &outcome, began: ended, open: 1 });
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn total(log: &AccessLog, name: &str) -> u64 {
    log.totals()[name]
}

#[test]
fn the_end_writes_what_is_left() {
    let folder = Folder::new("end");
    let log = begin(&planned(LogFormat::Combined, folder.log()));
    (0..3).for_each(|number| note(&log, &format!("/{number}")));
    log.finish();
    assert_eq!(folder.text("access.log").lines().count(), 3);
    assert_eq!((total(&log, "access_log_lines"), total(&log, "access_log_dropped")), (3, 0));
}

#[test]
fn a_line_is_written_without_an_end() {
    let folder = Folder::new("soon");
    let log = begin(&planned(LogFormat::Combined, folder.log()));
    for number in 1..=2 {
        note(&log, "/");
        wait_until("the line is there", || folder.text("access.log").lines().count() == number);
    }
    log.finish();
}

#[test]
fn what_a_slow_disk_has_no_room_for_is_counted_and_said() {
    let folder = Folder::new("slow");
    let path = folder.0.join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    let log = begin(&planned(LogFormat::Combined, path.clone()));
    // A pipe that nobody reads takes 64 KiB, and the buffer its limit.
    let lines = 60_000;
    (0..lines).for_each(|_| note(&log, "/abcdefghijklmnopqrstuvwxyz"));
    let (sender, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let reader = std::io::BufReader::new(fs::File::open(path).unwrap());
        for line in std::io::BufRead::lines(reader) {
            // The test may have seen enough.
            let _ = sender.send(line.unwrap());
        }
    });
    let (mut seen, mut missing) = (0, 0);
    while seen + missing < lines {
        let line = read.recv_timeout(PATIENCE).unwrap();
        match line.strip_prefix("# ").and_then(|note| note.strip_suffix(" lines are missing here")) {
            Some(note) => missing += note.split(' ').next_back().unwrap().parse::<u64>().unwrap(),
            None => seen += 1,
        }
    }
    assert_eq!(seen + missing, lines);
    assert!(missing > 0);
    log.finish();
    assert_eq!((total(&log, "access_log_lines"), total(&log, "access_log_dropped")), (seen, missing));
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let log = begin(&planned(LogFormat::Json, "/dev/full".into()));
    note(&log, "/");
    wait_until("the line is given up", || total(&log, "access_log_dropped") == 1);
    note(&log, "/");
    log.finish();
    assert_eq!((total(&log, "access_log_lines"), total(&log, "access_log_failures")), (0, 2));
}

#[test]
fn large_files_are_put_aside_and_the_oldest_go() {
    let folder = Folder::new("rotation");
    let rotation = file::Rotation { bytes: 10, files: 3 };
    let mut file = file::LogFile::new(folder.log(), rotation);
    for text in ["one\n", "two\n", "three\n", "four\n", "longer than a file may be\n", "six\n"] {
        file.write(text.as_bytes()).unwrap();
    }
    assert_eq!(folder.text("access.log"), "six\n");
    assert_eq!(folder.text("access.log.1"), "longer than a file may be\n");
    assert_eq!(folder.text("access.log.2"), "four\n");
    assert!(!folder.0.join("access.log.3").exists());
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let folder = Folder::new("moved");
    let mut file = file::LogFile::new(folder.log(), file::Rotation { bytes: 1_000, files: 2 });
    file.write(b"one\n").unwrap();
    fs::rename(folder.log(), folder.0.join("elsewhere")).unwrap();
    file.write(b"two\n").unwrap();
    assert_eq!((folder.text("elsewhere"), folder.text("access.log")), ("one\n".into(), "two\n".into()));
}

#[test]
fn a_reload_moves_the_log_and_its_words_and_turns_it_off_and_on() {
    let folder = Folder::new("follows");
    let log = begin(&planned(LogFormat::Combined, folder.log()));
    let more = |from: u32| (from..from + 50).for_each(|number| note(&log, &format!("/{number}")));
    more(0);
    log.follow(Some(&planned(LogFormat::Json, folder.0.join("other.log"))));
    wait_until("the first lines", || folder.text("access.log").lines().count() >= 50);
    wait_until("the new words", || {
        note(&log, "/probe");
        folder.text("other.log").contains("/probe")
    });
    assert!(
        folder.text("other.log").lines().all(|line| line.starts_with('{')),
        "{}",
        folder.text("other.log")
    );
    assert!(!folder.text("access.log").contains('{'), "{}", folder.text("access.log"));
    log.follow(None);
    wait_until("the end of it", || !log.is_on());
    let before = folder.text("other.log");
    more(100);
    log.follow(Some(&planned(LogFormat::Combined, folder.0.join("third.log"))));
    wait_until("it to be on again", || {
        note(&log, "/again");
        folder.text("third.log").contains("/again")
    });
    log.finish();
    assert_eq!(folder.text("other.log"), before, "what came while it was off is nowhere");
    assert!(!folder.text("third.log").contains("/100"), "{}", folder.text("third.log"));
    assert_eq!(total(&log, "access_log_dropped"), 0);
}

#[test]
fn half_a_line_of_a_killed_process_stays_alone() {
    let folder = Folder::new("torn");
    std::io::Write::write_all(&mut fs::File::create(folder.log()).unwrap(), b"whole\nhal").unwrap();
    let mut file = file::LogFile::new(folder.log(), file::Rotation { bytes: 1_000, files: 2 });
    file.write(b"next\n").unwrap();
    assert_eq!(folder.text("access.log"), "whole\nhal\nnext\n");
}

/// Where the process that is to be killed writes.
const KILLED: &str = "DOLMEN_TEST_ACCESS_LOG_KILLED";

/// Not a test but the process of the next one: writes until it is killed.
#[test]
fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(KILLED) else { return };
    let mut file = file::LogFile::new(path.into(), file::Rotation { bytes: u64::MAX, files: 1 });
    let lines: String = (0..900).map(|number| format!("begin {number:060} end\n")).collect();
    loop {
        file.write(lines.as_bytes()).unwrap();
    }
}

#[test]
fn a_kill_leaves_whole_lines() {
    let folder = Folder::new("killed");
    for round in 0..5 {
        let size = || fs::metadata(folder.log()).map_or(0, |meta| meta.len());
        let before = size();
        let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "access_log::tests::writes_until_it_is_killed"])
            .env(KILLED, folder.log())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_until("some lines are written", || size() > before + 1024 * 1024 + round * 777);
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    let mut file = file::LogFile::new(folder.log(), file::Rotation { bytes: u64::MAX, files: 1 });
    file.write(b"begin the next end\n").unwrap();
    let text = folder.text("access.log");
    let is_whole = |line: &&str| line.starts_with("begin ") && line.ends_with(" end");
    let half = text.lines().filter(|line| !is_whole(line)).count();
    assert!(half <= 5, "{half} lines are not whole, and at most one for each kill may be");
    assert!(text.ends_with("begin the next end\n"));
}
