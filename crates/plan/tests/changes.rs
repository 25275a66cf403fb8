//! What a changed site file would change, in sentences.

use plan::{Ground, NoFiles, Place, Plan, Role, Site, difference, same_meaning};

const SITE: &str = "domain = \"www.foobar.com\"\n[machines]\nalpha = \"10.0.0.1\"\nbeta = \"10.0.0.2\"\n[web]\non = [\"beta\"]\n[app]\ncommand = \"shop\"\n[app.environment]\nKEY = \"one\"\n";

fn plan(text: &str) -> Plan {
    let ground = Ground { place: Place::Up { block: 1 }, generation: 1, folder: "shop", files: &NoFiles };
    Site::from_text(text).plan(&ground).expect("the site is right")
}

#[track_caller]
fn check(from: &str, to: &str, expect: &[&str]) {
    assert!(SITE.contains(from), "the site has {from:?}");
    let (old, new) = (plan(SITE), plan(&SITE.replacen(from, to, 1)));
    assert_eq!(same_meaning(&old, &new), expect.is_empty());
    assert_eq!(difference(Some(&old), &new), expect);
}

#[test]
fn a_comment_changes_nothing() {
    check("[web]", "# a word\n[web]", &[]);
}

#[test]
fn the_generation_is_no_meaning() {
    let mut later = plan(SITE);
    later.generation = 9;
    assert!(same_meaning(&plan(SITE), &later));
}

#[test]
fn a_first_plan_starts_every_server() {
    let sentences = difference(None, &plan(SITE));
    assert_eq!(sentences.len(), plan(SITE).servers.len());
    assert_eq!(sentences[1], "balancer-1 starts on alpha, at http://127.0.1.1:8080");
}

#[test]
fn a_second_web_server() {
    check(
        "on = [\"beta\"]\n[app]",
        "on = [\"beta\", \"alpha\"]\n[app]\non = [\"beta\"]",
        &["web-2 starts on alpha, at http://127.0.1.1:8081", "the balancer sends to other servers"],
    );
}

#[test]
fn a_server_that_moves() {
    check(
        "on = [\"beta\"]\n[app]",
        "on = [\"alpha\"]\n[app]\non = [\"beta\"]",
        &["web-1 moves from beta to alpha", "the balancer sends to other servers"],
    );
}

#[test]
fn a_changed_variable_is_named_without_its_value() {
    check("KEY = \"one\"", "KEY = \"two\"", &["the variable KEY changes"]);
    check("KEY = \"one\"", "OTHER = \"two\"", &["the variable KEY goes", "the variable OTHER comes"]);
}

#[test]
fn another_command_and_more_workers() {
    check(
        "command = \"shop\"",
        "command = \"shop -v\"\nworkers = 4",
        &[
            "the application is started by `shop -v` instead of `shop`",
            "each app server has 4 workers instead of 2",
        ],
    );
}

#[test]
fn what_a_running_site_can_follow() {
    let obstacles = |from: &str, to: &str| plan::obstacles(&plan(SITE), &plan(&SITE.replacen(from, to, 1)));
    let live = ["command = \"shop -v\"\nworkers = 4", "command = \"shop\"\nhealth = \"/up\""];
    for to in live {
        assert_eq!(obstacles("command = \"shop\"", to), [""; 0]);
    }
    let joined = obstacles("10.0.0.2\"", "10.0.0.2\"\ngamma = \"10.0.0.3\"");
    assert_eq!(joined[0], "the machine gamma joins, at 127.0.1.3");
    assert!(
        joined.contains(&"control-3 starts on gamma, at control 127.0.1.3:7401".to_owned()),
        "{joined:?}"
    );
    assert_eq!(
        obstacles("on = [\"beta\"]\n[app]", "on = [\"beta\"]\nport = 9000\n[app]"),
        ["web-1 listens at http://127.0.1.2:9000 instead of http://127.0.1.2:8081"]
    );
}

/// On real machines.
fn obstacles_there(from: &str, to: &str) -> Vec<String> {
    obstacles_from(THREE, &THREE.replacen(from, to, 1))
}

fn obstacles_from(text: &str, changed: &str) -> Vec<String> {
    let ground = Ground { place: Place::Machines, generation: 1, folder: "shop", files: &NoFiles };
    let old = Site::from_text(text).plan(&ground).expect("the site is right");
    assert_ne!(changed, text);
    let new = Site::from_text(changed).plan_after(&ground, &old).expect("the site is right");
    plan::obstacles(&old, &new)
}

const THREE: &str = r#"domain = "www.foobar.com"
[machines]
alpha = "10.0.0.1"
beta = "10.0.0.2"
gamma = "10.0.0.3"
[web]
[app]
command = "shop"
[database]
on = ["alpha"]
"#;

