//! The gate before servers of the tests' own making, which speak as much of the protocol as a gate reads.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::targets::{Address, Primary, Target};
use super::*;

mod targets_table;

mod connections;

mod real;

const STARTUP: [u8; 9] = [0, 0, 0, 9, 0, 3, 0, 0, 0];
const ENCRYPT: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const CANCEL: [u8; 16] = [0, 0, 0, 16, 4, 210, 22, 46, 1, 2, 3, 4, 5, 6, 7, 8];

/// AuthenticationOk.
const WELCOME: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];

/// `the database system is starting up`.
const NOT_NOW: &[u8] = b"E\0\0\0\x1dSFATAL\0C57P03\0Mstarting\0\0";

/// A listener that answers each startup message with these, one after the other and the last one again, then
/// echoes. It tells what it was sent first on each connection.
async fn server(answers: Vec<&'static [u8]>) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut answers = answers.into_iter().peekable();
        let mut answer = WELCOME.as_slice();
        while let Ok((stream, _)) = listener.accept().await {
            answer = answers.next().unwrap_or(answer);
            tokio::spawn(converse(stream, answer, sender.clone()));
        }
    });
    (address, receiver)
}

async fn converse(mut stream: TcpStream, answer: &'static [u8], heard: mpsc::Sender<Vec<u8>>) {
    loop {
        let mut message = vec![0; 64];
        let Ok(length @ 1..) = stream.read(&mut message).await else { return };
        message.truncate(length);
        let first = message == STARTUP;
        let reply = match &message[..] {
            _ if message == CANCEL => &b""[..],
            _ if message == ENCRYPT => b"N",
            _ if first => answer,
            other => other,
        };
        let reply = reply.to_vec();
        heard.send(message).await.unwrap();
        if reply.is_empty() || stream.write_all(&reply).await.is_err() || (first && answer[0] == b'E') {
            return;
        }
    }
}

struct Bench {
    gate: Arc<Gate>,
    targets: watch::Sender<Arc<Targets>>,
    _ending: watch::Sender<bool>,
}

fn target(name: &str, address: SocketAddr) -> Target {
    Target { name: name.into(), address: Address::Ours(address) }
}

fn bench(primary: SocketAddr, replicas: &[SocketAddr], limits: Limits) -> Bench {
    let named =
        |(number, address): (usize, &SocketAddr)| target(&format!("database-{}", number + 2), *address);
    let targets = Targets {
        primary: Ok(Primary { target: target("database-1", primary), epoch: Some(1) }),
        following: replicas.iter().enumerate().map(named).collect(),
        standing: Vec::new(),
        primary_is_away: false,
        primary_says: None,
    };
    let (sender, receiver) = watch::channel(Arc::new(targets));
    let (ending_sender, ending) = watch::channel(false);
    let gate = Arc::new(Gate::new(Ipv4Addr::LOCALHOST.into(), receiver, ending, limits));
    Bench { gate, targets: sender, _ending: ending_sender }
}

impl Bench {
    fn change(&self, change: impl FnOnce(&mut Targets)) {
        self.targets.send_modify(|targets| change(Arc::make_mut(targets)));
    }

    fn promote(&self, target: Target, epoch: u64) {
        self.change(|targets| targets.primary = Ok(Primary { target, epoch: Some(epoch) }));
    }
}

fn limits() -> Limits {
    Limits { connections: 8, held: 8, hold: Duration::from_secs(5) }
}

/// A client's end of a connection that the gate serves.
async fn connect(bench: &Bench, kind: Kind) -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let gate = Arc::clone(&bench.gate);
    tokio::spawn(async move { serve::serve(&gate, kind, stream).await });
    client
}

async fn says(client: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes);
}

/// The SQLSTATE and message of the refusal that ends this connection.
async fn refusal(client: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes[0], b'E');
    let text = |field: Option<&str>| field.unwrap().to_owned();
    (text(refuse::sqlstate(&bytes[5..])), text(refuse::message(&bytes[5..])))
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

/// The same, and that it is a standby.
const STANDBY: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x16in_hot_standby\0on\0";

#[tokio::test]
async fn a_primary_that_has_become_a_standby_shows_nothing_at_the_read_write_address() {
    let (primary, _heard) = server(vec![STANDBY]).await;
    let bench = bench(primary, &[], limits());
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    says(&mut client, STANDBY).await;
    let (code, message) = refusal(&mut client).await;
    assert_eq!(code, "57P03");
    assert!(message.contains("is a standby now"), "{message}");
    let mut reader = connect(&bench, Kind::ReadOnly).await;
    reader.write_all(&STARTUP).await.unwrap();
    says(&mut reader, STANDBY).await;
    reader.write_all(b"rows").await.unwrap();
    says(&mut reader, b"rows").await;
}

