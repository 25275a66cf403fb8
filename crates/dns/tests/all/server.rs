//! The whole server over real sockets, on ports that the system chooses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use link::report::{SiteReport, State};
use link::{Line, Order, Secrets, Sockets, Start};

use crate::zone::{big, listening, query, query_edns, show};

const DEADLINE: Duration = Duration::from_secs(5);

struct Running {
    address: SocketAddr,
    line: Line,
    orders: tokio::sync::watch::Sender<Order>,
    site: tokio::sync::watch::Sender<Arc<SiteReport>>,
    thread: JoinHandle<Result<(), dns::Error>>,
}

impl Running {
    fn start() -> Self {
        // One port for both transports, as dig wants it.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.44.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let plan = listening(big(), address);
        let mut sockets = Sockets::default();
        sockets.insert("dns", udp);
        sockets.insert("dns-tcp", tcp);
        let (line, orders, site) = Line::unattached();
        let start = Start {
            me: plan.servers[0].clone(),
            plan: Arc::new(plan),
            folder: std::env::temp_dir(),
            files: std::env::temp_dir(),
            programs: std::env::temp_dir(),
            sockets,
            board: None,
            secrets: Secrets::default(),
            succeeds: false,
            line: line.clone(),
        };
        let thread = std::thread::spawn(move || dns::run(start));
        Self { address, line, orders, site, thread }
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.44.1:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.connect(self.address).unwrap();
        socket
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn stop(self) {
        self.orders.send_replace(Order::Stop { within: DEADLINE });
        let begin = Instant::now();
        self.thread.join().unwrap().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(2), "took {:?}", begin.elapsed());
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn next(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

#[test]
fn it_answers_datagrams_and_says_where() {
    let server = Running::start();
    let socket = server.udp();
    let mut buffer = [0; 1500];
    for _ in 0..100 {
        socket.send(&query("www.foobar.com", "AAAA")).unwrap();
    }
    for _ in 0..100 {
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(show(&buffer[..length]), "NOERROR aa rd\nwww.foobar.com. 60 IN AAAA 2001:db8::2");
    }
    let report = server.line.last_report();
    assert_eq!(report.state, State::Healthy);
    assert_eq!(report.because, format!("answering for foobar.com on {}", server.address));
    server.stop();
}

#[test]
fn rfc7766_6_2_1_1_many_queries_on_one_connection_without_waiting() {
    let server = Running::start();
    let mut stream = server.tcp();
    let big = framed(&query_edns("text.foobar.com", "TXT", 1232, 0, false));
    let small = framed(&query("www.foobar.com", "AAAA"));
    let all: Vec<u8> = (0..300).flat_map(|_| [&big[..], &small[..]].concat()).collect();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&all).unwrap());
    for _ in 0..300 {
        assert!(next(&mut stream).len() > 1400);
        assert_eq!(show(&next(&mut stream)), "NOERROR aa rd\nwww.foobar.com. 60 IN AAAA 2001:db8::2");
    }
    writing.join().unwrap();
    server.stop();
}

#[test]
fn rfc7766_8_a_message_may_come_in_pieces() {
    let server = Running::start();
    let mut stream = server.tcp();
    stream.set_nodelay(true).unwrap();
    for byte in framed(&query("www.foobar.com", "AAAA")) {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(show(&next(&mut stream)).starts_with("NOERROR aa"));
    server.stop();
}

#[test]
fn what_is_no_query_ends_the_connection() {
    let server = Running::start();
    let mut stream = server.tcp();
    stream.write_all(b"\x00\x04GET ").unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    server.stop();
}

#[test]
fn one_client_cannot_take_all_connections() {
    let server = Running::start();
    let streams: Vec<_> = (0..140).map(|_| server.tcp()).collect();
    let closed = |mut stream: &TcpStream| matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_));
    streams[139].set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(closed(&streams[139]), "the last is turned away");
    let mut first = &streams[0];
    first.write_all(&framed(&query("www.foobar.com", "A"))).unwrap();
    let mut length = [0; 2];
    first.read_exact(&mut length).unwrap();
    server.stop();
}

/// `dig` comes with bind9-dnsutils, which `make test` installs.
fn dig(server: &Running, arguments: &[&str]) -> String {
    let output = Command::new("dig")
        .arg(format!("@{}", server.address.ip()))
        .args(["-p", &server.address.port().to_string(), "+tries=1", "+time=5", "+norecurse"])
        .args(arguments)
        .output()
        .expect("dig is installed (package bind9-dnsutils): run make test, which installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn dig_gets_what_it_asks_for() {
    let server = Running::start();
    assert_eq!(dig(&server, &["+short", "www.foobar.com", "AAAA"]), "2001:db8::2\n");
    let mut both: Vec<_> = dig(&server, &["+short", "www.foobar.com"]).lines().map(str::to_owned).collect();
    both.sort();
    assert_eq!(both, ["127.0.44.1", "203.0.113.2"]);
    let truncated_first = dig(&server, &["many.foobar.com", "A", "+noedns"]);
    assert!(truncated_first.contains(";; Truncated, retrying in TCP mode."), "{truncated_first}");
    assert!(truncated_first.contains("ANSWER: 40,"));
    let whole = dig(&server, &["nobody.foobar.com"]);
    assert!(whole.contains("status: NXDOMAIN") && whole.contains("flags: qr aa;"), "{whole}");
    assert!(!whole.contains("WARNING") && !whole.contains("malformed"), "{whole}");
    assert!(dig(&server, &["+tcp", "example.com"]).contains("status: REFUSED"));
    server.stop();
}

fn all_with(balancers: [State; 2]) -> Arc<SiteReport> {
    let server = |(number, state): (usize, State)| {
        serde_json::json!({ "name": format!("balancer-{}", number + 1), "role": "balancer", "machine": "alpha",
                            "pid": 1, "state": state, "because": "", "listen": [] })
    };
    let servers: Vec<_> = balancers.into_iter().enumerate().map(server).collect();
    let machine =
        serde_json::json!({ "name": "alpha", "address": "127.0.44.1", "state": "up", "servers": servers });
    Arc::new(serde_json::from_value(serde_json::json!({ "machines": [machine] })).unwrap())
}

#[test]
fn a_balancer_that_is_down_is_not_named_while_another_one_is_left() {
    use State::{Down, Healthy, Starting, Unhealthy};
    let server = Running::start();
    let socket = server.udp();
    let both = "NOERROR aa rd\nwww.foobar.com. 60 IN A 127.0.44.1\nwww.foobar.com. 60 IN A 203.0.113.2";
    let second = "NOERROR aa rd\nwww.foobar.com. 60 IN A 203.0.113.2";
    for (balancers, expect) in [
        ([Down, Healthy], second),
        // Whatever it lacks, it answers.
        ([Unhealthy, Healthy], both),
        ([Down, Unhealthy], second),
        ([Starting, Healthy], both),
        ([Down, Down], both),
    ] {
        server.site.send_replace(all_with(balancers));
        let deadline = Instant::now() + DEADLINE;
        let mut buffer = [0; 1500];
        loop {
            socket.send(&query("www.foobar.com", "A")).unwrap();
            let length = socket.recv(&mut buffer).unwrap();
            let answer = show(&buffer[..length]);
            // Whose turn it is to be first is not the question.
            let mut lines: Vec<&str> = answer.lines().collect();
            lines[1..].sort_unstable();
            if lines.join("\n") == expect {
                break;
            }
            assert!(Instant::now() < deadline, "{balancers:?}: {answer}");
        }
    }
    server.stop();
}
