//! The commands that are not part of a site's path: what they print, and their exit codes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use testkit::{Site, until};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// A site that needs no database and no application.
const STATIC: &str = "domain = \"static.example\"\n[web]\nroot = \"public\"\n";

fn static_site(block: u8) -> Site {
    let site = Site::new(DOLMEN, block, STATIC);
    std::fs::create_dir(site.folder.join("public")).expect("a folder can be made");
    site.write("public/index.html", "<h1>it is served</h1>");
    site
}

#[test]
fn init_writes_a_site_file_that_check_finds_right() {
    let site = static_site(81);
    std::fs::remove_file(site.folder.join("dolmen.toml")).expect("it was just written");
    site.write("app.py", "print('an application')");
    assert!(site.run(&["init"]).fine().says("dolmen up"));
    let text = std::fs::read_to_string(site.folder.join("dolmen.toml")).expect("init wrote it");
    assert!(text.contains("python3 app.py"), "{text}");
    site.run(&["check"]).fine();
    let again = site.run(&["init"]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.says("there already"), "{again:?}");
}

#[test]
fn plan_says_what_would_change() {
    let site = static_site(82);
    let first = site.run(&["plan"]).fine();
    assert!(first.says("web-1 starts on"), "{}", first.out);
    site.up();
    let same = site.run(&["plan"]).fine();
    assert!(!same.says("web-1 starts on"), "{}", same.out);
    let json: serde_json::Value =
        serde_json::from_str(&site.run(&["plan", "--json"]).fine().out).expect("JSON");
    assert_eq!((&json["generation"], &json["servers"][0]["name"]), (&1.into(), &"web-1".into()));
}

#[test]
fn a_web_server_alone_is_a_whole_site() {
    let site = static_site(83);
    let up = site.up();
    assert!(up.says("http://127.0.83.1:8081/"), "{}", up.out);
    let page = testkit::get(site.address(1, 8081), "/", &[]).expect("it answers");
    assert_eq!((page.status, page.text().as_str()), (200, "<h1>it is served</h1>"));
    assert_eq!(testkit::get(site.address(1, 8081), "/absent", &[]).expect("it answers").status, 404);
    let status = site.status();
    assert_eq!(status["database"], serde_json::Value::Null);
    assert_eq!(status["servers"].as_array().map(Vec::len), Some(1));
}

#[test]
fn logs_are_merged_and_followed() {
    let site = static_site(84);
    site.up();
    let logs = site.run(&["logs"]).fine();
    assert!(logs.says("web-1") && logs.says("agent-alpha"), "{}", logs.out);
    let only = site.run(&["logs", "web-1"]).fine();
    assert!(!only.says("agent-alpha"), "{}", only.out);
    let unknown = site.run(&["logs", "web-9"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.says("has no web-9") && unknown.says("web-1"), "{unknown:?}");

    let mut follow =
        site.command(&["logs", "-f", "-n", "0"]).stdout(Stdio::piped()).spawn().expect("dolmen runs");
    let (sender, lines) = std::sync::mpsc::channel();
    let out = BufReader::new(follow.stdout.take().expect("it is piped"));
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let restarted = until("a line about web-1", Duration::from_secs(10), || {
        site.run(&["kill", "web-1"]).fine();
        site.run(&["start", "web-1"]).fine();
        lines.recv_timeout(Duration::from_secs(1)).ok()
    });
    assert!(restarted.contains("web-1"), "{restarted}");
    follow.kill().expect("it runs");
    follow.wait().expect("it was ours");
}

#[test]
fn kill_names_what_there_is() {
    let site = static_site(85);
    site.up();
    let unknown = site.run(&["kill", "web-2"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.says("it has web-1, alpha"), "{unknown:?}");
    let not_killed = site.run(&["start", "alpha"]).fine();
    assert!(not_killed.says("was not killed"), "{not_killed:?}");
}

#[test]
fn doctor_finds_what_is_there() {
    let site = Site::guestbook(DOLMEN, 86);
    let doctor = site.run(&["doctor"]).fine();
    for word in ["PostgreSQL", "guestbook", "disk", "open files"] {
        assert!(doctor.says(word), "{word} in {}", doctor.out);
    }
    site.write("dolmen.toml", "domain = \"a.example\"\n[app]\ncommand = \"no-such-program\"\n");
    let doctor = site.run(&["doctor"]);
    assert_eq!(doctor.code, 1);
    assert!(doctor.says("no-such-program"), "{doctor:?}");
}

#[test]
fn two_sites_of_one_name_start_at_once() {
    let sites = [static_site(87), static_site(88)];
    let begun: Vec<_> = sites
        .iter()
        .map(|site| {
            let block = format!("127.0.{}", site.block);
            site.command(&["up", "--detach", "--block", &block]).spawn().expect("dolmen runs")
        })
        .collect();
    for up in begun {
        let ended = up.wait_with_output().expect("it ends");
        assert!(ended.status.success(), "{ended:?}");
    }
    assert_ne!(sites[0].state(), sites[1].state());
    for site in &sites {
        assert_eq!(site.status()["servers"][0]["listen"][0], format!("http://127.0.{}.1:8081", site.block));
    }
}
