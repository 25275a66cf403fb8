//! A newer program that takes over while the site runs: what the clients saw.
//!
//! The site runs a copy of the built binary; the newer program is another copy with some bytes more at its end, so
//! that it is another file with another digest, and nothing else differs. It is put in the place of the first as a
//! package manager does it, by a rename. `make drill` runs the same with more tunnels. With the path of an older
//! release in `DOLMEN_OLDER`, sites begin with that one.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testkit::{Load, Ran, Site, until};

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

/// Requests a second.
const GETS: u32 = 200;
const POSTS: u32 = 20;

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with the program of one site, and what is beside it.
struct Program(PathBuf);

impl Program {
    fn new(block: u8) -> Self {
        let folder = std::env::temp_dir().join(format!("dolmen-program-{block}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = Self(folder);
        let guestbook = Path::new(DOLMEN).with_file_name("guestbook");
        std::fs::copy(guestbook, program.0.join("guestbook")).unwrap();
        program.put(0);
        program
    }

    fn path(&self) -> PathBuf {
        self.0.join("dolmen")
    }

    /// Puts the build of this number in its place. That with number 0 may be an older release.
    fn put(&self, number: u32) {
        let new = self.0.join("new");
        let older = std::env::var_os("DOLMEN_OLDER").filter(|_| number == 0);
        std::fs::copy(older.as_deref().unwrap_or(DOLMEN.as_ref()), &new).unwrap();
        let mut file = std::fs::File::options().append(true).open(&new).unwrap();
        write!(file, "build {number}").unwrap();
        drop(file);
        std::fs::rename(new, self.path()).unwrap();
    }

    /// Puts something in its place that is no build of dolmen.
    fn put_script(&self, text: &str) {
        let new = self.0.join("new");
        std::fs::File::create(&new).unwrap().write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    /// Whether this process runs the file that lies on disk.
    fn is_run_by(&self, pid: u32) -> bool {
        let inode = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        inode(Path::new(&format!("/proc/{pid}/exe"))) == inode(&self.path())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn record(site: &Site, machine: &str) -> serde_json::Value {
    let text =
        std::fs::read_to_string(site.state().join("machines").join(machine).join("agent.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn agent(site: &Site, machine: &str) -> u32 {
    record(site, machine)["agent"]["pid"].as_u64().unwrap() as u32
}

/// The processes of `up` and of all agents.
fn above(site: &Site, machines: &[&str]) -> Vec<u32> {
    let up = std::fs::read_to_string(site.state().join("up.json")).unwrap();
    let up: serde_json::Value = serde_json::from_str(&up).unwrap();
    let up = up["pid"].as_u64().unwrap() as u32;
    machines.iter().map(|machine| agent(site, machine)).chain([up]).collect()
}

/// Role, name and process of each server.
fn servers(site: &Site) -> Vec<(String, String, u32)> {
    let status = site.status();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let servers = status["servers"].as_array().unwrap().iter();
    servers.map(|s| (text(&s["role"]), text(&s["name"]), s["pid"].as_u64().unwrap() as u32)).collect()
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
}

#[track_caller]
fn nothing_failed(load: Load, what: &str) -> testkit::Report {
    let report = load.finish();
    println!(
        "{what}: {} GET, {} POST, failed {}, slowest {:?}",
        report.gets,
        report.posts,
        report.failed.len(),
        report.slowest
    );
    assert!(report.gets > 0 && report.failed.is_empty(), "{what}: {:?}", report.failed);
    report
}

/// Runs the site by its program; the commands are given by the one that was built, whatever lies on its disk.
fn up(site: &Site, program: &Program) {
    let block = format!("127.0.{}", site.block);
    let ran: Ran = site.by(&program.path(), &["up", "--detach", "--block", &block]).output().unwrap().into();
    ran.fine();
    site.until_healthy();
}

/// Two web servers behind a balancer.
fn web_site(program: &Program, block: u8) -> Site {
    let text = "[machines]\nalpha = \"10.0.0.1\"\nbeta = \"10.0.0.2\"\ngamma = \"10.0.0.3\"\n\
         [balancer]\non = [\"alpha\"]\n[web]\non = [\"beta\", \"gamma\"]\nroot = \"public\"\n";
    let site = Site::new(DOLMEN, block, text);
    std::fs::create_dir_all(site.folder.join("public")).unwrap();
    site.write("public/index.html", "hello\n");
    up(&site, program);
    site
}

/// The process ids of postgres' own servers, by the folder they run in.
fn postmasters(site: &Site) -> Vec<String> {
    ["beta/servers/database-1", "gamma/servers/database-2"]
        .iter()
        .map(|folder| {
            let file = site.state().join("machines").join(folder).join("data/postmaster.pid");
            std::fs::read_to_string(&file).unwrap().lines().next().unwrap().to_owned()
        })
        .collect()
}

/// How many entries of the load the guestbook has, page by page.
fn entries(site: &Site) -> usize {
    let (mut count, mut before) = (0, String::new());
    loop {
        let page = site.get(&format!("/api/entries?limit=200{before}")).json();
        let page = page.as_array().unwrap().clone();
        count += page.iter().filter(|entry| entry["name"] == "load").count();
        match page.last() {
            Some(last) => before = format!("&before={}", last["id"]),
            None => return count,
        }
    }
}

#[test]
fn a_whole_site_is_upgraded_twice_under_load_and_loses_nothing() {
    let program = Program::new(181);
    let site = Site::guestbook(DOLMEN, 181);
    up(&site, &program);
    let machines = ["alpha", "beta", "gamma"];
    let (database, postgres) = (site.status()["database"].clone(), postmasters(&site));
    let mut acknowledged = 0;
    for build in 1..=2 {
        let before = servers(&site);
        let (above_before, began) = (above(&site, &machines), Instant::now());
        let load = Load::begin(site.front(), "/api/entries?limit=1", GETS, POSTS);
        program.put(build);
        until("the agents to notice", PATIENCE, || {
            let notes = site.status()["machines"].as_array().unwrap()[0]["notes"].to_string();
            notes.contains("another build of dolmen lies at").then_some(())
        });
        assert_eq!(servers(&site), before, "noticing is all that an agent does by itself");
        let ran = site.run(&["upgrade"]).fine();
        println!("{}", ran.out);
        assert!(ran.says("www.foobar.com runs dolmen"), "{ran:?}");
        let after = servers(&site);
        for ((role, name, old), (_, _, new)) in before.iter().zip(&after) {
            assert!(program.is_run_by(*new), "{name} runs the new program");
            assert_eq!(old == new, role == "database", "{name}: {old} {new}");
        }
        assert_eq!(above(&site, &machines), above_before, "agents and `up` go on in their processes");
        assert!(above_before.iter().all(|pid| program.is_run_by(*pid)));
        let report = nothing_failed(load, &format!("upgrade {build} of a whole site, {:?}", began.elapsed()));
        acknowledged += report.acknowledged.len();
        // A replica may be a moment behind.
        until("all acknowledged entries", PATIENCE, || (entries(&site) >= acknowledged).then_some(()));
        until("the old processes to be gone", PATIENCE, || {
            let old = before.iter().filter(|(role, _, _)| role != "database");
            old.clone().all(|(_, _, pid)| !lives(*pid)).then_some(())
        });
        let again = site.run(&["upgrade"]).fine();
        assert!(again.says("already"), "{again:?}");
    }
    assert_eq!(postmasters(&site), postgres, "postgres was not touched");
    let now = site.status()["database"].clone();
    assert_eq!(
        (&now["primary"], &now["timeline"]),
        (&database["primary"], &database["timeline"]),
        "no failover"
    );
    site.until_healthy();
}

/// Answers each connection with 101 and then sends back what comes, or with a body that takes its time.
fn origin(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::Builder::new().stack_size(64 * 1024).spawn(move || drop(answer(stream))).unwrap();
        }
    });
}

/// A body of so many pieces, one every few milliseconds.
const PIECES: usize = 400;
const PIECE: [u8; 256] = [b'x'; 256];
const BETWEEN: Duration = Duration::from_millis(25);

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    loop {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        if head.windows(9).any(|window| window.eq_ignore_ascii_case(b"websocket")) {
            break;
        }
        if head.starts_with(b"GET /slow") {
            let length = PIECES * PIECE.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
            for _ in 0..PIECES {
                stream.write_all(&PIECE)?;
                std::thread::sleep(BETWEEN);
            }
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        head.clear();
    }
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    )?;
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn request(front: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(front).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn tunnel(front: SocketAddr) -> TcpStream {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let text =
        format!("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n");
    let mut stream = request(front, &text);
    assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
    stream
}

#[track_caller]
fn all_live(tunnels: &mut [TcpStream]) {
    for (number, stream) in tunnels.iter_mut().enumerate() {
        let (sent, mut came) = ([number as u8], [0]);
        stream.write_all(&sent).unwrap();
        stream.read_exact(&mut came).unwrap();
        assert_eq!(came, sent);
    }
}

fn balancer_site(program: &Program, block: u8) -> Site {
    let server = SocketAddr::from(([127, 0, block, 200], 9000));
    origin(server);
    let site = Site::new(DOLMEN, block, &format!("[balancer]\nservers = [\"{server}\"]\n"));
    up(&site, program);
    site
}

#[test]
fn tunnels_and_a_long_download_outlive_two_upgrades_and_end_at_the_deadline() {
    let program = Program::new(182);
    let site = balancer_site(&program, 182);
    let count = if std::env::var_os("DOLMEN_DRILL_ROUNDS").is_some() { 300 } else { 50 };
    let mut tunnels: Vec<TcpStream> = (0..count).map(|_| tunnel(site.front())).collect();
    let mut download = request(site.front(), "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    let load = Load::begin(site.front(), "/", GETS, 0);
    let first = site.pid("balancer-1");
    program.put(1);
    site.run(&["upgrade"]).fine();
    let second = site.pid("balancer-1");
    assert_ne!(first, second);
    assert_eq!(site.server("balancer-1")["finishing"], serde_json::json!([first]));
    let mut later = vec![tunnel(site.front())];
    program.put(2);
    // The one that is replaced now has five seconds; the first one still has its hour.
    site.run(&["upgrade", "--drain", "5"]).fine();
    all_live(&mut tunnels);
    assert!(head(&mut download).starts_with("HTTP/1.1 200 "));
    let mut body = vec![0; PIECES * PIECE.len()];
    download.read_exact(&mut body).unwrap();
    assert!(body.iter().all(|byte| *byte == b'x'));
    until("the second process to end at its deadline", PATIENCE, || (!lives(second)).then_some(()));
    assert_eq!(later[0].read(&mut [0]).unwrap_or(0), 0, "its tunnel ended with it");
    all_live(&mut tunnels);
    assert!(lives(first));
    // An agent that dies finds the one that finishes, and the site can be stopped with it.
    let machine = site.status()["machines"][0]["name"].as_str().unwrap().to_owned();
    kill(agent(&site, &machine));
    until("a new agent", PATIENCE, || {
        let ran = site.run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&ran.out).ok()?;
        (status["servers"][0]["finishing"] == serde_json::json!([first])).then_some(())
    });
    all_live(&mut tunnels);
    nothing_failed(load, "two upgrades with tunnels and a download");
    tunnels.clear();
    until("the first process to end with its tunnels", PATIENCE, || (!lives(first)).then_some(()));
    later.push(tunnel(site.front()));
    program.put(3);
    site.run(&["upgrade"]).fine();
    // Dropping the site asserts that `stop` leaves no process, with one that has an hour to finish.
}

#[test]
fn a_program_that_cannot_take_over_is_refused_and_nothing_changes() {
    let program = Program::new(183);
    let site = web_site(&program, 183);
    let (before, above_before) = (servers(&site), above(&site, &["alpha", "beta", "gamma"]));
    let load = Load::begin(site.front(), "/", GETS, 0);
    let refused = |what: &str, says: &str| {
        let ran = site.run(&["upgrade"]);
        assert!(ran.code == 1 && ran.says(says) && ran.says("nothing was changed"), "{what}: {ran:?}");
        assert_eq!(servers(&site), before, "{what}");
        assert_eq!(above(&site, &["alpha", "beta", "gamma"]), above_before, "{what}");
    };
    program.put_script("echo it lacks a library >&2; exit 127");
    refused("a program that does not start", "it lacks a library");
    program.put_script("exit 0");
    refused("a program that says nothing", "does not answer as a dolmen does");
    program.put_script("echo '{\"build\":{\"version\":\"9.0.0\",\"id\":\"abc\"},\"link\":99,\"api\":1}'");
    refused("a program of a later link", "speaks version 99 of the link");
    program.put_script("echo \"error: the state folder has format 1, this dolmen reads 7\" >&2; exit 1");
    refused("a program of another state format", "this dolmen reads 7");
    let whole = std::fs::read(DOLMEN).unwrap();
    std::fs::File::create(program.0.join("new")).unwrap().write_all(&whole[..64 * 1024]).unwrap();
    std::fs::set_permissions(program.0.join("new"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(program.0.join("new"), program.path()).unwrap();
    refused("the beginning of a program", "nothing was changed");
    std::fs::remove_file(program.path()).unwrap();
    refused("no program", "cannot be run");
    until("a note of it", PATIENCE, || {
        let status = site.run(&["status"]);
        (status.code == 0 && status.says("cannot be found")).then_some(())
    });
    nothing_failed(load, "programs that were refused");
    program.put(1);
    let check = site.run(&["upgrade", "--check"]).fine();
    assert!(check.says("it can take over"), "{check:?}");
    assert_eq!(servers(&site), before);
    site.run(&["upgrade"]).fine();
    assert!(servers(&site).iter().all(|(_, _, pid)| program.is_run_by(*pid)));
}

#[test]
fn whoever_is_killed_in_the_middle_the_next_upgrade_goes_on() {
    let program = Program::new(184);
    let site = web_site(&program, 184);
    let load = Load::begin(site.front(), "/", GETS, 0);
    // The moments are spread over what an upgrade takes, by how far the last whole one came.
    program.put(0);
    let began = Instant::now();
    site.run(&["upgrade"]).fine();
    let whole = began.elapsed();
    for (round, victim) in ["alpha", "command", "beta", "command", "gamma", "beta"].into_iter().enumerate() {
        program.put(round as u32 + 1);
        let mut upgrade =
            site.command(&["upgrade"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f32((round as f32 + 1.0) / 7.0));
        match victim {
            "command" => upgrade.kill().unwrap(),
            machine => kill(agent(&site, machine)),
        }
        upgrade.wait().unwrap();
        until("an upgrade to its end", PATIENCE, || (site.run(&["upgrade"]).code == 0).then_some(()));
        let all = servers(&site);
        assert!(all.iter().all(|(_, _, pid)| program.is_run_by(*pid)), "{victim} killed: {all:?}");
        let above = above(&site, &["alpha", "beta", "gamma"]);
        assert!(above.iter().all(|pid| program.is_run_by(*pid)), "{victim} killed: {above:?}");
    }
    nothing_failed(load, "upgrades that were killed in the middle");
    site.until_healthy();
}

#[test]
fn what_up_starts_after_an_upgrade_is_the_new_program() {
    let program = Program::new(185);
    let site = web_site(&program, 185);
    // The way of those who keep the old file: what runs would follow it to its new name.
    std::fs::rename(program.path(), program.0.join("dolmen.old")).unwrap();
    program.put(1);
    site.run(&["upgrade"]).fine();
    let before = agent(&site, "beta");
    kill(before);
    until("a new agent", PATIENCE, || {
        (agent(&site, "beta") != before && lives(agent(&site, "beta"))).then_some(())
    });
    assert!(program.is_run_by(agent(&site, "beta")));
    site.until_healthy();
    let pid = site.pid("web-1");
    kill(pid);
    let now = until("a new server", PATIENCE, || {
        let now = site.server("web-1")["pid"].as_u64()? as u32;
        (now != pid).then_some(now)
    });
    assert!(program.is_run_by(now));
}
