//! Clients of a database that write down what they were told, and check it: a writer and a reader at the gate
//! of each machine.
//!
//! Checked while they run: whoever reads at the read-write address sees everything that had been acknowledged
//! to anybody, and everything that anybody had seen, before the read began; no server acknowledges what was sent after a
//! server of a later timeline had acknowledged something; and no two acknowledge on the same timeline. Afterwards the caller compares the ledger with the table.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Between two writes of one writer.
const PACE: Duration = Duration::from_millis(10);

/// Between two reads of one reader.
const READ_PACE: Duration = Duration::from_millis(30);

/// A client gives a connection up that is silent for this long: its own gate may be frozen.
const PATIENCE: Duration = Duration::from_secs(15);

const INSERT: &str = "INSERT INTO kept (writer, id) VALUES ($1, $2) RETURNING \
    ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int, \
    coalesce(host(inet_server_addr()), '')";

const NEWEST: &str = "SELECT (SELECT coalesce(max(id), 0) FROM kept WHERE writer = one) \
    FROM generate_series(0, $1) AS one ORDER BY one";

/// One write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub writer: usize,
    pub id: i64,
    pub sent: Instant,
    pub at: Instant,
    pub timeline: i32,
    pub server: String,
}

/// The newest timeline on which something was acknowledged: since when, and by whom.
#[derive(Debug)]
struct NewestTimeline {
    number: i32,
    since: Instant,
    server: String,
}

/// What all clients together were told.
#[derive(Debug)]
pub struct Ledger {
    told: Mutex<Vec<Acknowledged>>,
    /// The newest of each writer that was acknowledged, and that anybody has seen.
    newest: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
    newest_timeline: Mutex<Option<NewestTimeline>>,
    violations: Mutex<Vec<String>>,
    /// Errors that clients were shown, by when.
    errors: Mutex<Vec<(Instant, usize, String)>>,
    reads: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    fn new(writers: usize) -> Self {
        let zeros = || (0..writers).map(|_| AtomicU64::new(0)).collect();
        Self {
            told: Mutex::default(),
            newest: zeros(),
            seen: zeros(),
            newest_timeline: Mutex::default(),
            violations: Mutex::default(),
            errors: Mutex::default(),
            reads: AtomicU64::new(0),
        }
    }

    /// Those that nobody has asked for yet.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.violations))
    }

    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// All that was acknowledged from a moment on.
    pub fn since(&self, moment: Instant) -> Vec<Acknowledged> {
        let told = lock(&self.told);
        // In the order of their arrival, but for what threads do in the same moment.
        told.iter().rev().take_while(|one| one.at >= moment).cloned().collect()
    }

    pub fn errors_since(&self, moment: Instant) -> Vec<(Instant, usize, String)> {
        lock(&self.errors).iter().filter(|(at, ..)| *at >= moment).cloned().collect()
    }

    /// The longest time in which a writer had no acknowledgement between two moments, and when it began.
    pub fn outage(&self, writer: usize, from: Instant, until: Instant) -> (Duration, Instant) {
        let told = lock(&self.told);
        let mut times: Vec<Instant> = told
            .iter()
            .filter(|one| one.writer == writer && one.at >= from && one.at <= until)
            .map(|one| one.at)
            .collect();
        times.push(until);
        times.sort_unstable();
        let mut longest = (Duration::ZERO, from);
        let mut last = from;
        for at in times {
            longest = longest.max((at - last, last));
            last = at;
        }
        longest
    }

    fn acknowledged(&self, one: Acknowledged) {
        let mut newest = lock(&self.newest_timeline);
        match newest.as_ref() {
            Some(newest) if one.timeline < newest.number && one.sent > newest.since => {
                self.violate(format!(
                    "{} acknowledged {} of writer {} on timeline {}, sent {:?} after {} had acknowledged something on {}",
                    one.server,
                    one.id,
                    one.writer,
                    one.timeline,
                    one.sent - newest.since,
                    newest.server,
                    newest.number
                ));
            }
            // Two that were promoted beside each other give theirs the same number.
            Some(newest) if one.timeline == newest.number && one.server != newest.server => {
                self.violate(format!(
                    "{} acknowledged {} of writer {} on timeline {}, on which {} had acknowledged something",
                    one.server, one.id, one.writer, one.timeline, newest.server
                ));
            }
            Some(newest) if one.timeline <= newest.number => {}
            _ => {
                let server = one.server.clone();
                *newest = Some(NewestTimeline { number: one.timeline, since: one.at, server });
            }
        }
        drop(newest);
        self.newest[one.writer].fetch_max(one.id.unsigned_abs(), Ordering::SeqCst);
        lock(&self.told).push(one);
    }

    fn violate(&self, text: String) {
        eprintln!("violated: {text}");
        lock(&self.violations).push(text);
    }

    fn failed(&self, client: usize, error: String) {
        lock(&self.errors).push((Instant::now(), client, error));
    }

    /// What every read that begins now must see of each writer.
    fn must_be_seen(&self) -> Vec<u64> {
        let pairs = self.newest.iter().zip(&self.seen);
        pairs.map(|(one, other)| one.load(Ordering::SeqCst).max(other.load(Ordering::SeqCst))).collect()
    }

    fn was_read(&self, reader: usize, must: &[u64], seen: &[u64]) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        for (writer, (must, seen)) in must.iter().zip(seen).enumerate() {
            if seen < must {
                self.violate(format!(
                    "reader {reader} saw {seen} as the newest of writer {writer} after {must} had been acknowledged \
                     or seen"
                ));
            }
            self.seen[writer].fetch_max(*seen, Ordering::SeqCst);
        }
    }
}

