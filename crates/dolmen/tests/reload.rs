//! A site file that changes while the site runs, under load and with open tunnels: what the clients saw.
//!
//! `make drill` runs the same at full size: 100 reloads and 1,000 open WebSockets (DOLMEN_DRILL_ROUNDS).
#![allow(clippy::unwrap_used)] // what a test lacks may end it

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::{Load, Ran, Site, until};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// Requests a second.
const GETS: u32 = 300;

const PATIENCE: Duration = Duration::from_secs(20);

fn is_drill() -> bool {
    std::env::var_os("DOLMEN_DRILL_ROUNDS").is_some()
}

/// Two web servers behind a balancer; `more` is the rest of its section.
fn text(more: &str) -> String {
    format!(
        "[machines]\nalpha = \"10.0.0.1\"\nbeta = \"10.0.0.2\"\ngamma = \"10.0.0.3\"\n\
         [balancer]\non = [\"alpha\"]\n{more}\n[web]\non = [\"beta\", \"gamma\"]\nroot = \"public\"\n"
    )
}

fn web_site(block: u8) -> Site {
    let site = Site::new(DOLMEN, block, &text(""));
    std::fs::create_dir_all(site.folder.join("public")).unwrap();
    site.write("public/index.html", "hello\n");
    site.up();
    site.until_healthy();
    site
}

fn reload(site: &Site, text: &str) -> Ran {
    site.write("dolmen.toml", text);
    site.run(&["reload"])
}

fn generation(site: &Site) -> u64 {
    site.status()["generation"].as_u64().unwrap()
}

/// What the balancer says of its servers.
fn rotation(site: &Site) -> String {
    site.server("balancer-1")["because"].as_str().unwrap().to_owned()
}

#[track_caller]
fn nothing_failed(load: Load, what: &str) {
    let report = load.finish();
    println!("{what}: {} GET, failed {}, slowest {:?}", report.gets, report.failed.len(), report.slowest);
    assert!(report.gets > 0 && report.failed.is_empty(), "{what}: {:?}", report.failed);
}

#[test]
fn a_change_is_followed_and_one_that_cannot_be_is_refused() {
    let site = web_site(115);
    assert_eq!(generation(&site), 1);
    let load = Load::begin(site.front(), "/", GETS, 0);
    let ran = reload(&site, &text("algorithm = \"least-connections\"")).fine();
    assert!(ran.says("the balancer chooses in another way"), "{ran:?}");
    assert!(
        ran.says("balancer-1") && ran.says("uses the new settings") && ran.says("is at generation 2"),
        "{ran:?}"
    );
    assert_eq!(generation(&site), 2);
    let again = site.run(&["reload"]).fine();
    assert!(again.says("nothing has changed") && again.says("is at generation 2"), "{again:?}");

    let mistake = reload(&site, &text("algorithm = \"least-conections\""));
    assert_eq!((mistake.code, generation(&site)), (2, 2), "{mistake:?}");
    assert!(mistake.says("least-connections"), "{mistake:?}");
    let port = reload(&site, &text("port = 9999"));
    assert_eq!((port.code, generation(&site)), (1, 2), "{port:?}");
    assert!(port.says("cannot be changed while the site runs") && port.says("dolmen stop"), "{port:?}");
    nothing_failed(load, "reloads, good and bad");
}

#[test]
fn the_access_log_follows_a_reload_and_opens_anew_what_was_moved_away() {
    let site = web_site(119);
    let load = Load::begin(site.front(), "/", GETS, 0);
    let folder = site.folder.join("logs");
    std::fs::create_dir_all(&folder).unwrap();
    // The account of the balancer writes there.
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let log = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let to = |name: &str, format: &str| {
        let path = folder.join(name).display().to_string();
        text(&format!("access-log = {{ format = \"{format}\", path = \"{path}\" }}"))
    };
    let ran = reload(&site, &to("one.log", "json")).fine();
    assert!(ran.says("the balancer logs requests in another way"), "{ran:?}");
    until("lines in JSON", PATIENCE, || log("one.log").starts_with("{\"time\"").then_some(()));
    std::fs::rename(folder.join("one.log"), folder.join("one.log.1")).unwrap();
    until("a file of the same name", PATIENCE, || log("one.log").starts_with("{\"time\"").then_some(()));
    reload(&site, &to("two.log", "timers")).fine();
    until("lines elsewhere", PATIENCE, || log("two.log").contains(" balancer-1 -/web-").then_some(()));
    reload(&site, &text("access-log = \"off\"")).fine();
    let counted = || site.server("balancer-1")["counters"]["access_log_lines"].as_u64();
    let mut last = counted();
    until("no more lines", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(1_500));
        let same = last == counted();
        last = counted();
        same.then_some(())
    });
    reload(&site, &to("three.log", "combined")).fine();
    until("lines again", PATIENCE, || log("three.log").contains("\"GET / HTTP/1.1\" 200").then_some(()));
    assert!(!log("two.log").contains("HTTP/1.1\" 200"), "each file has its own words");
    nothing_failed(load, "reloads of the access log");
}

