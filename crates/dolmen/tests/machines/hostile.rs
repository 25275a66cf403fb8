//! A hostile client against the ports of an agent and of a control server: messages that are long, cut, repeated or no
//! messages at all, without a certificate, with a stranger's, and with that of a machine of the site.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use link::api::{Answer, Ask, Authority, Greeting, VERSION};
use link::control::wire::{ControlAnswer, ControlAsk};
use link::control::{ABSENT, Change, Outcome};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::Serialize;
use testkit::{Bed, until};

use super::stage::{WITHIN, begun, dolmen, server, status};

const SITE: &str = "www.foobar.com";
const AGENT: u16 = 7400;
const CONTROL: u16 = 7401;

/// What somebody would send who has as much time as he likes.
const ENDLESS: u64 = 10_000_000_000;

/// Far more than the buffers of two sockets.
const TAKEN: u64 = 64 << 20;

/// As many clients as have a conversation with an agent at one time.
const MANY: usize = 64;

/// What they may cost an agent together.
const MEMORY_KIB: u64 = 64 * 1024;

/// Nobody waits for longer than this.
const PATIENCE: Duration = Duration::from_secs(10);

type Line = StreamOwned<ClientConnection, TcpStream>;

/// A hostile client.
struct Client {
    bed: Bed,
    /// The folder with its certificate and key, if it has any.
    identity: Option<PathBuf>,
}

impl Client {
    fn machine(&self) -> PathBuf {
        self.bed.machine("alpha").state().join(SITE).join("machines/alpha")
    }

