//! A steady load: so many requests a second, whatever the answers, and an account of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::Client;

/// One request that was not answered as it should be.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub method: &'static str,
    /// When it was sent, since the load began.
    pub sent: Duration,
    pub took: Duration,
    /// The status, or the error.
    pub what: String,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub gets: usize,
    pub posts: usize,
    pub failed: Vec<Outcome>,
    /// The messages of all entries whose POST was answered by 201.
    pub acknowledged: Vec<String>,
    pub slowest: Duration,
}

/// A load that runs until it is finished.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Report>>,
}

/// Connections over which the requests are spread.
const CONNECTIONS: u32 = 16;

impl Load {
    /// Begins to send this many GETs and POSTs a second over kept-alive connections.
    pub fn begin(address: SocketAddr, path: &'static str, gets: u32, posts: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let threads = (0..CONNECTIONS).map(|number| {
            let share = Share { number, address, path, gets, posts, began };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || share.send(&stop))
        });
        Self { threads: threads.collect(), stop }
    }

    /// Ends the load, and gives the account of all its requests.
    pub fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        for thread in self.threads {
            let report = thread.join().expect("a client does not panic");
            total.gets += report.gets;
            total.posts += report.posts;
            total.failed.extend(report.failed);
            total.acknowledged.extend(report.acknowledged);
            total.slowest = total.slowest.max(report.slowest);
        }
        total
    }
}

struct Share {
    number: u32,
    address: SocketAddr,
    path: &'static str,
    gets: u32,
    posts: u32,
    began: Instant,
}

impl Share {
    /// Sends its share at even times. One that is late is sent at once: the load does not wait for answers'
    /// sake, as far as one request at a time on a connection allows.
    fn send(&self, stop: &AtomicBool) -> Report {
        let mut report = Report::default();
        let mut client = None;
        let interval = Duration::from_secs(1) * CONNECTIONS / (self.gets + self.posts);
        let first = interval * self.number / CONNECTIONS;
        for count in 0.. {
            let due = self.began + first + interval * count;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let turn = u64::from(count) * u64::from(self.posts) / u64::from(self.gets + self.posts);
            let next = (u64::from(count) + 1) * u64::from(self.posts) / u64::from(self.gets + self.posts);
            self.one(next > turn, count, &mut client, &mut report);
        }
        report
    }

    fn one(&self, post: bool, count: u32, client: &mut Option<Client>, report: &mut Report) {
        let sent = Instant::now();
        let message = format!("{}-{count}", self.number);
        let method = if post { "POST" } else { "GET" };
        let answer = self.exchange(post, &message, client);
        let took = sent.elapsed();
        report.slowest = report.slowest.max(took);
        if post {
            report.posts += 1;
        } else {
            report.gets += 1;
        }
        let what = match answer {
            Ok(201) if post => {
                report.acknowledged.push(message);
                return;
            }
            Ok(200) if !post => return,
            Ok(status) => status.to_string(),
            Err(error) => {
                *client = None;
                error.to_string()
            }
        };
        report.failed.push(Outcome { method, sent: sent - self.began, took, what });
    }

    fn exchange(&self, post: bool, message: &str, client: &mut Option<Client>) -> std::io::Result<u16> {
        if client.is_none() {
            *client = Some(Client::connect(self.address)?);
        }
        let Some(connected) = client else { return Err(std::io::ErrorKind::NotConnected.into()) };
        let response = if post {
            let body = serde_json::json!({ "name": "load", "message": message }).to_string();
            connected.send("POST", "/api/entries", &["Content-Type: application/json"], body.as_bytes())?
        } else {
            connected.send("GET", self.path, &[], b"")?
        };
        if response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            *client = None;
        }
        Ok(response.status)
    }
}