/// A machine that stood still: its gate may read an old primary's answer before it hears that its time is over.
#[tokio::test]
async fn an_answer_that_is_read_after_the_end_of_the_lease_is_not_passed_on() {
    let (primary, _heard) = server(vec![]).await;
    let bench = bench(primary, &[], limits());
    bench.gate.until.set(Some(Duration::MAX));
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    says(&mut client, &WELCOME).await;
    bench.gate.until.set(Some(Duration::from_millis(1)));
    client.write_all(b"select").await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    let mut reader = connect(&bench, Kind::ReadWrite).await;
    reader.write_all(&STARTUP).await.unwrap();
    reader.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"", "nor to anybody who comes then");
}

#[tokio::test]
async fn bytes_pass_both_ways_and_an_end_is_passed_on() {
    let (primary, mut heard) = server(vec![]).await;
    let bench = bench(primary, &[], limits());
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&ENCRYPT).await.unwrap();
    says(&mut client, b"N").await;
    client.write_all(&STARTUP).await.unwrap();
    says(&mut client, &WELCOME).await;
    client.write_all(b"select").await.unwrap();
    says(&mut client, b"select").await;
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    // On one and the same connection to the server.
    assert_eq!(heard.recv().await.unwrap(), ENCRYPT);
    assert_eq!(heard.recv().await.unwrap(), STARTUP);
    assert_eq!(heard.recv().await.unwrap(), b"select");
}

#[tokio::test]
async fn a_database_that_somebody_else_runs_is_found_by_its_name() {
    let (primary, _heard) = server(vec![]).await;
    let bench = bench(primary, &[], limits());
    let address = Address::External { host: "localhost".into(), port: primary.port() };
    let target = Target { name: "the database".into(), address };
    bench.promote(target, 1);
    let mut client = connect(&bench, Kind::ReadOnly).await;
    client.write_all(&STARTUP).await.unwrap();
    says(&mut client, &WELCOME).await;
}

#[tokio::test]
async fn tls_from_the_first_byte_passes_untouched() {
    let (primary, mut heard) = server(vec![]).await;
    let bench = bench(primary, &[], limits());
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").await.unwrap();
    let mut sent = heard.recv().await.unwrap();
    while sent.len() < 9 {
        sent.extend(heard.recv().await.unwrap());
    }
    assert_eq!(sent, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc");
}

#[tokio::test]
async fn a_server_that_says_not_now_is_asked_again() {
    let (primary, _heard) = server(vec![NOT_NOW, NOT_NOW, &WELCOME]).await;
    let bench = bench(primary, &[], limits());
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    says(&mut client, &WELCOME).await;
}

#[tokio::test]
async fn a_client_is_held_until_the_primary_is_back() {
    let bench = bench(nobody().await, &[], limits());
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    // Held: the gate has tried and failed.
    while bench.gate.held.available_permits() == limits().held {
        tokio::task::yield_now().await;
    }
    let (primary, _heard) = server(vec![]).await;
    bench.promote(target("database-2", primary), 2);
    says(&mut client, &WELCOME).await;
    assert_eq!(bench.gate.held.available_permits(), limits().held);
}

#[tokio::test]
async fn a_client_is_held_until_there_is_a_primary() {
    let (primary, mut heard) = server(vec![]).await;
    let bench = bench(primary, &[], limits());
    bench.change(|targets| targets.primary = Err("it is being promoted".into()));
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    while bench.gate.held.available_permits() == limits().held {
        tokio::task::yield_now().await;
    }
    assert!(heard.try_recv().is_err());
    bench.promote(target("database-1", primary), 1);
    says(&mut client, &WELCOME).await;
}

#[tokio::test]
async fn waiting_ends_with_a_proper_error() {
    let hold = Duration::from_millis(200);
    let bench = bench(nobody().await, &[], Limits { hold, ..limits() });
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&ENCRYPT).await.unwrap();
    says(&mut client, b"N").await;
    client.write_all(&STARTUP).await.unwrap();
    let (code, message) = refusal(&mut client).await;
    assert_eq!(code, "57P03");
    assert!(message.contains("database-1") && message.contains("refused"), "{message}");
}

#[tokio::test]
async fn a_server_that_says_nothing_does_not_hold_a_client_for_ever() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let hold = Duration::from_millis(200);
    let bench = bench(silent.local_addr().unwrap(), &[], Limits { hold, ..limits() });
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    assert_eq!(refusal(&mut client).await.0, "57P03");
}