/// Where a client finds its database.
#[derive(Clone, Debug)]
struct Place {
    /// Of its gate's machine, which the client is on.
    host: String,
    port: u16,
    user: String,
    password: String,
}

impl Place {
    async fn connect(&self) -> Result<Client, String> {
        let mut config = tokio_postgres::Config::new();
        config.host(&self.host).port(self.port).user(&self.user).dbname(&self.user);
        config.password(&self.password);
        let connected = async {
            let stream = self.stream().await.map_err(|error| error.to_string())?;
            config.connect_raw(stream, NoTls).await.map_err(|error| said(&error))
        };
        let connected = tokio::time::timeout(PATIENCE, connected).await;
        let (client, connection) = connected.map_err(|_| format!("no connection within {PATIENCE:?}"))??;
        tokio::spawn(connection);
        Ok(client)
    }

    /// From the machine's own address.
    async fn stream(&self) -> std::io::Result<TcpStream> {
        let host: IpAddr = self.host.parse().map_err(std::io::Error::other)?;
        let socket = TcpSocket::new_v4()?;
        socket.bind((host, 0).into())?;
        let stream = socket.connect((host, self.port).into()).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// The first column of what a query gives at this place, as text, row by row.
pub fn ask(host: &str, port: u16, user: &str, password: &str, query: &str) -> Result<Vec<String>, String> {
    let place = Place { host: host.into(), port, user: user.into(), password: password.into() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let client = place.connect().await?;
        let rows = client.simple_query(query).await.map_err(|error| said(&error))?;
        let text = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        };
        Ok(rows.iter().filter_map(text).collect())
    })
}

fn said(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// They run until they are stopped.
#[derive(Debug)]
pub struct Writers {
    pub ledger: Arc<Ledger>,
    go: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// A writer and a reader at each of these hosts, as the owner of the database with that name. The table is made first.
    pub fn begin(hosts: &[String], port: u16, user: &str, password: &str) -> Self {
        let ledger = Arc::new(Ledger::new(hosts.len()));
        let go = Arc::new(AtomicBool::new(true));
        let place =
            |host: &String| Place { host: host.clone(), port, user: user.into(), password: password.into() };
        let places: Vec<Place> = hosts.iter().map(place).collect();
        alone(make_table(places[0].clone()));
        let mut threads = Vec::new();
        for (number, place) in places.into_iter().enumerate() {
            let (to, goes, at) = (Arc::clone(&ledger), Arc::clone(&go), place.clone());
            threads.push(std::thread::spawn(move || alone(write(number, at, to, goes))));
            let (to, goes) = (Arc::clone(&ledger), Arc::clone(&go));
            threads.push(std::thread::spawn(move || alone(read(number, place, to, goes))));
        }
        Self { ledger, go, threads }
    }

    /// Ends them all; what they were told stays in the ledger.
    pub fn end(&mut self) {
        self.go.store(false, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client does not panic");
        }
    }
}

fn alone(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work);
}

