//! A small agent for tests: starts servers as processes of their own, under an account that PostgreSQL accepts,
//! welcomes them over the real link, keeps their last reports and passes them on to gates.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use database::group::Group;
use link::agent_end::{Down, Knock, Peer, Up, Welcome};
use link::control::{Control, Memory};
use link::report::{MachineReport, MachineState, Report, ServerReport, SiteReport, State};
use link::{Secret, Secrets};
use plan::{Database, Listen, Machine, Place, Plan, Role, Server, SocketKind};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// The longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// One site with its own addresses and its own folder, which goes when the value goes.
pub(crate) struct Site {
    pub(crate) root: PathBuf,
    pub(crate) plan: Plan,
    /// What the machines agree on.
    pub(crate) control: Memory,
    account: Option<(u32, u32)>,
    seen: Arc<Seen>,
}

struct Seen {
    begun: Instant,
    servers: Mutex<BTreeMap<String, ServerReport>>,
    changed: Condvar,
    gates: Mutex<Vec<Peer>>,
}

/// A running server; killed when it goes.
pub(crate) struct Running {
    pub(crate) process: Child,
    peer: Arc<Mutex<Peer>>,
}

impl Site {
    /// `first` is the last number of the address of the first of three machines. `within` makes a deep folder.
    pub(crate) fn new(name: &str, first: u8, within: &str) -> Self {
        let root = std::env::temp_dir().join(format!("dolmen-{name}-{}", std::process::id())).join(within);
        std::fs::create_dir_all(&root).unwrap();
        let control = Memory::default();
        super::control::serve(control.clone(), &control_socket());
        std::fs::set_permissions(control_socket(), PermissionsExt::from_mode(0o666)).unwrap();
        Self { root, plan: plan(first), control, account: account(), seen: Arc::new(Seen::new()) }
    }

    pub(crate) fn folder(&self, server: &str) -> PathBuf {
        self.root.join(server)
    }

