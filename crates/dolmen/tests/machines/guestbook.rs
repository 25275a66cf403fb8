//! The whole path on three machines: the application and its database, and the loss of the machine of the primary.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Bed, Load, get, post, until};

use super::partitions;
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

/// How often each message stands in the database, asked from this machine.
fn entries(bed: &Bed, machine: &str) -> Option<BTreeMap<String, usize>> {
    let ran = dolmen(bed, machine, &["psql", "--", "-XAtqc", "SELECT message FROM entries"]);
    let mut count = BTreeMap::new();
    ran.out.lines().for_each(|message| *count.entry(message.to_owned()).or_default() += 1);
    (ran.code == 0).then_some(count)
}

/// Each of these was acknowledged; one that several clients wrote, as often.
#[track_caller]
pub fn has_all(bed: &Bed, machine: &str, messages: &[String]) {
    let mut entries = until("the entries", WITHIN, || entries(bed, machine));
    let is_lost = |message: &&String| match entries.get_mut(*message) {
        Some(times) if *times > 0 => {
            *times -= 1;
            false
        }
        _ => true,
    };
    let lost: Vec<_> = messages.iter().filter(is_lost).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), messages.len());
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
    if is_drill() {
        it_goes_again(&bed);
        partitions::of_a_guestbook(&bed);
    }

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
    let entry = json!({ "name": "bed", "message": "by delta" }).to_string();
    let web = bed.address("delta", 8081);
    let url = format!("http://{web}/api/entries");
    let asks = ["curl", "-si", "-H", "Content-Type: application/json", "--data", &entry, &url];
    let answer = until("an answer of delta's application", WITHIN, || {
        Some(bed.machine("delta").run(&asks)).filter(|answer| answer.out.starts_with("HTTP/1.1 201 "))
    });
    assert!(answer.says("web-3"), "{answer:?}");
    // From elsewhere it is reached in TLS only, by the site's own servers.
    let from_elsewhere = [post(web, "/api/entries", &json!({})), get(web, "/style.css", &[])];
    assert!(from_elsewhere.iter().all(Result::is_err), "{from_elsewhere:?}");
    let from_beta = bed.machine("beta").run(&["curl", "-si", &url]);
    assert!(from_beta.code != 0 && from_beta.out.is_empty(), "{from_beta:?}");
    has_all(bed, "alpha", &["by delta".to_owned()]);
    let report = load.finish();
    println!("{} GETs, {} POSTs, slowest {:?}", report.gets, report.posts, report.slowest);
    assert!(report.posts > 0 && report.failed.is_empty(), "{:?}", report.failed.first());
    has_all(bed, "alpha", &report.acknowledged);
    let after = servers(bed).unwrap();
    assert!(before.iter().all(|server| after.contains(server)), "started anew: {before:?}, {after:?}");
}

/// Taken out, delta goes on with what it was for those who have its address, until it leaves.
fn it_goes_again(bed: &Bed) {
    let rules = |machine: &str, name: &str| {
        let folder = bed.machine(machine).state().join("www.foobar.com/machines").join(machine);
        let data = folder.join("servers").join(name);
        bed.machine(machine)
            .run(&["grep", "-rl", "--include=*hba*", "10.77.0.4/32", data.to_str().unwrap()])
            .code
            == 0
    };
    assert!(rules("beta", "database-1") && rules("gamma", "database-2"));
    let load = Load::begin(bed.address("delta", 8081), "/api/entries", 20, 5);
    bed.machine("alpha").write("dolmen.toml", SITE);
    dolmen(bed, "alpha", &["reload"]).fine();
    until_healthy(bed, &ALL);
    for number in 0..20 {
        // On a connection of its own each, so that the application makes others to the database as well.
        let entry = json!({ "name": "bed", "message": format!("by delta {number}") });
        let response = post(bed.address("delta", 8081), "/api/entries", &entry).unwrap();
        assert_eq!(response.status, 201, "{}", response.text());
    }
    let report = load.finish();
    assert!(report.gets > 0 && report.failed.is_empty(), "{:?}", report.failed.first());
    dolmen(bed, "alpha", &["leave", "delta"]).fine();
    until("PostgreSQL lets it in no more", WITHIN, || {
        (!rules("beta", "database-1") && !rules("gamma", "database-2")).then_some(())
    });
}
