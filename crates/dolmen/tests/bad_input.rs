//! What users get wrong: each gives a message that names the thing and the remedy, and leaves nothing behind.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use testkit::{Ran, Site, until};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// The mistake is the user's, is told so, and nothing was started or made.
#[track_caller]
fn refused(site: &Site, ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.says(word), "{word:?} in {ran:?}");
    }
    assert!(!ran.says("panicked"), "{ran:?}");
    let left = site.processes();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_site_file_with_mistakes_starts_nothing() {
    let text = "domain = \"www.foobar.com\"\n[app]\ncomand = \"x\"\nworkers = \"two\"\n[web]\non = [\"delta\"]\nroot = \"absent\"\n";
    let site = Site::new(DOLMEN, 62, text);
    let words = ["dolmen.toml:3:1", "comand", "command", "dolmen.toml:4", "workers", "delta", "absent"];
    refused(&site, &site.run(&["check"]), 2, &words);
    refused(&site, &site.try_up(), 2, &words);
    assert!(!site.folder.join(".dolmen").exists(), "no state was made");
}

#[test]
fn a_file_that_is_empty_or_not_toml_or_not_there() {
    let site = Site::new(DOLMEN, 63, "");
    refused(&site, &site.try_up(), 2, &["domain"]);
    site.write("dolmen.toml", "this is { not TOML");
    refused(&site, &site.try_up(), 2, &["dolmen.toml:1"]);
    refused(&site, &site.run(&["check", "absent.toml"]), 2, &["absent.toml", "dolmen init"]);
    refused(&site, &site.run(&["status"]), 1, &["never started", "dolmen up"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    let site = Site::guestbook(DOLMEN, 64);
    let taken = TcpListener::bind(site.front()).expect("the port is free");
    let holder = format!("process {}", std::process::id());
    refused(&site, &site.try_up(), 1, &["127.0.64.1:8080", "balancer-1", &holder, "--block"]);
    drop(taken);
}

#[test]
fn no_postgres_on_the_machine() {
    let site = Site::guestbook(DOLMEN, 65);
    let empty = site.folder.join("empty");
    std::fs::create_dir(&empty).expect("a folder can be made");
    let ran =
        site.command(&["up", "--detach", "--block", "127.0.65"]).env("DOLMEN_POSTGRES_BIN", &empty).output();
    refused(&site, &ran.expect("dolmen can be run").into(), 1, &["PostgreSQL", "apt install postgresql"]);
    let doctor = site.command(&["doctor"]).env("DOLMEN_POSTGRES_BIN", &empty).output();
    refused(&site, &doctor.expect("dolmen can be run").into(), 1, &["lacks", "PostgreSQL"]);
}

fn app(command: &str) -> String {
    format!("[machines]\nalpha = \"10.0.0.1\"\n[app]\nworkers = 1\nstart = \"3s\"\ncommand = \"{command}\"\n")
}

fn up_in_vain(site: &Site) -> Ran {
    site.run(&["up", "--detach", "--within", "6", "--block", &format!("127.0.{}", site.block)])
}

#[test]
fn a_command_that_does_not_exist() {
    let site = Site::new(DOLMEN, 66, &app("no-such-program --port 1"));
    refused(&site, &up_in_vain(&site), 1, &["app-1", "no-such-program"]);
}

#[test]
fn a_command_that_exits_at_once() {
    let site = Site::new(DOLMEN, 67, &app("python3 -c 'raise SystemExit(\\\"no licence\\\")'"));
    refused(&site, &up_in_vain(&site), 1, &["app-1", "status 1", "no licence"]);
}

#[test]
fn a_command_that_never_becomes_healthy() {
    let site = Site::new(DOLMEN, 68, &app("sleep 1000"));
    refused(&site, &up_in_vain(&site), 1, &["app-1", "0 of 1 worker ready"]);
}

/// After a power failure they may come later than the balancer, which must not give up for that.
#[test]
fn servers_that_are_not_ours_and_are_not_there_yet() {
    let site = Site::new(
        DOLMEN,
        189,
        "[balancer]\nservers = [\"127.0.189.8:8000\"]\n[pool.api]\nservers = [\"127.0.189.9:8000\"]\n\
         [[route]]\npath = \"/api\"\nto = \"api\"\n",
    );
    let ran = up_in_vain(&site).fine();
    assert!(ran.says("warning: balancer-1 is unhealthy: none of 1 servers is up"), "{ran:?}");
    assert_eq!((site.run(&["status"]).code, site.get("/").status), (1, 503));

    // One pool is not the whole site.
    let _own = hello("127.0.189.8:8000");
    until("the first server", Duration::from_secs(10), || (site.get("/").status == 200).then_some(()));
    let status = site.run(&["status"]);
    assert!(status.code == 1 && status.says("none of 1 servers of api is up"), "{status:?}");
    let _api = hello("127.0.189.9:8000");
    site.until_healthy();
    assert_eq!(site.get("/api").status, 200);
}

/// A server that answers every request on its connections with 200. It ends with the test.
fn hello(address: &str) -> std::thread::JoinHandle<()> {
    let listener = TcpListener::bind(address).expect("the address is free");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut more = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut more) {
                    seen.extend_from_slice(&more[..count]);
                    if seen.ends_with(b"\r\n\r\n") {
                        seen.clear();
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    })
}

#[test]
fn the_state_folder_of_another_site_or_version_is_left_alone() {
    let site = Site::new(DOLMEN, 69, "[web]\nroot = \".\"\n");
    site.up();
    site.run(&["stop"]).fine();
    let about = site.state().join("site.json");
    let good = std::fs::read_to_string(&about).expect("there is a site.json");
    site.write("dolmen.toml", "domain = \"other.example\"\n[web]\nroot = \".\"\n");
    refused(&site, &site.try_up(), 1, &["belongs to the site", "other.example"]);
    write(&about, &good.replace("\"format\": 1", "\"format\": 99"));
    refused(&site, &site.try_up(), 1, &["format 99", "nothing was changed"]);
    write(&about, "{ half a file");
    refused(&site, &site.try_up(), 1, &["site.json"]);
    assert_eq!(std::fs::read_to_string(&about).expect("it is still there"), "{ half a file");
    write(&about, &good);
}

#[test]
fn two_up_at_once() {
    let site = Site::new(DOLMEN, 70, "[web]\nroot = \".\"\n");
    site.up();
    let second = site.try_up();
    assert_eq!(second.code, 1);
    assert!(second.says("is up already") && second.says("dolmen stop"), "{second:?}");
    let other = Site::new(DOLMEN, 80, "domain = \"other.example\"\n[web]\nroot = \".\"\n");
    let ran = other.run(&["up", "--detach", "--block", "127.0.70"]);
    refused(&other, &ran, 1, &["127.0.70", "--block"]);
    site.run(&["status"]).fine();
}

#[allow(clippy::disallowed_methods, reason = "a test file need not survive a crash")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file can be written");
}
