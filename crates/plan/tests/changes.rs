//! What a changed site file would change, in sentences.

use plan::{Ground, NoFiles, Place, Plan, Site, difference, same_meaning};

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