    fn tcp(&self, port: u16) -> TcpStream {
        let stream = TcpStream::connect(self.bed.address("alpha", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A connection in TLS, on which nothing was said yet. With TLS 1.3 a client is through with its handshake before the
    /// other side has seen its certificate.
    fn connect(&self, port: u16) -> Line {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.machine().join("ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some(folder) => {
                let certificate = CertificateDer::from_pem_file(folder.join("agent.crt")).unwrap();
                let key = PrivateKeyDer::from_pem_file(folder.join("agent.key")).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let name = ServerName::try_from("alpha.dolmen.internal").unwrap();
        let (mut connection, mut stream) =
            (ClientConnection::new(Arc::new(config), name).unwrap(), self.tcp(port));
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).unwrap();
        }
        StreamOwned::new(connection, stream)
    }

    /// The same after a greeting of both sides.
    fn greeted(&self, port: u16) -> Line {
        let mut line = self.connect(port);
        line.write_all(&greeting()).unwrap();
        let theirs: Greeting = serde_json::from_slice(&read(&mut line).unwrap()).unwrap();
        assert_eq!(theirs.site, SITE);
        line
    }

    fn agent_kib(&self, field: &str) -> u64 {
        let record = std::fs::read_to_string(self.machine().join("agent.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let read = self
            .bed
            .machine("alpha")
            .run(&["cat", &format!("/proc/{}/status", record["agent"]["pid"])])
            .fine();
        let line = read.out.lines().find(|line| line.starts_with(field)).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn frame(message: &impl Serialize) -> Vec<u8> {
    let body = serde_json::to_vec(message).unwrap();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

fn greeting() -> Vec<u8> {
    frame(&Greeting { version: VERSION, site: SITE.into(), clock_s: None })
}

/// One frame.
fn read(line: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    line.read_exact(&mut head)?;
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    line.read_exact(&mut body)?;
    Ok(body)
}

fn answer(line: &mut Line) -> Option<Answer> {
    Some(serde_json::from_slice(&read(line).ok()?).unwrap())
}

/// Sends these bytes over and over until nobody takes them; how many were taken.
fn pour(line: &mut impl Write, bytes: &[u8]) -> u64 {
    let mut taken = 0;
    while taken < ENDLESS {
        match line.write_all(bytes) {
            Ok(()) => taken += bytes.len() as u64,
            Err(_) => return taken,
        }
    }
    taken
}

/// Everything that still comes.
fn rest(line: &mut impl Read) -> Vec<u8> {
    let mut rest = Vec::new();
    // An end without a farewell is one as well.
    drop(line.read_to_end(&mut rest));
    rest
}

/// A folder with an identity for alpha that another authority has signed.
fn stranger(bed: &Bed) -> PathBuf {
    let folder = bed.machine("alpha").folder.join("stranger");
    std::fs::create_dir_all(&folder).unwrap();
    Authority::open(&folder).unwrap().issue("alpha", &folder).unwrap();
    folder
}

#[test]
fn a_hostile_client_gets_nothing_and_costs_little() {
    let mut client = Client { bed: begun(), identity: None };
    let before = client.agent_kib("VmRSS");
    for port in [AGENT, CONTROL] {
        let mut plain = client.tcp(port);
        let taken = pour(&mut plain, &[0xff; 1 << 16]);
        assert!(taken < TAKEN, "{taken} bytes that are no TLS");
        let mut plain = client.tcp(port);
        plain.write_all(&greeting()).unwrap();
        assert!(rest(&mut plain).len() <= 16, "an alert at most");
    }
    for identity in [None, Some(stranger(&client.bed))] {
        client.identity = identity;
        for port in [AGENT, CONTROL] {
            nothing_is_said_to_strangers(&client, port);
        }
    }
    client.identity = Some(client.machine());
    for port in [AGENT, CONTROL] {
        what_is_too_long_is_cut_off(&client, port);
        what_is_cut_does_nothing(&client, port);
    }
    what_is_repeated_is_done_once(&client);
    many_at_one_time(&client, before);
    assert_eq!(status(&client.bed, "alpha").unwrap()["generation"], 1);
    assert_eq!(server(&client.bed, "alpha", "web-1").unwrap()["state"], "healthy");
}

fn nothing_is_said_to_strangers(client: &Client, port: u16) {
    let mut line = client.connect(port);
    let taken = pour(&mut line, &[greeting(), frame(&Ask::Status)].concat());
    assert!(taken < TAKEN, "{taken} bytes of a stranger");
    let mut line = client.connect(port);
    drop(line.write_all(&[greeting(), frame(&Ask::Status)].concat()));
    let said = rest(&mut line);
    assert!(said.is_empty(), "a stranger was told {:?}", String::from_utf8_lossy(&said));
}

fn what_is_too_long_is_cut_off(client: &Client, port: u16) {
    let endless = [&u32::MAX.to_be_bytes()[..], &[b'x'; 1 << 16]].concat();
    let mut instead_of_a_greeting = client.connect(port);
    let mut instead_of_an_ask = client.greeted(port);
    for line in [&mut instead_of_a_greeting, &mut instead_of_an_ask] {
        let taken = pour(line, &endless);
        assert!(taken < TAKEN, "{taken} bytes of one frame");
    }
    // No longer than allowed, and no message.
    let mut line = client.greeted(port);
    line.write_all(&[&60_000_u32.to_be_bytes()[..], &[b'x'; 60_000]].concat()).unwrap();
    assert!(answer(&mut line).is_none_or(|answer| matches!(answer, Answer::Refused { .. })));
}

fn what_is_cut_does_nothing(client: &Client, port: u16) {
    let ask = frame(&Ask::Kill { server: "web-1".into() });
    for length in 0..ask.len() {
        let mut line = client.greeted(port);
        line.write_all(&ask[..length]).unwrap();
        line.conn.send_close_notify();
        drop(line.flush());
        assert!(answer(&mut line).is_none(), "an answer to {length} of {} bytes", ask.len());
    }
    let mut line = client.greeted(port);
    line.write_all(&ask).unwrap();
    let Some(Answer::Refused { because }) = answer(&mut line) else { panic!("a machine may not kill") };
    assert!(
        because.contains("only the operator") || because.contains("this is a control server"),
        "{because}"
    );
}

fn what_is_repeated_is_done_once(client: &Client) {
    // An agent answers one ask on a connection.
    let mut line = client.greeted(AGENT);
    drop(line.write_all(&frame(&Ask::Status).repeat(1000)));
    assert!(matches!(answer(&mut line), Some(Answer::Site { .. })));
    assert!(answer(&mut line).is_none());
    // Control answers each, and makes a change once.
    let change = Change { key: "a".into(), expected_version: ABSENT, value: 1.into(), proposal: 7 };
    let ask = Ask::Control(ControlAsk::Propose { change, within_ms: 5000, forwarded: false });
    for _ in 0..2 {
        let mut line = client.greeted(CONTROL);
        line.write_all(&frame(&ask).repeat(50)).unwrap();
        for _ in 0..50 {
            let said = answer(&mut line);
            let Some(Answer::Control(ControlAnswer::Outcome(Outcome::Made { version: 1 }))) = said else {
                panic!("{said:?}")
            };
        }
    }
}

/// Each sends as much as an agent may take in, but for the last byte, and waits.
fn many_at_one_time(client: &Client, before: u64) {
    let ask = [&65_536_u32.to_be_bytes()[..], &[b' '; 65_535]].concat();
    let mut lines: Vec<Line> = (0..MANY).map(|_| client.greeted(AGENT)).collect();
    for line in &mut lines {
        drop(line.write_all(&ask));
    }
    lines.iter_mut().for_each(|line| assert!(answer(line).is_none()));
    let peak = client.agent_kib("VmHWM");
    println!("the agent had {before} KiB before, and {peak} KiB at most");
    assert!(peak < before + MEMORY_KIB, "{before} KiB before, and {peak} at most");
    until("the agent answers", WITHIN, || dolmen(&client.bed, "alpha", &["status"]).says(SITE).then_some(()));
}