async fn make_table(place: Place) {
    let client = place.connect().await.expect("the database takes connections");
    let table = "CREATE TABLE IF NOT EXISTS kept (writer int, id bigint, PRIMARY KEY (writer, id))";
    client.batch_execute(table).await.expect("a table can be made");
}

async fn write(number: usize, place: Place, ledger: Arc<Ledger>, go: Arc<AtomicBool>) {
    let mut open = None;
    for id in 1.. {
        if !go.load(Ordering::Relaxed) {
            return;
        }
        let client = match open.take() {
            Some(client) => client,
            None => match place.connect().await {
                Ok(client) => client,
                Err(error) => {
                    ledger.failed(number, error);
                    tokio::time::sleep(PACE).await;
                    continue;
                }
            },
        };
        let sent = Instant::now();
        let writer = i32::try_from(number).unwrap_or_default();
        let row: [(&(dyn ToSql + Sync), Type); 2] = [(&writer, Type::INT4), (&id, Type::INT8)];
        let insert = client.query_typed(INSERT, &row);
        match tokio::time::timeout(PATIENCE, insert).await {
            Ok(Ok(rows)) => {
                let (timeline, server) = (rows[0].get(0), rows[0].get(1));
                let at = Instant::now();
                ledger.acknowledged(Acknowledged { writer: number, id, sent, at, timeline, server });
                open = Some(client);
            }
            Ok(Err(error)) => ledger.failed(number, said(&error)),
            Err(_) => ledger.failed(number, format!("no answer within {PATIENCE:?}")),
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn read(number: usize, place: Place, ledger: Arc<Ledger>, go: Arc<AtomicBool>) {
    let mut open = None;
    while go.load(Ordering::Relaxed) {
        let client = match open.take() {
            Some(client) => client,
            None => match place.connect().await {
                Ok(client) => client,
                Err(_) => {
                    tokio::time::sleep(READ_PACE).await;
                    continue;
                }
            },
        };
        let must = ledger.must_be_seen();
        let last = i32::try_from(must.len() - 1).unwrap_or_default();
        let last: [(&(dyn ToSql + Sync), Type); 1] = [(&last, Type::INT4)];
        let newest = client.query_typed(NEWEST, &last);
        if let Ok(Ok(rows)) = tokio::time::timeout(PATIENCE, newest).await {
            let seen: Vec<u64> = rows.iter().map(|row| row.get::<_, i64>(0).unsigned_abs()).collect();
            ledger.was_read(number, &must, &seen);
            open = Some(client);
        }
        tokio::time::sleep(READ_PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What server acknowledged on which timeline, one after another, and how many of them are violations.
    fn check(told: &[(&str, i32)], expect: usize) {
        let ledger = Ledger::new(1);
        for (id, (server, timeline)) in (1..).zip(told) {
            let (sent, at) = (Instant::now(), Instant::now());
            let (timeline, server) = (*timeline, (*server).to_owned());
            ledger.acknowledged(Acknowledged { writer: 0, id, sent, at, timeline, server });
            // The next one is sent after this one was acknowledged.
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(ledger.take_violations().len(), expect, "{told:?}");
    }

    #[test]
    fn a_timeline_has_one_server_and_an_older_one_acknowledges_nothing_more() {
        check(&[("alpha", 1), ("alpha", 1), ("beta", 2), ("beta", 2), ("alpha", 3)], 0);
        check(&[("alpha", 1), ("beta", 2), ("alpha", 1)], 1);
        check(&[("alpha", 1), ("beta", 2), ("gamma", 2)], 1);
    }
}
