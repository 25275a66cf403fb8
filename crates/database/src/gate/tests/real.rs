//! A whole gate before real PostgreSQL servers, with control in memory.
//!
//! The servers do not replicate: what a gate must get right is which of them it leads to, and when.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use link::control::{Control, Memory};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::*;
use crate::group::{Group, KEY, Mode, Phase};

/// The longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(60);

const WITHIN: Duration = Duration::from_secs(1);

/// A real server with one empty table, killed with all its processes when the value goes.
struct Postgres {
    process: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Postgres {
    async fn start(name: &str, address: [u8; 4], settings: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("dolmen-gate-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let account = account();
        if let Some((user, group)) = account {
            std::os::unix::fs::chown(&folder, Some(user), Some(group)).unwrap();
        }
        let bin = crate::find_postgres().unwrap().bin;
        let data = folder.join("data");
        let run = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).current_dir("/").process_group(0);
            if let Some((user, group)) = account {
                command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups");
            }
            command.arg(bin.join(program)).arg("-D").arg(&data).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "--no-locale"];
        assert!(run("initdb").args(options).status().unwrap().success());
        let mut access = std::fs::OpenOptions::new().append(true).open(data.join("pg_hba.conf")).unwrap();
        writeln!(access, "host all all 127.0.0.0/8 trust").unwrap();
        let address = SocketAddr::from((address, 5432));
        let listen = format!("listen_addresses={}", address.ip());
        let mut command = run("postgres");
        let own = [listen.as_str(), "unix_socket_directories=", "fsync=off", "shared_buffers=16MB"];
        for setting in own.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let server = Self { process: command.spawn().unwrap(), folder, address };
        let client = server.client().await;
        client.batch_execute("SET synchronous_commit = local; CREATE TABLE entry (id int)").await.unwrap();
        server
    }