    pub(crate) fn start(&self, server: &str) -> Running {
        self.seen.servers.lock().unwrap().remove(server);
        let folder = self.folder(server);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        if let Some((user, group)) = self.account {
            std::os::unix::fs::chown(&folder, Some(user), Some(group)).unwrap();
        }
        let socket = self.root.join(format!("{server}.sock"));
        let listener = link::short_path::listen(&socket).unwrap();
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let process = self.spawn(server, &socket);
        let hello = Knock::of(listener.accept().unwrap().0).unwrap().hello().unwrap();
        let holds = self.listeners(server);
        let names: Vec<String> = holds.iter().map(|(name, _)| name.clone()).collect();
        let descriptors: Vec<OwnedFd> = holds.into_iter().map(|(_, listener)| listener.into()).collect();
        let (plan, root, name) = (self.plan.clone(), self.root.clone(), server.to_owned());
        let (files, programs) = (root.clone(), root);
        let welcome = move || Welcome {
            given: link::Given {
                plan: plan.clone(),
                files: files.clone(),
                programs: programs.clone(),
                secrets: secrets(),
            },
            succeeds: false,
            server: name.clone(),
            folder: folder.clone(),
            holds: names.clone(),
        };
        let greet = {
            let (seen, server) = (Arc::clone(&self.seen), self.plan.server(server).unwrap().clone());
            move |peer: &Peer| {
                peer.welcome(welcome(), &descriptors).unwrap();
                // Its sockets listen from the beginning, so that a gate can hold who comes early.
                peer.send(&Down::Admit).unwrap();
                read_reports(Arc::clone(&seen), server.clone(), peer.second().unwrap());
            }
        };
        greet(&hello.peer);
        if self.plan.server(server).unwrap().role == Role::Gate {
            self.seen.gates.lock().unwrap().push(hello.peer.second().unwrap());
            self.seen.tell_gates();
        }
        let current = Arc::new(Mutex::new(hello.peer));
        let peer = Arc::clone(&current);
        if self.plan.server(server).unwrap().role == Role::Gate {
            // Its sockets are its own from here on: a successor binds them anew.
            return Running { process, peer };
        }
        // The same process comes again after it has become a new binary.
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let Some(hello) = Knock::of(stream).ok().and_then(|knock| knock.hello().ok()) else {
                    continue;
                };
                greet(&hello.peer);
                *current.lock().unwrap() = hello.peer;
            }
        });
        Running { process, peer }
    }

    /// A server. The kernel ends it when this test ends, however that ends.
    fn spawn(&self, server: &str, socket: &Path) -> Child {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some((user, group)) = self.account {
            command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups");
        }
        command.arg(env!("CARGO_BIN_EXE_database-process")).arg(socket).arg(server);
        command.arg(control_socket()).current_dir("/");
        let output = std::fs::File::create(self.root.join(format!("{server}.out"))).unwrap();
        command.stdout(Stdio::from(output.try_clone().unwrap())).stderr(Stdio::from(output)).spawn().unwrap()
    }

    fn listeners(&self, server: &str) -> Vec<(String, TcpListener)> {
        let held = self.plan.server(server).unwrap().listen.iter().filter(|listen| listen.held);
        held.map(|listen| (listen.name.clone(), TcpListener::bind(listen.address).unwrap())).collect()
    }

    /// Waits until a server's report is as wanted.
    #[track_caller]
    pub(crate) fn wait(&self, server: &str, wanted: impl Fn(&ServerReport) -> bool) -> ServerReport {
        let deadline = Instant::now() + DEADLINE;
        let mut servers = self.seen.servers.lock().unwrap();
        loop {
            if let Some(report) = servers.get(server)
                && wanted(report)
            {
                return report.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{server} never became that; last: {:?}\n{}",
                servers.get(server),
                self.logs(server)
            );
            servers = self.seen.changed.wait_timeout(servers, left).unwrap().0;
        }
    }

    #[track_caller]
    pub(crate) fn healthy(&self, server: &str) -> ServerReport {
        self.wait(server, |report| report.state == State::Healthy)
    }

    /// The replica streams and the primary has noticed, so that commits wait for it.
    #[track_caller]
    pub(crate) fn synchronous(&self) {
        self.settled();
    }

    /// The record as it is now.
    pub(crate) fn group(&self) -> Group {
        let seen = self.control.watch(database::group::KEY).borrow().clone();
        serde_json::from_value(seen.expect("a record").record.value).unwrap()
    }

    /// Waits until one server is the primary, the other streams from it, and commits wait for that; says which
    /// is which.
    #[track_caller]
    pub(crate) fn settled(&self) -> (String, String) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let group = self.group();
            let members: Vec<String> = group.synchronous.members.iter().cloned().collect();
            if let (true, [replica]) = (group.is_open(), &members[..]) {
                let servers = self.seen.servers.lock().unwrap();
                let streams = |server: &str| {
                    servers
                        .get(server)
                        .and_then(|report| report.database.as_ref())
                        .is_some_and(|own| own.streaming)
                };
                if streams(replica) && !streams(&group.holder) {
                    return (group.holder, replica.clone());
                }
            }
            let logs = || [self.logs("database-1"), self.logs("database-2")].concat();
            assert!(Instant::now() < deadline, "never settled: {group:?}\n{}", logs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The gate knows of the replica.
    #[track_caller]
    pub(crate) fn gate_ready(&self) {
        self.wait("gate-1", |report| {
            report.state == State::Healthy && report.because.contains("over 1 replica")
        });
    }

    /// What its process wrote.
    pub(crate) fn output(&self, server: &str) -> String {
        std::fs::read_to_string(self.root.join(format!("{server}.out"))).unwrap()
    }

    fn logs(&self, server: &str) -> String {
        let tail = |path: PathBuf| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text[text.floor_char_boundary(text.len().saturating_sub(3000))..].to_owned()
        };
        let output = self.root.join(format!("{server}.out"));
        format!("--- output\n{}\n--- log\n{}", tail(output), tail(self.folder(server).join("postgres.log")))
    }

    /// A client of the application, at the address that a server listens on under this name.
    pub(crate) async fn client(&self, server: &str, listen: &str) -> Result<App, tokio_postgres::Error> {
        let address = self.plan.server(server).unwrap().listens(listen).unwrap();
        let mut config = tokio_postgres::Config::new();
        config.host(address.ip().to_string()).port(address.port());
        config.user("guestbook").password("app's secret").dbname("guestbook");
        let connected = tokio::time::timeout(DEADLINE, config.connect(NoTls)).await;
        let (client, connection) = connected.expect("an answer, good or bad, within the deadline")?;
        Ok(App { client, connection: tokio::spawn(connection) })
    }

    /// What a query of the superuser says, by the Unix socket: root is nobody there, in the namespace of postgres.
    #[track_caller]
    pub(crate) fn sql(&self, server: &str, text: &str) -> String {
        let program = database::find_psql().unwrap();
        let mut psql = match self.account {
            None => Command::new(program),
            Some((user, group)) => {
                let mut as_account = Command::new("setpriv");
                as_account.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
                as_account.arg("--clear-groups").arg(program);
                as_account
            }
        };
        psql.args(["-XAtqU", "postgres", "-d", "guestbook", "-p", "5432", "-h"]);
        psql.arg(self.folder(server).join("socket")).args(["-c", text]).current_dir("/");
        let ran = psql.output().unwrap();
        assert!(ran.status.success(), "{text}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// The postmaster: the process on the data directory whose parent is not one too. Its own number in
    /// postmaster.pid counts only inside of its namespace.
    pub(crate) fn postmaster(&self, server: &str) -> u32 {
        let data = self.folder(server).join("data").canonicalize().unwrap();
        let here = |pid: u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
        let top = processes().find(|pid| here(*pid) && parent(*pid).is_some_and(|parent| !here(parent)));
        top.expect("a running postgres")
    }

    /// The guard of a server's postgres.
    pub(crate) fn guard(&self, server: &str) -> u32 {
        parent(self.postmaster(server)).unwrap()
    }

    /// How many processes have their current folder in this site.
    pub(crate) fn processes(&self) -> usize {
        let root = self.root.canonicalize().unwrap();
        let in_site = |pid: &u32| {
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&root))
        };
        processes().filter(in_site).count()
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Each test is a process of its own. Not in the site's folder, since the path of a socket is short.
fn control_socket() -> PathBuf {
    std::env::temp_dir().join(format!("dolmen-control-{}.sock", std::process::id()))
}

impl Site {
    /// What dropping it does.
    pub(crate) fn remove(&self) {
        std::fs::remove_file(control_socket()).unwrap();
        let mut top = self.root.as_path();
        while let Some(parent) = top.parent()
            && parent != std::env::temp_dir()
        {
            top = parent;
        }
        // Kept when a test failed, to be looked at.
        if !std::thread::panicking() {
            std::fs::remove_dir_all(top).unwrap();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.remove();
    }
}

fn read_reports(seen: Arc<Seen>, server: Server, peer: Peer) {
    std::thread::spawn(move || {
        loop {
            match peer.receive() {
                Ok(Up::Report(report)) => seen.report(&server, report),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
}

impl Seen {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            servers: Mutex::default(),
            changed: Condvar::new(),
            gates: Mutex::default(),
        }
    }

    fn report(&self, server: &Server, report: Report) {
        let Report { state, because, database, .. } = report;
        let report = ServerReport {
            generation: 1,
            did: String::new(),
            refused: false,
            name: server.name.clone(),
            role: server.role,
            machine: server.machine.clone(),
            pid: None,
            state,
            because,
            listen: Vec::new(),
            counters: BTreeMap::new(),
            traffic: Vec::new(),
            other_build: false,
            finishing: Vec::new(),
            database,
        };
        println!(
            "{:5.2} {}: {}: {}",
            self.begun.elapsed().as_secs_f32(),
            report.name,
            report.state,
            report.because
        );
        self.servers.lock().unwrap().insert(server.name.clone(), report);
        self.changed.notify_all();
        self.tell_gates();
    }

    fn tell_gates(&self) {
        let servers = self.servers.lock().unwrap().values().cloned().collect();
        let machine = MachineReport {
            name: "all".into(),
            address: String::new(),
            state: MachineState::Up,
            because: String::new(),
            notes: Vec::new(),
            servers,
        };
        let site = Down::Site(SiteReport { machines: vec![machine] });
        self.gates.lock().unwrap().retain(|gate| gate.send(&site).is_ok());
    }
}

impl Running {
    /// Orders it to stop and waits for its end.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.stop_within(10_000);
    }

    #[track_caller]
    pub(crate) fn stop_within(mut self, within_ms: u64) {
        self.peer.lock().unwrap().send(&Down::Stop { within_ms }).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            self.kill();
        }
    }
}

/// A client of the application.
pub(crate) struct App {
    client: Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl App {
    pub(crate) async fn number(&self, query: &str) -> Result<i64, tokio_postgres::Error> {
        Ok(self.client.query_one(query, &[]).await?.get(0))
    }

    pub(crate) async fn text(&self, query: &str) -> String {
        self.client.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Ends the connection and waits until that has gone out.
    pub(crate) async fn close(self) {
        drop(self.client);
        self.connection.await.unwrap().unwrap();
    }
}

impl Deref for App {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Waits for a condition that no report tells.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// PostgreSQL refuses to run as root, and initdb refuses an account without an entry in the system's list.
fn account() -> Option<(u32, u32)> {
    let id = |which: &str, account: &str| -> Option<u32> {
        let output = Command::new("id").args([which, account]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().ok()
    };
    let me = Command::new("id").arg("-u").output().unwrap();
    if me.stdout != b"0\n" {
        return None;
    }
    if id("-u", "dolmen-db").is_none() {
        // Another test may make it at the same moment: what counts is that it is there afterwards.
        let made = Command::new("useradd")
            .args(["--system", "--no-create-home", "--user-group", "dolmen-db"])
            .output();
        println!("{made:?}");
    }
    Some((id("-u", "dolmen-db").expect("the account dolmen-db"), id("-g", "dolmen-db").expect("its group")))
}

fn secrets() -> Secrets {
    let mut secrets = Secrets::default();
    secrets.insert("app-password", Secret::new("app's secret"));
    secrets.insert("replication-password", Secret::new("re:plic\\ation"));
    secrets
}

fn plan(first: u8) -> Plan {
    let address = |number: u8| Ipv4Addr::new(127, 0, 41, first + number);
    let machines = ["alpha", "beta", "gamma"];
    let machine = |(number, name): (usize, &&str)| Machine {
        name: (*name).to_owned(),
        address: address(number as u8).into(),
        public: Vec::new(),
        agent: SocketAddr::from((address(number as u8), 7400)),
    };
    let server = |name: &str, role, number: u8, listens: &[(&str, u16, bool)]| Server {
        name: name.to_owned(),
        role,
        machine: machines[usize::from(number)].to_owned(),
        address: address(number).into(),
        listen: listens
            .iter()
            .map(|(name, port, held)| Listen {
                name: (*name).to_owned(),
                kind: SocketKind::Tcp,
                address: SocketAddr::from((address(number), *port)),
                held: *held,
                sockets: 1,
            })
            .collect(),
    };
    let gate = [("read-write", 6432, true), ("read-only", 6433, true)];
    let postgres = [("postgres", 5432, false)];
    Plan {
        format: plan::FORMAT,
        generation: 1,
        site: "www.foobar.com".into(),
        domain: None,
        place: Place::Up { block: 41 },
        machines: machines.iter().enumerate().map(machine).collect(),
        servers: vec![
            server("gate-1", Role::Gate, 0, &gate),
            server("database-1", Role::Database, 1, &postgres),
            server("database-2", Role::Database, 2, &postgres),
        ],
        dns: None,
        balancer: None,
        web: None,
        app: None,
        database: Some(Database {
            url: None,
            synchronous: true,
            strict: false,
            lease_ms: 3000,
            name: "guestbook".into(),
            settings: BTreeMap::from([
                ("work_mem".to_owned(), "8MB".to_owned()),
                ("shared_buffers".to_owned(), "16MB".to_owned()),
            ]),
        }),
        drained: Vec::new(),
        control: None,
        encrypted: false,
        not_served: Vec::new(),
    }
}
