//! The guestbook against a real PostgreSQL primary with a streaming replica, through its own port: what a
//! visitor and the application server see while databases come, lag and go.
#![allow(clippy::unwrap_used)] // a test may; clippy's exception does not reach the harness beside it

mod stage;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stage::{Answer, Stage, Worker, until};

fn post(worker: &Worker, body: &Value) -> Answer {
    worker.ask("POST", "/api/entries", "application/json", &body.to_string())
}

fn messages(answer: &Answer) -> Vec<String> {
    let entries: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    entries.iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn workers_wait_for_the_database_and_make_the_table_once() {
    let mut stage = Stage::empty("127.0.43.1");
    let workers: Vec<Worker> = (0..4).map(|_| stage.worker()).collect();
    let early = workers[0].get("/healthz");
    assert_eq!(early.status, 503);
    assert!(early.body.starts_with("not ready: "), "{}", early.body);

    stage.start_primary();
    for worker in &workers {
        until("a worker is ready", || worker.get("/healthz").status == 200);
    }
    assert_eq!(stage.psql("select count(*) from schema_steps"), "1");

    let created = post(&workers[0], &json!({"name": "Ada", "message": "first"}));
    assert_eq!(created.status, 201, "{}", created.body);
    let entry: Value = serde_json::from_str(&created.body).unwrap();
    assert_eq!((entry["id"].as_i64(), entry["name"].as_str()), (Some(1), Some("Ada")));
    assert!(entry["at"].as_str().unwrap().ends_with('Z'), "{entry}");
    assert_eq!(messages(&workers[3].get("/api/entries")), ["first"]);

    for mut worker in workers {
        let asked = Instant::now();
        assert!(worker.stop().success(), "a worker that is asked to stop ends well");
        assert!(asked.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_visitor_writes_to_the_primary_and_reads_from_a_replica() {
    let mut stage = Stage::empty("127.0.43.2");
    stage.start_primary();
    stage.start_replica();
    let worker = stage.ready_worker();

    let via = [("Via", "1.1 balancer-1, 1.1 web-2")];
    let sent = worker.ask("POST", "/entries", FORM, "name=Bo+%3Cb%3E&message=one%0D%0Atwo+%26+three");
    assert_eq!((sent.status, sent.header("location")), (303, Some("/?after=1#entry-1")));
    // The table itself was made a moment ago, and the replica may still lack it.
    until("a replica answers", || worker.get("/?after=1").body.contains("read from a replica"));
    let page = worker.ask_with("GET", "/?after=1", &via, "");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<h2>Bo &#60;b&#62;</h2>"), "{}", page.body);
    assert!(page.body.contains("one\ntwo &#38; three") && !page.body.contains("<script"));
    assert!(page.body.contains("read from a replica"), "{}", page.body);
    for hop in ["<b>balancer-1</b>", "<b>web-2</b>", "<b>app-1</b>", &format!("worker pid {}", worker.pid())]
    {
        assert!(page.body.contains(hop), "no {hop} in {}", page.body);
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");

    for number in 2..=5 {
        assert_eq!(post(&worker, &json!({"name": "Bo", "message": format!("no {number}")})).status, 201);
    }
    let newest = worker.get("/api/entries?limit=2&after=5");
    assert_eq!(messages(&newest), ["no 5", "no 4"]);
    assert_eq!(messages(&worker.get("/api/entries?limit=1&before=3")), ["no 2"]);
    assert_eq!(messages(&worker.get("/api/entries?limit=100000")).len(), 5);
}

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn bad_input_is_refused_with_a_reason() {
    let mut stage = Stage::empty("127.0.43.3");
    stage.start_primary();
    let worker = stage.ready_worker();
    let long = "x".repeat(1001);
    let bodies = [
        (r"", 400, "not JSON"),
        (r#"{"name": "a""#, 400, "not JSON"),
        (r#"["a", "b"]"#, 422, "name"),
        (r#"{"name": "a"}"#, 422, "missing field `message`"),
        (r#"{"name": 1, "message": "b"}"#, 422, "expected a string"),
        (r#"{"name": " ", "message": "b"}"#, 422, "the name is empty"),
        (r#"{"name": "a\u0000", "message": "b"}"#, 422, "control character"),
        (&format!(r#"{{"name": "a", "message": "{long}"}}"#), 422, "1001 characters"),
        (&"x".repeat(70_000), 413, "length limit"),
    ];
    for (body, status, reason) in bodies {
        let answer = worker.ask("POST", "/api/entries", "application/json", body);
        let shown = &body[..body.len().min(40)];
        assert_eq!(answer.status, status, "{shown}: {}", answer.body);
        let error: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(error["error"].as_str().unwrap().contains(reason), "{shown}: {error}");
    }
    for (path, status) in [
        ("/api/entries?limit=0", 400),
        ("/api/entries?limit=x", 400),
        ("/nowhere", 404),
        ("/?after=x&before=y", 200),
    ] {
        assert_eq!(worker.get(path).status, status, "{path}");
    }
    let again = worker.ask("POST", "/entries", FORM, "name=Bo&message=+");
    assert_eq!(again.status, 422);
    assert!(again.body.contains("the message is empty") && again.body.contains(r#"value="Bo""#));
    assert_eq!(worker.ask("POST", "/entries", FORM, "name=Bo").status, 422);
    assert_eq!(worker.ask("DELETE", "/api/entries", "", "").status, 405);
    assert_eq!(stage.psql("select count(*) from entries"), "0");
}

#[test]
fn a_replica_that_lags_or_is_gone_hides_nothing_from_its_writer() {
    let mut stage = Stage::empty("127.0.43.4");
    stage.start_primary();
    stage.start_replica();
    let worker = stage.ready_worker();
    assert_eq!(post(&worker, &json!({"name": "a", "message": "seen"})).status, 201);
    until("the replica has it", || messages(&worker.get("/api/entries")) == ["seen"]);

    until("a replica answers", || worker.get("/").body.contains("read from a replica"));

    stage.psql_replica("select pg_wal_replay_pause()");
    assert_eq!(post(&worker, &json!({"name": "a", "message": "late"})).status, 201);
    assert_eq!(messages(&worker.get("/api/entries")), ["seen"], "others read what the replica has");
    let mine = worker.get("/?after=2");
    assert!(mine.body.contains("late") && mine.body.contains("read from the primary"), "{}", mine.body);

    stage.stop_replica();
    assert_eq!(messages(&worker.get("/api/entries")), ["late", "seen"], "the primary answers instead");
}

#[test]
fn without_a_primary_the_book_can_be_read() {
    let mut stage = Stage::empty("127.0.43.5");
    stage.start_primary();
    stage.start_replica();
    let worker = stage.ready_worker();
    assert_eq!(post(&worker, &json!({"name": "a", "message": "kept"})).status, 201);
    until("the replica has it", || messages(&worker.get("/api/entries")) == ["kept"]);

    stage.stop_primary();
    let refused = post(&worker, &json!({"name": "a", "message": "lost"}));
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("the database is away"), "{}", refused.body);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(messages(&worker.get("/api/entries")), ["kept"]);
    assert_eq!(worker.get("/healthz").status, 200, "a restart of the worker would mend nothing");
    let late = stage.ready_worker();
    assert_eq!(messages(&late.get("/api/entries")), ["kept"], "a worker can start without a primary");

    stage.stop_replica();
    let page = late.get("/");
    assert_eq!(page.status, 503);
    assert!(page.body.contains("the entries cannot be read right now"), "{}", page.body);

    stage.start_primary();
    until("it can be written again", || post(&worker, &json!({"name": "a", "message": "new"})).status == 201);
    assert_eq!(messages(&late.get("/api/entries"))[0], "new");
}
