//! A stage for scenes with a client, a relay and an origin, all on loopback and port 0.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use relay::{
    Edits, Ended, Exchange, Handler, HeadEdits, Inner, Io, Secured, Serving, Settings, Stop, Via, Way,
};

/// How long any wait of a test may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a condition, and fails when it does not come.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server that plays a script on each connection.
pub struct Origin {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    closed: AtomicUsize,
    ends: AtomicBool,
    seen: Mutex<Vec<String>>,
}

/// One that answers every request alike and shows the heads it saw.
pub fn always(answer: &'static str) -> Origin {
    Origin::start(move |stream, seen| {
        while let Some(head) = read_head(stream) {
            seen.push(head);
            stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    })
}

/// What a script notes of the requests.
pub struct Seen(Arc<State>);

impl Seen {
    pub fn push(&mut self, text: String) {
        self.0.seen.lock().unwrap().push(text);
    }
}

impl Origin {
    pub fn start(
        script: impl Fn(&mut TcpStream, &mut Seen) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0", script)
    }

    pub fn start_at(
        address: &str,
        script: impl Fn(&mut TcpStream, &mut Seen) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (script, shared) = (Arc::new(script), Arc::clone(&state));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                if shared.ends.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (script, shared) = (Arc::clone(&script), Arc::clone(&shared));
                std::thread::spawn(move || {
                    // A relay that hangs up is what many scenes are about.
                    let _ = script(&mut stream, &mut Seen(Arc::clone(&shared)));
                    drop(stream);
                    shared.closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub fn seen(&self) -> Vec<String> {
        self.state.seen.lock().unwrap().clone()
    }

    pub fn closed(&self) -> usize {
        self.state.closed.load(Ordering::SeqCst)
    }

    /// Waits until so many connections were played to their end.
    pub fn wait_closed(&self, count: usize) {
        wait_until("a connection is closed", || self.state.closed.load(Ordering::SeqCst) >= count);
    }

    /// Waits until the relay has taken so many requests.
    pub fn wait_seen_or_requests(&self, relay: &Relay, count: u64) {
        wait_until("the requests are under way", || relay.count("requests") >= count);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

/// Reads one head, byte by byte so that nothing after it is taken. None at the end.
pub fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// The engine with a handler that tries its targets in order.
pub struct Relay {
    address: SocketAddr,
    stop: Stop,
    serving: Option<Serving>,
}

struct InOrder(Vec<SocketAddr>, Option<Secured>);

impl Handler for InOrder {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        let edits = Edits {
            request: HeadEdits { set: &[("x-edit", "")], via: Via::Add("1.1 relay"), ..HeadEdits::default() },
            answer: HeadEdits { via: Via::Add("1.1 relay"), ..HeadEdits::default() },
        };
        let mut status = 503;
        for target in &self.0 {
            let way = Way::new(*target, None).secured(self.1.as_ref());
            match exchange.forward(way, &edits).await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    status = error.status();
                    if !error.elsewhere() {
                        break;
                    }
                }
            }
        }
        exchange.reply(status, &[], b"").await
    }
}

pub fn timeouts() -> plan::Timeouts {
    plan::Timeouts {
        header_ms: 500,
        idle_ms: 5_000,
        connect_ms: 1_000,
        first_byte_ms: 5_000,
        body_ms: 5_000,
        tunnel_ms: 5_000,
    }
}

impl Relay {
    pub fn to(origin: &Origin) -> Self {
        Self::start(origin, |_| {})
    }

    /// With other time-outs than a second or two.
    pub fn start(origin: &Origin, change: impl Fn(&mut plan::Timeouts)) -> Self {
        let mut timeouts = timeouts();
        change(&mut timeouts);
        Self::with("127.0.0.1:0", vec![origin.address], timeouts)
    }

    /// The first target refuses connections.
    pub fn to_first_refusing(origin: &Origin) -> Self {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::with("127.0.0.1:0", vec![gone, origin.address], timeouts())
    }

    /// Listens at another address than that of most scenes.
    pub fn at(address: &str, origin: &Origin) -> Self {
        Self::with(address, vec![origin.address], timeouts())
    }

    /// Reads connections in this way, whatever the environment says.
    pub fn through(io: Io, origin: &Origin) -> Self {
        Self::set("127.0.0.1:0", vec![origin.address], Settings { io, ..Settings::new(timeouts()) })
    }

    fn with(address: &str, targets: Vec<SocketAddr>, timeouts: plan::Timeouts) -> Self {
        Self::set(address, targets, Settings::new(timeouts))
    }

    /// Reaches another one in TLS.
    pub fn before(other: &Relay, secured: Secured) -> Self {
        Self::all("127.0.0.1:0", vec![other.address], Some(secured), Settings::new(timeouts()))
    }

    /// Takes what comes from other machines in TLS only.
    pub fn within(address: &str, inner: Inner, origin: &Origin) -> Self {
        let settings = Settings::new(timeouts()).within(Some(inner));
        Self::set(address, vec![origin.address], settings)
    }

    pub fn set(address: &str, targets: Vec<SocketAddr>, settings: Settings) -> Self {
        Self::all(address, targets, None, settings)
    }

    fn all(address: &str, targets: Vec<SocketAddr>, secured: Option<Secured>, settings: Settings) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop::default();
        let handler = move |_| InOrder(targets.clone(), secured.clone());
        let serving = relay::serve(vec![listener], settings, stop.clone(), handler).unwrap();
        Self { address, stop, serving: Some(serving) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn count(&self, name: &str) -> u64 {
        self.serving.as_ref().map_or(0, |serving| serving.totals()[name])
    }

    pub fn wait_for(&self, name: &str, count: u64) {
        wait_until(name, || self.count(name) == count);
    }

    pub fn drain(&self) {
        self.stop.drain(Duration::from_secs(5));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.drain(Duration::ZERO);
        if let Some(serving) = self.serving.take() {
            serving.wait();
        }
    }
}

/// A client that writes what no browser would.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn connect(relay: &Relay) -> Self {
        Self::to(relay.address())
    }

    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub fn send(&mut self, text: &str) {
        // The relay may have hung up already, which the scene then sees in the answer.
        let _ = self.stream.write_all(text.as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn head(&mut self) -> String {
        read_head(&mut self.stream).expect("a head")
    }

    /// One answer with a Content-Length.
    pub fn answer(&mut self) -> String {
        let head = self.head();
        let length = head.to_ascii_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        head + &String::from_utf8(body).unwrap()
    }

    pub fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        self.stream.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }

    pub fn read(&mut self, block: &mut [u8]) -> usize {
        let count = self.stream.read(block).unwrap();
        assert!(count > 0, "the connection ended");
        count
    }

    /// All until the end, whatever bytes and however the connection ends.
    pub fn rest_lossy(&mut self) -> String {
        let (mut bytes, mut block) = (Vec::new(), [0; 4096]);
        while let Ok(count) = self.stream.read(&mut block) {
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&block[..count]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All until the end.
    pub fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}