#[test]
fn a_drained_server_stays_out_until_it_is_ready() {
    let site = web_site(116);
    let load = Load::begin(site.front(), "/", GETS, 0);
    site.run(&["drain", "web-1"]).fine();
    let state = site.server("web-1");
    assert_eq!(state["state"], "draining", "{state}");
    assert!(state["because"].as_str().unwrap().contains("dolmen ready web-1"), "{state}");
    assert!(rotation(&site).ends_with("1 of 2 web servers up, drained: web-1"), "{}", rotation(&site));
    let last = site.run(&["drain", "web-2"]);
    assert!(last.code == 2 && last.says("the last one in rotation"), "{last:?}");
    // Neither another file nor a new process brings it back.
    reload(&site, &text("algorithm = \"first\"")).fine();
    let before = site.pid("web-1");
    assert!(Command::new("kill").args(["-KILL", &before.to_string()]).status().unwrap().success());
    until("a new process", PATIENCE, || {
        let server = site.server("web-1");
        (server["pid"].as_u64().is_some_and(|pid| pid != u64::from(before)) && server["state"] == "draining")
            .then_some(())
    });
    assert!(rotation(&site).ends_with("1 of 2 web servers up, drained: web-1"), "{}", rotation(&site));
    assert_eq!(site.run(&["status"]).code, 0, "a drained server is as it should be");
    reload(&site, &text("")).fine();
    site.run(&["ready", "web-1"]).fine();
    until("both in rotation", PATIENCE, || rotation(&site).ends_with("2 of 2 web servers up").then_some(()));
    assert_eq!(site.server("web-1")["state"], "healthy");
    nothing_failed(load, "drain and ready");
    let unknown = site.run(&["ready", "web-1"]);
    assert!(unknown.code == 2 && unknown.says("not out of rotation"), "{unknown:?}");
}

#[test]
fn an_agent_killed_in_the_middle_of_a_reload_follows_when_it_is_back() {
    let site = web_site(117);
    let load = Load::begin(site.front(), "/", GETS, 0);
    for (round, algorithm) in ["first", "random-two", "round-robin"].into_iter().enumerate() {
        let record = std::fs::read_to_string(site.state().join("machines/alpha/agent.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let agent = record["agent"]["pid"].as_u64().unwrap().to_string();
        site.write("dolmen.toml", &text(&format!("algorithm = \"{algorithm}\"")));
        let mut reload = site.command(&["reload"]).stdout(std::process::Stdio::null()).spawn().unwrap();
        assert!(Command::new("kill").args(["-KILL", &agent]).status().unwrap().success());
        if round == 1 {
            reload.kill().unwrap();
        }
        reload.wait().unwrap();
        // A command that was killed before it changed anything is given again, as its user would.
        site.run(&["reload"]).fine();
        until("one generation everywhere", PATIENCE, || {
            let status = site.status();
            let all = status["servers"].as_array().unwrap().iter().map(|server| server["generation"].clone());
            all.into_iter().all(|at| at == status["generation"]).then_some(())
        });
        assert_eq!(generation(&site), round as u64 + 2);
    }
    nothing_failed(load, "reloads with killed agents");
}

/// Answers each connection with 101 and then sends back what comes, on a thread of its own.
fn echo(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::Builder::new().stack_size(64 * 1024).spawn(move || answer(stream)).unwrap();
        }
    });
}

fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let upgrades = head.windows(9).any(|window| window.eq_ignore_ascii_case(b"websocket"));
        let answer: &[u8] = if upgrades {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        };
        if stream.write_all(answer).is_err() {
            return;
        }
        if upgrades {
            break;
        }
        head.clear();
    }
    while stream.read(&mut byte).unwrap_or(0) == 1 {
        if stream.write_all(&byte).is_err() {
            return;
        }
    }
}

fn tunnel(front: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(front).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let request =
        format!("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

#[track_caller]
fn all_live(tunnels: &mut [TcpStream]) {
    for (number, stream) in tunnels.iter_mut().enumerate() {
        let sent = [number as u8];
        let mut came = [0];
        stream.write_all(&sent).unwrap();
        stream.read_exact(&mut came).unwrap();
        assert_eq!(came, sent);
    }
}

#[test]
fn reloads_under_load_lose_no_request_and_no_tunnel() {
    // Both ends of each tunnel are in this process.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (reloads, tunnels) = if is_drill() { (100, 1_000) } else { (10, 100) };
    let servers: Vec<SocketAddr> =
        (1..4).map(|last| SocketAddr::from(([127, 0, 118, 200 + last], 9000))).collect();
    servers.iter().for_each(|address| echo(*address));
    let text = |round: usize| {
        let used: Vec<String> = (0..2).map(|index| format!("\"{}\"", servers[(round + index) % 3])).collect();
        let algorithm = ["round-robin", "least-connections", "random-two"][round % 3];
        format!("[balancer]\nservers = [{}]\nalgorithm = \"{algorithm}\"\n", used.join(", "))
    };
    let site = Site::new(DOLMEN, 118, &text(0));
    site.up();
    let mut open: Vec<TcpStream> = (0..tunnels).map(|_| tunnel(site.front())).collect();
    all_live(&mut open);
    let load = Load::begin(site.front(), "/", GETS, 0);
    let began = Instant::now();
    for round in 1..=reloads {
        reload(&site, &text(round)).fine();
    }
    let took = began.elapsed();
    all_live(&mut open);
    println!("{reloads} reloads in {took:?} with {tunnels} open tunnels");
    nothing_failed(load, "reloads with open tunnels");
    assert_eq!(generation(&site), reloads as u64 + 1);
    if is_drill() {
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
}