#[test]
fn machines_come_with_their_servers_and_go_with_them() {
    let none: [&str; 0] = [];
    assert_eq!(obstacles_there("[web]", "delta = \"10.0.0.4\"\n[web]"), none);
    let four = THREE.replacen("[web]", "delta = \"10.0.0.4\"\n[web]", 1);
    assert_eq!(obstacles_from(&four, &four.replacen("beta = \"10.0.0.2\"\n", "", 1)), none);
    // Of two machines both do all, so that alpha would get what it does not have.
    assert_eq!(
        obstacles_there("beta = \"10.0.0.2\"\n", "").first().unwrap(),
        "web-3 starts on alpha, at http://10.0.0.1:8081"
    );
    assert_eq!(
        obstacles_there("gamma = \"10.0.0.3\"\n[web]", "delta = \"10.0.0.3\"\n[web]").first().unwrap(),
        "the machine delta comes at 10.0.0.3, the address of gamma that goes: take gamma out first, and switch it off"
    );
    assert_eq!(
        obstacles_there("10.0.0.3", "10.0.0.9").first().unwrap(),
        "the machine gamma is at 10.0.0.9 instead of 10.0.0.3"
    );
    assert_eq!(
        obstacles_there("\"alpha\"]", "\"gamma\"]"),
        ["database-1 on alpha ends", "database-2 starts on gamma, at postgres 10.0.0.3:5432"]
    );
    assert_eq!(
        obstacles_there("[web]\n", "[web]\non = [\"gamma\"]\n"),
        ["web-1 on beta ends", "app-1 on beta ends", "gate-1 on beta ends"]
    );
}

#[test]
fn servers_keep_their_names_whichever_machines_come_and_go() {
    let ground = Ground { place: Place::Machines, generation: 1, folder: "shop", files: &NoFiles };
    let names = |plan: &Plan| -> Vec<String> {
        let of_interest =
            plan.servers.iter().filter(|server| matches!(server.role, Role::Web | Role::Control));
        of_interest.map(|server| format!("{} {}", server.name, server.machine)).collect()
    };
    let old = Site::from_text(THREE).plan(&ground).unwrap();
    assert_eq!(
        names(&old),
        ["web-1 beta", "web-2 gamma", "control-1 alpha", "control-2 beta", "control-3 gamma"]
    );
    // One goes and another comes: nobody has the name of one that still runs somewhere.
    let other = THREE.replacen("beta = \"10.0.0.2\"", "delta = \"10.0.0.4\"", 1);
    let after = Site::from_text(&other).plan_after(&ground, &old).unwrap();
    assert_eq!(
        names(&after),
        ["web-3 delta", "web-2 gamma", "control-1 alpha", "control-4 delta", "control-3 gamma"]
    );
    assert_eq!(after.control.as_ref().unwrap().voters, ["control-1", "control-4", "control-3"]);
    // Later its number is free.
    let more = other.replacen("[web]", "epsilon = \"10.0.0.5\"\n[web]", 1);
    let later = Site::from_text(&more).plan_after(&ground, &after).unwrap();
    assert_eq!(names(&later)[..3], ["web-3 delta", "web-2 gamma", "web-1 epsilon"]);
    // A machine that missed the plan between follows all the same: nothing of its own has changed.
    assert!(plan::obstacles_on("gamma", &old, &later).is_empty());
}

#[test]
fn the_last_server_in_rotation_stays() {
    let mut site = plan(&SITE.replacen("on = [\"beta\"]", "on = [\"beta\", \"alpha\"]", 1));
    assert_eq!(plan::why_not_drain(&site, "web-1"), None);
    site.drained.push("web-1".into());
    let because = plan::why_not_drain(&site, "web-2").expect("it is the last");
    assert_eq!(because, "web-2 is the last one in rotation: nothing would answer");
    assert!(plan::why_not_drain(&site, "balancer-1").is_some_and(|why| why.contains("last one")));
    assert!(plan::why_not_drain(&site, "dns-1").is_some_and(|why| why.contains("no tier")));
    assert!(plan::why_not_drain(&site, "web-9").is_some_and(|why| why.contains("has no server web-9")));
    assert_eq!(
        difference(Some(&Plan { drained: vec![], ..site.clone() }), &site),
        ["web-1 leaves the rotation"]
    );
}

#[test]
fn what_was_encrypted_stays_so_while_the_site_runs() {
    let site = SITE.replacen("[app]", "[app]\non = [\"alpha\", \"beta\"]", 1);
    let with = |encrypt| site.replacen("[web]", &format!("[network]\nencrypt = {encrypt}\n[web]"), 1);
    let there = |text: &str| {
        let ground = Ground { place: Place::Machines, generation: 1, folder: "shop", files: &NoFiles };
        Site::from_text(text).plan(&ground).unwrap()
    };
    let (encrypted, plain) = (there(&site), there(&with(false)));
    assert!(encrypted.encrypted && there(&with(true)).encrypted && !plain.encrypted && !plan(SITE).encrypted);
    assert_eq!(difference(Some(&plain), &encrypted), ["requests between machines go in TLS"]);
    assert_eq!(plan::obstacles(&plain, &encrypted), [""; 0]);
    let off = ["requests between machines are no longer encrypted"];
    assert_eq!(difference(Some(&encrypted), &plain), off);
    assert_eq!(plan::obstacles(&encrypted, &plain), off);
    // One machine has nobody to talk to, and a server of the own machine is reached as before.
    assert!(
        !there(&SITE.replacen("beta = \"10.0.0.2\"\n", "", 1).replace("on = [\"beta\"]\n", "")).encrypted
    );
    let web = encrypted.server("web-1").unwrap();
    let apps = &encrypted.web.as_ref().unwrap().app;
    for app in apps {
        let elsewhere = app.machine.as_deref().filter(|machine| *machine != web.machine);
        assert_eq!(encrypted.reached_in_tls(web, app), elsewhere);
    }
    assert!(apps.iter().any(|app| encrypted.reached_in_tls(web, app).is_some()));
    assert!(apps.iter().all(|app| plain.reached_in_tls(web, app).is_none()));
}