#[tokio::test]
async fn too_many_are_refused_and_too_many_waiting_too() {
    let full = bench(nobody().await, &[], Limits { connections: 0, ..limits() });
    let mut client = connect(&full, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    assert_eq!(refusal(&mut client).await.0, "53300");
    let waiting = bench(nobody().await, &[], Limits { held: 0, ..limits() });
    let mut client = connect(&waiting, Kind::ReadOnly).await;
    client.write_all(&STARTUP).await.unwrap();
    let (code, message) = refusal(&mut client).await;
    assert_eq!((code.as_str(), message.contains("0 connections wait")), ("57P03", true), "{message}");
}

#[tokio::test]
async fn a_held_client_that_goes_is_forgotten() {
    let bench = bench(nobody().await, &[], limits());
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    while bench.gate.held.available_permits() == limits().held {
        tokio::task::yield_now().await;
    }
    drop(client);
    while bench.gate.connections.available_permits() < limits().connections {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_to_an_old_primary_is_cut() {
    let (old, _heard) = server(vec![]).await;
    let (new, _heard) = server(vec![]).await;
    let bench = bench(old, &[], limits());
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&STARTUP).await.unwrap();
    says(&mut client, &WELCOME).await;
    bench.promote(target("database-2", new), 2);
    let (code, message) = refusal(&mut client).await;
    assert_eq!((code.as_str(), message.contains("database-1")), ("57P01", true), "{message}");
}

#[tokio::test]
async fn reads_go_to_the_replica_with_the_fewest_connections_and_past_one_that_is_gone() {
    let (primary, mut on_primary) = server(vec![]).await;
    let (two, mut on_two) = server(vec![]).await;
    let (three, mut on_three) = server(vec![]).await;
    let bench = bench(primary, &[two, nobody().await, three], limits());
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = connect(&bench, Kind::ReadOnly).await;
        client.write_all(&STARTUP).await.unwrap();
        says(&mut client, &WELCOME).await;
        clients.push(client);
    }
    let count = |heard: &mut mpsc::Receiver<Vec<u8>>| std::iter::from_fn(|| heard.try_recv().ok()).count();
    assert_eq!([count(&mut on_primary), count(&mut on_two), count(&mut on_three)], [0, 2, 2]);
    bench.change(|targets| targets.following.clear());
    let mut client = connect(&bench, Kind::ReadOnly).await;
    client.write_all(&STARTUP).await.unwrap();
    says(&mut client, &WELCOME).await;
    assert_eq!(count(&mut on_primary), 1);
}

#[tokio::test]
async fn a_cancel_reaches_every_server_that_may_have_made_its_key() {
    let (primary, mut on_primary) = server(vec![]).await;
    let (two, mut on_two) = server(vec![]).await;
    let bench = bench(primary, &[two], limits());
    let mut client = connect(&bench, Kind::ReadWrite).await;
    client.write_all(&CANCEL).await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(on_primary.recv().await.unwrap(), CANCEL);
    assert!(on_two.try_recv().is_err());
    let mut client = connect(&bench, Kind::ReadOnly).await;
    client.write_all(&CANCEL).await.unwrap();
    assert_eq!(on_two.recv().await.unwrap(), CANCEL);
}

fn plan_of_three() -> plan::Plan {
    let server = |number: u8| {
        let address = SocketAddr::from(([127, 0, 41, number], 5432));
        let kind = plan::SocketKind::Tcp;
        plan::Server {
            name: format!("database-{number}"),
            role: Role::Database,
            machine: "beta".into(),
            address: address.ip(),
            listen: vec![plan::Listen { name: "postgres".into(), kind, address, held: false, sockets: 1 }],
        }
    };
    let database = plan::Database {
        url: None,
        synchronous: true,
        strict: false,
        lease_ms: 3000,
        name: "app".into(),
        settings: Default::default(),
    };
    plan::Plan {
        format: plan::FORMAT,
        generation: 1,
        site: "test".into(),
        domain: None,
        place: plan::Place::Machines,
        machines: Vec::new(),
        servers: (1..=3).map(server).collect(),
        dns: None,
        balancer: None,
        web: None,
        app: None,
        database: Some(database),
        drained: Vec::new(),
        control: None,
        encrypted: false,
        not_served: Vec::new(),
    }
}

#[test]
fn an_external_database_is_found_in_its_url_and_the_url_never_in_an_error() {
    let with = |url: &str| {
        let mut plan = plan_of_three();
        plan.database.as_mut().unwrap().url = Some(plan::Value::Env("URL".into()));
        let mut secrets = link::Secrets::default();
        secrets.insert("database-url", link::Secret::new(url));
        targets::first(&plan, &secrets).map(|targets| targets.primary.unwrap().target.address.to_string())
    };
    assert_eq!(with("postgres://u:secret@db.example.com:6000/x").unwrap(), "db.example.com:6000");
    assert_eq!(with("postgres://u:secret@db.example.com/x?sslmode=require").unwrap(), "db.example.com:5432");
    let error = with("mysql://u:secret@db").unwrap_err().to_string();
    assert!(error.contains("postgres://") && !error.contains("secret"), "{error}");
}
