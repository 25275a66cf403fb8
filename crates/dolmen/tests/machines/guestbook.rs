//! The whole path on three machines: the application and its database, and the loss of the machine of the primary.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Bed, get, post, until};

use super::stage::{ALL, WITHIN, dolmen, is_drill, joined_with, status, until_healthy};

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
    let response = get(bed.address(machine, 80), "/api/entries", &[]).ok()?;
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
