//! A site of machines and a database alone, run by the operator's commands: what Patroni and patronictl are for.

use std::time::Duration;

use serde_json::Value;
use testkit::{Ran, Site, until};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// Two machines with data; the third one votes.
const ALONE: &str =
    "[machines]\nalpha = \"10.0.0.1\"\nbeta = \"10.0.0.2\"\ngamma = \"10.0.0.3\"\n[database]\n";

fn up(block: u8) -> Site {
    let site = Site::new(DOLMEN, block, ALONE);
    site.up();
    site
}

/// What a query says, through a gate.
#[track_caller]
fn query(site: &Site, arguments: &[&str], text: &str) -> String {
    let mut all = vec!["psql"];
    all.extend(arguments);
    all.extend(["--", "-XAtqc", text]);
    site.run(&all).fine().out.trim().to_owned()
}

fn primary(status: &Value) -> String {
    status["database"]["primary"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the other server is the primary and has a synchronous replica.
#[track_caller]
fn until_whole(site: &Site, expect: &str) -> Value {
    until(&format!("{expect} with a replica"), Duration::from_secs(30), || {
        let status = site.status();
        let replica = &status["database"]["replicas"][0];
        let whole = status["healthy"] == true && replica["synchronous"] == true;
        (whole && primary(&status) == expect).then_some(status)
    })
}

#[track_caller]
fn refused(ran: &Ran, code: i32, text: &str) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert!(ran.says(text), "{text} in {ran:?}");
}

#[test]
fn a_primary_is_switched_lost_and_comes_back() {
    let site = up(132);
    let status = until_whole(&site, "database-1");
    assert_eq!(status["database"]["agreed"]["synchronous"][0], "database-2");
    assert!(
        status["database"]["agreed"]["lease_left_ms"].as_u64().is_some_and(|left| left <= 3000),
        "{status}"
    );
    assert_eq!(status["control"]["members"].as_array().map(Vec::len), Some(3));
    query(&site, &[], "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)");

    let switched = site.run(&["switchover"]).fine();
    for step in [
        "ends in order for database-2",
        "takes over in epoch",
        "database-2 takes writes",
        "database-1 follows",
    ] {
        assert!(switched.says(step), "{step} in {switched:?}");
    }
    until_whole(&site, "database-2");
    query(&site, &[], "INSERT INTO kept VALUES (2)");
    let read_only = site.run(&["psql", "--replica", "--", "-XAtqc", "INSERT INTO kept VALUES (0)"]);
    refused(&read_only, 1, "read-only");

    site.run(&["kill", "beta"]).fine();
    until("a new primary", Duration::from_secs(20), || {
        let ran = site.run(&["psql", "--", "-XAtqc", "INSERT INTO kept VALUES (3)"]);
        (ran.code == 0).then_some(())
    });
    let status = site.run(&["status"]);
    refused(&status, 1, "became the primary of epoch");
    site.run(&["start", "beta"]).fine();
    until_whole(&site, "database-1");
    assert_eq!(query(&site, &["--replica"], "SELECT count(DISTINCT id) FROM kept WHERE id > 0"), "3");

    let history = site.run(&["database", "history", "--json"]).fine().out;
    let history: Vec<Value> = serde_json::from_str(&history).expect("JSON");
    let servers: Vec<_> = history.iter().filter_map(|one| one["server"].as_str()).collect();
    assert!(servers.ends_with(&["database-1", "database-2", "database-1"]), "{history:?}");
    assert!(site.run(&["database", "history"]).fine().says("database-2"));
}

#[test]
fn while_paused_nothing_happens_by_itself_and_everything_says_so() {
    let site = up(133);
    until_whole(&site, "database-1");
    assert!(site.run(&["database", "pause"]).fine().says("until `dolmen database resume`"));
    assert!(site.run(&["database", "pause"]).fine().says("paused already"));
    refused(&site.run(&["switchover"]), 1, "the group is paused");
    refused(&site.run(&["database", "reinit", "database-2"]), 1, "paused");
    until("a sentence about the pause", Duration::from_secs(5), || {
        let status = site.status();
        let says = |name: &str| site.server(name)["because"].as_str().unwrap_or_default().contains("paused");
        (status["database"]["agreed"]["paused"] == true && says("database-1") && says("database-2"))
            .then_some(())
    });
    assert!(site.run(&["status"]).says("fine, but paused"));
    assert!(site.run(&["database", "resume"]).fine().says("database-1 is the primary"));
    assert!(site.run(&["database", "resume"]).fine().says("was not paused"));
    until_whole(&site, "database-1");

    let copied = site.run(&["database", "reinit", "database-2"]).fine();
    assert!(copied.says("is a new copy"), "{copied:?}");
    until_whole(&site, "database-1");
}

#[test]
fn a_wrong_order_changes_nothing() {
    let site = up(134);
    until_whole(&site, "database-1");
    refused(&site.run(&["switchover", "database-9"]), 2, "the database servers are database-1, database-2");
    refused(&site.run(&["switchover", "gate-1"]), 2, "gate-1 is not a database server");
    refused(&site.run(&["switchover", "database-1"]), 2, "database-1 is the primary");
    refused(&site.run(&["switchover", "--force", "database-2"]), 1, "renews its lease");
    refused(&site.run(&["switchover", "--force"]), 2, "required");
    refused(&site.run(&["database", "reinit", "database-1"]), 2, "is the primary");
    refused(&site.run(&["database", "reinit", "alpha"]), 2, "the database servers are");
    site.run(&["kill", "database-2"]).fine();
    refused(&site.run(&["database", "reinit", "database-2"]), 1, "does not run");
    until("a primary that is alone", Duration::from_secs(20), || {
        let status = site.status();
        (status["database"]["agreed"]["synchronous"].as_array().is_some_and(Vec::is_empty)).then_some(())
    });
    refused(&site.run(&["switchover"]), 1, "nobody but database-1 may be primary");
    site.run(&["start", "database-2"]).fine();
    until_whole(&site, "database-1");

    let begun = [0, 1].map(|_| {
        let mut command = site.command(&["switchover"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().expect("dolmen runs")
    });
    let ended = begun.map(|one| Ran::from(one.wait_with_output().expect("it ends")));
    let fine = ended.iter().filter(|ran| ran.code == 0).count();
    assert!(fine >= 1, "{ended:?}");
    for ran in ended.iter().filter(|ran| ran.code != 0) {
        refused(ran, 1, "nothing was changed");
    }
}

#[test]
fn what_needs_a_database_that_is_up_says_so() {
    let site = Site::new(DOLMEN, 135, ALONE);
    for command in [&["switchover"][..], &["database", "pause"], &["database", "history"], &["psql"]] {
        refused(&site.run(command), 1, "never started");
    }
    site.write("dolmen.toml", "domain = \"a.example\"\n[web]\nroot = \"public\"\n");
    std::fs::create_dir(site.folder.join("public")).expect("a folder can be made");
    site.up();
    for command in [&["switchover"][..], &["database", "resume"], &["psql"]] {
        refused(&site.run(command), 2, "no database");
    }
    site.run(&["stop"]).fine();
    refused(&site.run(&["psql"]), 2, "no database");
}

const LOST: [(&str, &str); 2] = [("control-2", "beta"), ("control-3", "gamma")];

/// The control servers of beta and gamma lose their disks.
fn lose_most_of_control(site: &Site) {
    LOST.iter().for_each(|(server, _)| drop(site.run(&["kill", server]).fine()));
    for (server, machine) in LOST {
        let folder = site.state().join("machines").join(machine).join("servers").join(server);
        std::fs::remove_dir_all(folder).expect("its folder was there");
    }
}

fn start(site: &Site, servers: &[&str]) {
    servers.iter().for_each(|server| drop(site.run(&["start", server]).fine()));
}

/// As soon as the last voter knows that it has no leader any more.
fn recover(site: &Site) -> Ran {
    until("a new beginning", Duration::from_secs(30), || {
        let ran = site.run(&["control", "recover", "--accept-loss"]);
        assert!(ran.code == 0 || ran.says("has a leader") || ran.says("does not answer"), "{ran:?}");
        (ran.code == 0).then_some(ran)
    })
}

/// Waits until there is a primary with a replica, whichever it is.
fn until_any_whole(site: &Site) -> Value {
    until("a primary with a replica", Duration::from_secs(60), || {
        let status = site.status();
        let whole = status["healthy"] == true && status["database"]["replicas"][0]["synchronous"] == true;
        whole.then_some(status)
    })
}

#[test]
fn the_database_goes_on_after_most_of_control_is_lost_for_good() {
    let site = up(136);
    until_whole(&site, "database-1");
    query(&site, &[], "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)");
    lose_most_of_control(&site);
    start(&site, &["control-2", "control-3"]);
    refused(
        &site.run(&["control", "recover"]),
        2,
        "`dolmen control recover control-1 --accept-loss` does it",
    );
    let said = recover(&site);
    assert!(said.says("control-1 begins anew as the only voter"), "{said:?}");
    // One that the last leader has taken in again in its last moment believes in that.
    for server in
        ["control-2", "control-3"].into_iter().filter(|server| said.says(&format!("forget {server}")))
    {
        until("it forgets", Duration::from_secs(20), || {
            (site.run(&["control", "forget", server]).code == 0).then_some(())
        });
    }
    let status = until_any_whole(&site);
    let epoch = status["database"]["agreed"]["epoch"].as_u64().unwrap_or_default();
    assert!(epoch > 1 << 20, "no epoch is given out twice: {epoch}");
    query(&site, &[], "INSERT INTO kept VALUES (2)");
    assert_eq!(query(&site, &[], "SELECT count(*) FROM kept"), "2");
    let control = site.run(&["control"]).fine();
    assert_eq!(
        control.out.matches(" votes ").count() + control.out.matches(" leads ").count(),
        3,
        "{control:?}"
    );
}

#[test]
fn a_failover_that_control_has_forgotten_is_for_a_person_to_decide() {
    let site = up(137);
    until_whole(&site, "database-1");
    query(&site, &[], "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)");
    // All that happens from here on only the voters know that will be lost.
    site.run(&["kill", "control-1"]).fine();
    until("a switchover", Duration::from_secs(20), || {
        (site.run(&["switchover", "database-2"]).code == 0).then_some(())
    });
    until("a commit of the new primary", Duration::from_secs(20), || {
        (site.run(&["psql", "--", "-XAtqc", "INSERT INTO kept VALUES (2)"]).code == 0).then_some(())
    });
    // Only then it is back, so that it learns nothing of that.
    lose_most_of_control(&site);
    start(&site, &["control-1", "control-2", "control-3"]);
    recover(&site);
    let waits = until("a server that knows more", Duration::from_secs(30), || {
        let ran = site.run(&["status"]);
        ran.says("control knows nothing, so it has forgotten a failover").then_some(ran)
    });
    assert!(waits.code == 1 && waits.says("`dolmen switchover --force database-2`"), "{waits:?}");
    refused(&site.run(&["psql", "--", "-XAtqc", "SELECT 1"]), 2, "");
    site.run(&["switchover", "--force", "database-2"]).fine();
    assert_eq!(query(&site, &[], "SELECT count(*) FROM kept"), "2", "what it acknowledged is there");
    assert!(site.run(&["database", "reinit", "database-1"]).fine().says("is a new copy"));
    until_whole(&site, "database-2");
    assert_eq!(query(&site, &["--replica"], "SELECT count(*) FROM kept"), "2");
}
