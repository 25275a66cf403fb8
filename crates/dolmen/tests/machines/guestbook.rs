//! The whole path on three machines: the application and its database, and the loss of the machine of the primary.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Bed, Load, get, post, until};

use super::stage::{ALL, DOLMEN, WITHIN, dolmen, is_drill, join, joined_with, status, token, until_healthy};

pub const SITE: &str = r#"domain = "www.foobar.com"
[machines]
alpha = "10.77.0.1"
beta = "10.77.0.2"
gamma = "10.77.0.3"
[dns]
on = ["alpha", "beta", "gamma"]
[balancer]
on = ["alpha", "beta", "gamma"]
[web]
on = ["beta", "gamma"]
root = "public"
[app]
on = ["beta", "gamma"]
command = "guestbook"
health = "/healthz"
[database]
on = ["beta", "gamma"]
"#;

/// The database's own limit is 3.5 s on a quiet machine.
const WRITES_AGAIN: Duration = Duration::from_secs(20);

/// Whether an entry was acknowledged.
fn write(bed: &Bed, machine: &str, message: &str) -> bool {
    let entry = json!({ "name": "bed", "message": message });
    post(bed.address(machine, 80), "/api/entries", &entry).is_ok_and(|response| response.status == 201)
}

fn entries(bed: &Bed, machine: &str) -> Option<Vec<Value>> {
    let response = get(bed.address(machine, 80), "/api/entries?limit=200", &[]).ok()?;
    (response.status == 200).then(|| response.json().as_array().cloned()).flatten()
}

#[track_caller]
fn has_all(bed: &Bed, machine: &str, messages: &[String]) {
    until("all acknowledged entries", WITHIN, || {
        let entries = entries(bed, machine)?;
        let has = |message: &String| entries.iter().any(|entry| entry["message"] == *message);
        messages.iter().all(has).then_some(())
    });
}

fn primary(bed: &Bed, machine: &str) -> Option<String> {
    let status = status(bed, machine)?;
    let name = status["database"]["primary"].as_str()?.to_owned();
    let servers = status["servers"].as_array()?;
    let server = servers.iter().find(|server| server["name"] == name.as_str())?;
    Some(server["machine"].as_str()?.to_owned())
}

#[test]
fn the_guestbook_outlives_the_machine_of_its_primary() {
    let mut bed = joined_with(SITE);
    let mut written = Vec::new();
    for machine in ALL {
        let message = format!("by {machine}");
        assert!(write(&bed, machine, &message), "a write by {machine}");
        written.push(message);
    }
    has_all(&bed, "alpha", &written);
    one_more_joins(&mut bed);

    let lost = primary(&bed, "alpha").unwrap();
    bed.lose(&lost);
    let at = Instant::now();
    until("writes again", WRITES_AGAIN, || {
        let message = format!("after {:?}", at.elapsed());
        write(&bed, "alpha", &message).then(|| written.push(message))
    });
    println!("writes again after {:?}", at.elapsed());
    has_all(&bed, "alpha", &written);
    if !is_drill() {
        return;
    }
    bed.bring_back(&lost);
    until_healthy(&bed, &ALL);
    has_all(&bed, &lost, &written);
    let history = dolmen(&bed, &lost, &["database", "history"]).fine();
    assert!(!history.out.is_empty());
}

/// A fourth machine, with an application of its own, reaches the database of the others, which goes on as it is.
fn one_more_joins(bed: &mut Bed) {
    let servers = |bed: &Bed| -> Option<Vec<Value>> {
        let status = status(bed, "alpha")?;
        let all = status["servers"].as_array()?.iter();
        let database = all.filter(|server| server["role"] == "database" || server["role"] == "gate");
        Some(database.map(|server| json!([server["name"], server["pid"]])).collect())
    };
    let before = servers(bed).unwrap();
    let load = Load::begin(bed.address("alpha", 80), "/api/entries", 20, 2);
    let here = SITE.replace("[dns]", "delta = \"10.77.0.4\"\n[dns]");
    let there =
        here.replace("on = [\"beta\", \"gamma\"]\nroot", "on = [\"beta\", \"gamma\", \"delta\"]\nroot");
    let there = there
        .replace("on = [\"beta\", \"gamma\"]\ncommand", "on = [\"beta\", \"gamma\", \"delta\"]\ncommand");
    bed.machine("alpha").write("dolmen.toml", &there);
    dolmen(bed, "alpha", &["reload"]).fine();
    bed.add("delta");
    join(bed, "delta", &token(bed, "delta")).fine();
    bed.machine_mut("delta").serve(&[DOLMEN, "agent"]);
    until_healthy(bed, &["alpha", "beta", "gamma", "delta"]);
    // Its own web server answers by its own application, through its own gate.
    let entry = json!({ "name": "bed", "message": "by delta" });
    let response = until("an answer of delta's application", WITHIN, || {
        post(bed.address("delta", 8081), "/api/entries", &entry)
            .ok()
            .filter(|response| response.status == 201)
    });
    assert!(response.header("via").is_some_and(|via| via.contains("web-3")), "{:?}", response.header("via"));
    has_all(bed, "alpha", &["by delta".to_owned()]);
    let report = load.finish();
    println!("{} GETs, {} POSTs, slowest {:?}", report.gets, report.posts, report.slowest);
    assert!(report.posts > 0 && report.failed.is_empty(), "{:?}", report.failed.first());
    let kept = dolmen(bed, "alpha", &["psql", "--", "-XAtqc", "SELECT message FROM entries"]).fine().out;
    let kept: BTreeSet<&str> = kept.lines().collect();
    assert!(report.acknowledged.iter().all(|message| kept.contains(message.as_str())));
    let after = servers(bed).unwrap();
    assert!(before.iter().all(|server| after.contains(server)), "started anew: {before:?}, {after:?}");
}
