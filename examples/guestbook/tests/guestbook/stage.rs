//! A PostgreSQL primary, a streaming replica and workers of the guestbook, on one loopback address, in one
//! folder, all gone when the stage is dropped, or when the test dies.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// Whom PostgreSQL runs as when the tests run as root, whom it refuses: `nobody`, who is everywhere.
const NOBODY: u32 = 65534;

pub(crate) struct Stage {
    address: &'static str,
    folder: PathBuf,
    programs: PathBuf,
    ports: [u16; 2],
    primary: Option<Child>,
    replica: Option<Child>,
}

pub(crate) struct Worker {
    address: &'static str,
    port: u16,
    process: Child,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    head: String,
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(PAUSE);
    }
}

impl Stage {
    /// Addresses are given out, nothing runs.
    pub(crate) fn empty(address: &'static str) -> Self {
        let folder = std::env::temp_dir().join(format!("guestbook-{address}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        if is_root() {
            chown(&folder, Some(NOBODY), None).unwrap();
        }
        let ports = [free_port(address), free_port(address)];
        Self { address, folder, programs: postgres_programs(), ports, primary: None, replica: None }
    }

    pub(crate) fn start_primary(&mut self) {
        let data = self.folder.join("primary");
        if !data.exists() {
            self.run("initdb", &["-D", path(&data), "-U", "owner", "-A", "trust", "--no-sync", "-E", "UTF8"]);
            let rule = |what| format!("host {what} all 127.0.0.0/8 trust\n");
            let mut rules = fs::File::create(data.join("pg_hba.conf")).unwrap();
            rules.write_all((rule("all") + &rule("replication")).as_bytes()).unwrap();
        }
        self.primary = Some(self.serve(&data, self.ports[0]));
        self.psql("select 1");
    }

    pub(crate) fn start_replica(&mut self) {
        let (data, port) = (self.folder.join("replica"), self.ports[0].to_string());
        let from = ["-h", self.address, "-p", &port, "-U", "owner", "-D", path(&data)];
        self.run("pg_basebackup", &[&from[..], &["-R", "-c", "fast", "--no-sync"]].concat());
        self.replica = Some(self.serve(&data, self.ports[1]));
        let streaming = "select count(*) from pg_stat_replication where state = 'streaming'";
        until("the replica streams", || self.psql(streaming) == "1");
        self.psql_replica("select 1");
    }

    pub(crate) fn stop_primary(&mut self) {
        end(self.primary.take().unwrap(), "INT");
    }

    pub(crate) fn stop_replica(&mut self) {
        end(self.replica.take().unwrap(), "INT");
    }

    pub(crate) fn psql(&self, statement: &str) -> String {
        self.ask(self.ports[0], statement)
    }

    pub(crate) fn psql_replica(&self, statement: &str) -> String {
        self.ask(self.ports[1], statement)
    }

    pub(crate) fn worker(&self) -> Worker {
        let port = free_port(self.address);
        let url = |port| format!("postgres://owner@{}:{port}/postgres", self.address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_guestbook"));
        command.env("HOST", self.address).env("PORT", port.to_string()).env("DOLMEN_SERVER", "app-1");
        command.env("DATABASE_URL", url(self.ports[0])).env("DATABASE_REPLICA_URL", url(self.ports[1]));
        let worker = Worker { address: self.address, port, process: command.spawn().unwrap() };
        until("a worker listens", || TcpStream::connect((worker.address, port)).is_ok());
        worker
    }

    pub(crate) fn ready_worker(&self) -> Worker {
        let worker = self.worker();
        until("a worker is ready", || worker.get("/healthz").status == 200);
        worker
    }

    /// Asks until the database answers.
    fn ask(&self, port: u16, statement: &str) -> String {
        let url = format!("postgres://owner@{}:{port}/postgres", self.address);
        let mut answer = None;
        until("the database answers", || {
            let output = Command::new(self.programs.join("psql")).args(["-XAtqc", statement, &url]).output();
            let output = output.unwrap();
            answer = output.status.success().then(|| String::from_utf8(output.stdout).unwrap());
            answer.is_some()
        });
        answer.unwrap().trim().to_owned()
    }

    fn serve(&self, data: &Path, port: u16) -> Child {
        let mut command = self.postgres("postgres");
        command.args(["-D", path(data), "-h", self.address, "-p", &port.to_string(), "-k", ""]);
        command.args(["-c", "fsync=off", "-c", "shared_buffers=8MB", "-c", "wal_level=replica"]);
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.postgres(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A program of PostgreSQL, not as root, and not for longer than the test.
    fn postgres(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]);
        if is_root() {
            let id = NOBODY.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        }
        command.arg(self.programs.join(program)).current_dir(&self.folder).stdout(Stdio::null());
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for server in [self.replica.take(), self.primary.take()].into_iter().flatten() {
            end(server, "INT");
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Worker {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask_with("GET", path, &[], "")
    }

    pub(crate) fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        self.ask_with(method, path, &[("Content-Type", kind)], body)
    }

    pub(crate) fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect((self.address, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, body: body.to_owned(), head: head.to_owned() }
    }

    pub(crate) fn stop(&mut self) -> ExitStatus {
        signal(&self.process, "TERM");
        self.process.wait().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn end(mut server: Child, how: &str) {
    signal(&server, how);
    let deadline = Instant::now() + PATIENCE;
    while server.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = server.kill();
        }
        std::thread::sleep(PAUSE);
    }
}

fn signal(process: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Free now. Another program could take it before we do; on an address of our own none does.
fn free_port(address: &str) -> u16 {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

/// Debian keeps the servers' programs off PATH.
fn postgres_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&on_path));
    let has_it = |folder: &PathBuf| folder.join("postgres").exists() && folder.join("initdb").exists();
    folders.into_iter().find(has_it).expect("PostgreSQL is installed; `make test` does it")
}
