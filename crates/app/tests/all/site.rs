//! A site with one app server, how to start it, and how to look at it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use link::board::Board;
use link::report::Report;
use link::{Line, Order, Secret, Secrets, Sockets, Start};
use plan::{App, Database, Listen, Machine, Place, Plan, Role, Server, SocketKind, Timeouts, Value};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The interpreter itself, without the wrapper scripts that some machines put before it.
static PYTHON: LazyLock<String> = LazyLock::new(|| {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let output = output.expect("python3 is installed (package python3): run make test, which installs it");
    assert!(output.status.success(), "python3 runs");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
});

/// The command line of the small application.
pub(crate) fn python(arguments: &str) -> String {
    format!("{} {arguments}", *PYTHON)
}

/// Folders of one test, removed at its end.
pub(crate) struct Site {
    pub(crate) root: PathBuf,
    pub(crate) plan: Plan,
    pub(crate) secrets: Secrets,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Site {
    /// `last` is the last number of the machine's address: one for each test.
    pub(crate) fn new(last: u8, command: &str) -> Self {
        let root = std::env::temp_dir().join(format!("dolmen-app-{}-{last}", std::process::id()));
        Self::at(root, last, command)
    }

    pub(crate) fn at(root: PathBuf, last: u8, command: &str) -> Self {
        for folder in ["files", "folder", "programs"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::copy(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/worker.py"),
            root.join("files/worker.py"),
        )
        .unwrap();
        let mut secrets = Secrets::default();
        secrets.insert("app-password", Secret::new("p@ss word"));
        secrets.insert("environment.TOKEN", Secret::new("hidden"));
        Self { root, plan: plan(last, command), secrets }
    }

    pub(crate) fn app(&mut self) -> &mut App {
        self.plan.app.as_mut().unwrap()
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    pub(crate) fn script(&self, name: &str, text: &str) {
        std::fs::File::create(self.files().join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Starts the server in a thread of this process.
    pub(crate) fn start(&self) -> Running {
        let (start, mut running) = self.prepare();
        running.thread = Some(std::thread::spawn(move || app::run(start)));
        running
    }

    pub(crate) fn prepare(&self) -> (Start, Running) {
        let me = self.plan.role(Role::App).next().unwrap().clone();
        let listener = TcpListener::bind((me.address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut sockets = Sockets::default();
        sockets.insert("http", listener);
        let (line, orders, _) = Line::unattached();
        let board = Board::create().unwrap();
        let start = Start {
            me,
            plan: Arc::new(self.plan.clone()),
            folder: self.root.join("folder"),
            files: self.files(),
            programs: self.root.join("programs"),
            sockets,
            board: Some(board.clone()),
            secrets: self.secrets.clone(),
            succeeds: false,
            line: line.clone(),
        };
        (start, Running { address, board, line, orders, thread: None })
    }
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) board: Board,
    pub(crate) line: Line,
    orders: tokio::sync::watch::Sender<Order>,
    thread: Option<JoinHandle<Result<(), app::Error>>>,
}

impl Running {
    pub(crate) fn report(&self) -> Report {
        self.line.last_report()
    }

    /// Waits until the server says this of itself.
    #[track_caller]
    pub(crate) fn says(&self, because: &str) -> Report {
        let said = |report: &Report| report.because == because;
        wait(|| said(&self.report()), || format!("expected {because:?}, got {:?}", self.report()));
        self.report()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.address, path)
    }

    pub(crate) fn order_stop(&self, within: Duration) {
        self.orders.send_replace(Order::Stop { within });
    }

    /// Waits for the end, and says how long it took.
    pub(crate) fn wait(mut self) -> Duration {
        let begin = Instant::now();
        self.thread.take().unwrap().join().unwrap().unwrap();
        begin.elapsed()
    }

    pub(crate) fn stop(self) {
        self.order_stop(Duration::from_secs(5));
        self.wait();
    }
}

/// What a failed test leaves running would disturb the next one.
impl Drop for Running {
    fn drop(&mut self) {
        self.order_stop(Duration::from_millis(500));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait(condition: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process lives; one that ended and was not yet seen by its parent does not.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

fn plan(last: u8, command: &str) -> Plan {
    let address = IpAddr::from([127, 0, 42, last]);
    let listen = |name: &str, port| Listen {
        name: name.into(),
        kind: SocketKind::Tcp,
        address: SocketAddr::new(address, port),
        held: true,
        sockets: 1,
    };
    let server = |name: &str, role, listen| Server {
        name: name.into(),
        role,
        machine: "beta".into(),
        address,
        listen,
    };
    let timeouts = Timeouts {
        header_ms: 5_000,
        idle_ms: 5_000,
        connect_ms: 1_000,
        first_byte_ms: 30_000,
        body_ms: 5_000,
        tunnel_ms: 5_000,
    };
    let environment = BTreeMap::from([
        ("COLOUR".to_owned(), Value::Plain("blue".into())),
        ("TOKEN".to_owned(), Value::Env("SOMEWHERE".into())),
    ]);
    Plan {
        format: plan::FORMAT,
        generation: 1,
        site: "www.foobar.com".into(),
        domain: Some("www.foobar.com".into()),
        place: Place::Up { block: 42 },
        machines: vec![Machine {
            name: "beta".into(),
            address,
            public: Vec::new(),
            agent: SocketAddr::new(address, 7400),
        }],
        servers: vec![
            server("app-1", Role::App, vec![listen("http", 8082)]),
            server("gate-1", Role::Gate, vec![listen("read-write", 6432), listen("read-only", 6433)]),
        ],
        dns: None,
        balancer: None,
        web: None,
        app: Some(App {
            command: command.into(),
            workers: 2,
            health: "/health".into(),
            environment,
            start_ms: 15_000,
            stop_ms: 5_000,
            timeouts,
        }),
        database: Some(Database {
            url: None,
            synchronous: false,
            strict: false,
            lease_ms: 3000,
            name: "app".into(),
            settings: BTreeMap::new(),
        }),
        drained: Vec::new(),
        control: None,
        encrypted: false,
        not_served: Vec::new(),
    }
}