    /// Past the gate.
    async fn client(&self) -> Client {
        let begun = Instant::now();
        loop {
            match session(self.address).await {
                Ok(client) => return client,
                Err(error) => assert!(begun.elapsed() < DEADLINE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn entries(&self) -> usize {
        number(&self.client().await, "SELECT count(*) FROM entry").await
    }

    /// The same once the last session of the gate has ended: a statement under way is finished even so.
    async fn entries_in_the_end(&self) -> usize {
        let (watcher, begun) = (self.client().await, Instant::now());
        let others = "SELECT count(*) FROM pg_stat_activity \
                      WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        while number(&watcher, others).await > 0 {
            assert!(begun.elapsed() < DEADLINE, "sessions go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(watcher);
        self.entries().await
    }

    /// Stops every process of it where it stands.
    fn freeze(&self) {
        let children = |pid: u32| {
            let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            list.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()).collect::<Vec<_>>()
        };
        let postmaster = self.process.id();
        signal(postmaster, rustix::process::Signal::STOP);
        children(postmaster).into_iter().for_each(|pid| signal(pid, rustix::process::Signal::STOP));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        for pid in children.split_whitespace() {
            signal(pid.parse().unwrap(), rustix::process::Signal::KILL);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, signal);
}

/// PostgreSQL refuses to run as root, and initdb wants an account that the system knows.
fn account() -> Option<(u32, u32)> {
    let id = |which: &str| -> Option<u32> {
        let output = Command::new("id").args([which, "nobody"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().ok()
    };
    rustix::process::getuid().is_root().then(|| (id("-u").unwrap(), id("-g").unwrap()))
}

async fn session(address: SocketAddr) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(address.ip().to_string()).port(address.port()).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn number(client: &Client, query: &str) -> usize {
    let rows = client.simple_query(query).await.unwrap();
    let row = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.unwrap().parse().unwrap()
}

/// A gate as a process runs it, and the record that leads it.
struct Site {
    line: Line,
    read_write: SocketAddr,
    control: Memory,
    _orders: watch::Sender<link::Order>,
    _reports: watch::Sender<Arc<link::report::SiteReport>>,
    gate: JoinHandle<Result<(), Error>>,
    renewing: Arc<AtomicBool>,
}

impl Site {
    /// `database-1` of the plan is the first server, and so on. Nobody is primary yet.
    fn start(servers: &[&Postgres]) -> Self {
        let mut plan = plan_of_three();
        for (server, postgres) in plan.servers.iter_mut().zip(servers) {
            server.listen[0].address = postgres.address;
        }
        let me = plan::Server { role: Role::Gate, name: "gate-1".into(), ..plan.servers[0].clone() };
        let me = plan::Server { address: Ipv4Addr::LOCALHOST.into(), ..me };
        let listen = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (read_write, read_only) = (listen(), listen());
        let (line, orders, reports) = Line::unattached();
        let start = Start {
            me,
            plan: Arc::new(plan),
            folder: PathBuf::new(),
            files: PathBuf::new(),
            programs: PathBuf::new(),
            sockets: Default::default(),
            board: None,
            secrets: Default::default(),
            succeeds: false,
            line: line.clone(),
        };
        let control = Memory::default();
        let address = read_write.local_addr().unwrap();
        let through: Arc<dyn Control> = Arc::new(control.clone());
        let gate = tokio::spawn(serve_until_stopped(start, Some(through), vec![read_write], vec![read_only]));
        let renewing = Arc::new(AtomicBool::new(true));
        tokio::spawn(renew(control.clone(), Arc::clone(&renewing)));
        Self { line, read_write: address, control, _orders: orders, _reports: reports, gate, renewing }
    }

    async fn record(&self, epoch: u64, holder: &str, state: Phase) {
        change(&self.control, |group| {
            (group.epoch, group.state) = (epoch, state.clone());
            group.holder = holder.to_owned();
        })
        .await;
    }

    async fn reports(&self, text: &str) {
        let begun = Instant::now();
        while !self.line.last_report().because.contains(text) {
            assert!(begun.elapsed() < DEADLINE, "not {text:?} but {:?}", self.line.last_report());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.renewing.store(false, Ordering::Relaxed);
        self.gate.abort();
    }
}

/// Changes the record whoever else does at the same time.
async fn change(control: &Memory, change: impl Fn(&mut Group)) {
    loop {
        let record = control.read(KEY, WITHIN).await.unwrap();
        let mut group = match &record {
            Some(record) => serde_json::from_value(record.value.clone()).unwrap(),
            None => Group::create("database-1", "a", Some(1), Mode::Synchronous),
        };
        change(&mut group);
        let version = record.map_or(link::control::ABSENT, |record| record.version);
        if control.propose(KEY, version, serde_json::to_value(group).unwrap(), WITHIN).await.is_ok() {
            return;
        }
    }
}

/// What a manager does twice a second.
async fn renew(control: Memory, renewing: Arc<AtomicBool>) {
    loop {
        if renewing.load(Ordering::Relaxed) && control.read(KEY, WITHIN).await.unwrap().is_some() {
            change(&control, |group| group.seq += 1).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A pool of one connection: it connects again when it has none, and writes as fast as it can.
#[derive(Default)]
struct Pooled {
    acknowledged: AtomicUsize,
    broken: AtomicUsize,
    refused: AtomicUsize,
}

impl Pooled {
    async fn run(self: Arc<Self>, address: SocketAddr, until: Arc<AtomicBool>) {
        while !until.load(Ordering::Relaxed) {
            let Ok(client) = session(address).await else {
                self.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            while !until.load(Ordering::Relaxed) {
                if client.execute("INSERT INTO entry VALUES (1)", &[]).await.is_err() {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn acknowledges(&self, more: usize) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        let begun = Instant::now();
        while self.acknowledged.load(Ordering::Relaxed) < wanted {
            assert!(begun.elapsed() < DEADLINE, "no writes");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_pool_sees_a_pause_and_not_an_error_when_the_primary_changes() {
    const CLIENTS: usize = 8;
    let one = Postgres::start("switch-1", [127, 0, 110, 1], &[]).await;
    let two = Postgres::start("switch-2", [127, 0, 110, 2], &[]).await;
    let site = Site::start(&[&one, &two]);
    let (pool, end) = (Arc::new(Pooled::default()), Arc::new(AtomicBool::new(false)));
    // They come before there is any primary, and are held.
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(Arc::clone(&pool).run(site.read_write, Arc::clone(&end))))
        .collect();
    site.reports("holding").await;
    assert_eq!(site.line.last_report().state, State::Starting);
    site.record(1, "database-1", Phase::Open).await;
    site.reports("read-write to database-1 on 127.0.110.1:5432 (epoch 1)").await;
    pool.acknowledges(100).await;
    let changes = [("database-1", &one, "database-2"), ("database-2", &two, "database-1")];
    for (epoch, (old, server, new)) in (1..).zip([changes[0], changes[1], changes[0]]) {
        site.record(epoch, old, Phase::HandingOver).await;
        site.reports("hands over").await;
        // Nothing goes to the old one any more, though it would take it.
        let there = server.entries_in_the_end().await;
        site.record(epoch + 1, new, Phase::Promoting).await;
        site.reports("is being promoted").await;
        site.record(epoch + 1, new, Phase::Open).await;
        pool.acknowledges(100).await;
        assert_eq!(server.entries().await, there);
    }
    end.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(pool.refused.load(Ordering::Relaxed), 0, "not one connection is refused");
    let broken = pool.broken.load(Ordering::Relaxed);
    assert!((3..=3 * CLIENTS).contains(&broken), "{broken} cut, once each in each of three changes");
    let (written, acknowledged) =
        (one.entries().await + two.entries().await, pool.acknowledged.load(Ordering::Relaxed));
    assert!((acknowledged..=acknowledged + broken).contains(&written), "{written} of {acknowledged}");
}

#[tokio::test]
async fn a_frozen_primary_holds_nobody_beyond_its_lease() {
    let one = Postgres::start("frozen-1", [127, 0, 111, 1], &[]).await;
    let two = Postgres::start("frozen-2", [127, 0, 111, 2], &[]).await;
    let site = Site::start(&[&one, &two]);
    site.record(1, "database-1", Phase::Open).await;
    let client = session(site.read_write).await.unwrap();
    client.execute("INSERT INTO entry VALUES (1)", &[]).await.unwrap();
    let begun = Instant::now();
    site.renewing.store(false, Ordering::Relaxed);
    one.freeze();
    // One has a statement under way, the other only knocks: the kernel takes its connection all the same.
    let waits = tokio::spawn(async move { client.execute("INSERT INTO entry VALUES (2)", &[]).await });
    let knocks = tokio::spawn(session(site.read_write));
    let broken = waits.await.unwrap().unwrap_err();
    assert!(broken.code() == Some(&SqlState::ADMIN_SHUTDOWN) || broken.is_closed(), "{broken}");
    println!("cut after {} ms", begun.elapsed().as_millis());
    site.reports("was not seen to renew its lease for 3 s").await;
    assert!(!knocks.is_finished());
    site.renewing.store(true, Ordering::Relaxed);
    site.record(2, "database-2", Phase::Open).await;
    let client = knocks.await.unwrap().unwrap();
    client.execute("INSERT INTO entry VALUES (3)", &[]).await.unwrap();
    assert_eq!(two.entries().await, 1);
}

#[tokio::test]
async fn a_renewed_lease_opens_the_gate_again() {
    let one = Postgres::start("renewed", [127, 0, 112, 1], &[]).await;
    let site = Site::start(&[&one]);
    site.record(1, "database-1", Phase::Open).await;
    let client = session(site.read_write).await.unwrap();
    site.renewing.store(false, Ordering::Relaxed);
    let idle = tokio::spawn(async move {
        while !client.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tokio::time::timeout(DEADLINE, idle).await.expect("cut").unwrap();
    site.renewing.store(true, Ordering::Relaxed);
    let client = session(site.read_write).await.unwrap();
    assert_eq!(number(&client, "SELECT 1").await, 1);
}

#[tokio::test]
async fn a_cancelled_wait_for_the_replicas_is_never_told_as_success() {
    let one = Postgres::start("unconfirmed", [127, 0, 113, 1], &["synchronous_standby_names=nobody"]).await;
    let site = Site::start(&[&one]);
    site.record(1, "database-1", Phase::Open).await;
    // PostgreSQL itself says yes.
    let past = one.client().await;
    let told = insert_and_cancel(&one, past, true).await;
    assert!(told.is_ok(), "the fault that the gate is there for: {told:?}");
    for simple in [true, false] {
        let client = session(site.read_write).await.unwrap();
        let error = insert_and_cancel(&one, client, simple).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::TRANSACTION_RESOLUTION_UNKNOWN), "{error}");
    }
    assert_eq!(one.entries().await, 3, "all of them are on the primary");
    // Any other statement is cancelled as ever, and its session goes on.
    let client = session(site.read_write).await.unwrap();
    let sleep = client.batch_execute("SELECT pg_sleep(60)");
    let (told, ()) = tokio::join!(sleep, cancel(&one, "PgSleep", client.cancel_token()));
    assert_eq!(told.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(number(&client, "SELECT 1").await, 1);
}

/// Cancels once the commit waits for a replica that does not exist.
async fn insert_and_cancel(
    server: &Postgres,
    client: Client,
    simple: bool,
) -> Result<(), tokio_postgres::Error> {
    let token = client.cancel_token();
    let insert = async {
        if simple {
            client.batch_execute("INSERT INTO entry VALUES (1)").await
        } else {
            client.execute("INSERT INTO entry VALUES (1)", &[]).await.map(drop)
        }
    };
    let (told, ()) = tokio::join!(insert, cancel(server, "SyncRep", token));
    told
}

async fn cancel(server: &Postgres, wait_event: &str, token: tokio_postgres::CancelToken) {
    let (watcher, begun) = (server.client().await, Instant::now());
    let query = format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event = '{wait_event}'");
    while number(&watcher, &query).await == 0 {
        assert!(begun.elapsed() < DEADLINE, "nobody waits for {wait_event}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    token.cancel_query(NoTls).await.unwrap();
}
