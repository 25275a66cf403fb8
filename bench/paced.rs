//! Sends requests at a steady rate and measures how long each took, for the case `latency`.
//!
//!     paced HOST:PORT PATH RATE SECONDS CONNECTIONS
//!
//! wrk sends the next request when the last one is answered, so a slow answer makes it ask less, and the worst
//! moments are measured least. Here each connection asks at times drawn beforehand (exponential gaps, so that all
//! of them together ask as many independent users would: a Poisson process), whether or not answers are slow. A
//! request whose time comes while its connection is still waiting is counted from that time on, not from when it
//! could at last be sent. A request on an idle connection is counted from its sending, so that a late timer of
//! this program is not blamed on the other side.
//!
//! Standard library only, so that `rustc -O` builds it. The first tenth of the time is warm-up, not counted.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const STACK_BYTES: usize = 128 * 1024;
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Task {
    address: String,
    request: Vec<u8>,
    per_second: f64,
    begin: Instant,
    counted_from: Instant,
    end: Instant,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, rate, seconds, connections] = arguments.as_slice() else {
        return Err(io::Error::other("usage: paced HOST:PORT PATH RATE SECONDS CONNECTIONS"));
    };
    let (rate, seconds): (f64, f64) = (number(rate)?, number(seconds)?);
    let connections: usize = number(connections)?;
    let begin = Instant::now() + Duration::from_millis(200);
    let task = Task {
        address: address.clone(),
        request: format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes(),
        per_second: rate / connections as f64,
        begin,
        counted_from: begin + Duration::from_secs_f64(seconds / 10.0),
        end: begin + Duration::from_secs_f64(seconds * 1.1),
    };
    let mut all = Vec::new();
    for user in spawn_all(&task, connections)? {
        all.extend(user.join().map_err(|_| io::Error::other("a user panicked"))??);
    }
    report(all, seconds)
}

fn number<N: std::str::FromStr>(text: &str) -> io::Result<N> {
    text.parse().map_err(|_| io::Error::other(format!("{text} is not a number")))
}

type User = std::thread::JoinHandle<io::Result<Vec<u32>>>;

fn spawn_all(task: &Task, connections: usize) -> io::Result<Vec<User>> {
    let spawn = |seed| {
        let task = task.clone();
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || use_site(&task, seed))
    };
    (1..=connections as u64).map(spawn).collect()
}

/// One connection's requests; how long each took, in microseconds.
fn use_site(task: &Task, seed: u64) -> io::Result<Vec<u32>> {
    let mut stream = TcpStream::connect(&task.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    let mut took = Vec::new();
    let mut due = task.begin;
    loop {
        due += Duration::from_secs_f64(random.exponential() / task.per_second);
        if due >= task.end {
            return Ok(took);
        }
        let since = await_time(due);
        stream.write_all(&task.request)?;
        read_answer(&mut stream, &mut buffer)?;
        if due >= task.counted_from {
            took.push(u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
}

/// Waits if there is time, and returns the moment from which the request counts.
fn await_time(due: Instant) -> Instant {
    let now = Instant::now();
    if due <= now {
        return due;
    }
    std::thread::sleep(due - now);
    Instant::now()
}

/// Reads one answer with a Content-Length; anything but a 200 is an error.
fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    let mut whole = None;
    while whole.is_none_or(|whole| filled < whole) {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(io::Error::other("the connection was closed, or an answer is too large"));
        }
        filled += read;
        if whole.is_none() {
            whole = whole_length(&buffer[..filled])?;
        }
    }
    Ok(())
}

/// Head and body together, once the head is complete.
fn whole_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("not a 200: {}", text.lines().next().unwrap_or_default())));
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.ok_or_else(|| io::Error::other("an answer without Content-Length"))?;
    Ok(Some(head + 4 + number::<usize>(length.trim())?))
}

/// xorshift64*, seeded by the connection's number: every run and every side gets the same times.
struct Random(u64);

impl Random {
    fn exponential(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        let unit = (bits as f64 + 0.5) / (1u64 << 53) as f64;
        -unit.ln()
    }
}

fn report(mut all: Vec<u32>, seconds: f64) -> io::Result<()> {
    all.sort_unstable();
    if all.is_empty() {
        return Err(io::Error::other("no request was made: the rate or the time is too small"));
    }
    let at = |share: f64| all[((all.len() as f64 * share) as usize).min(all.len() - 1)];
    println!(
        "{{\"requests\": {}, \"rate\": {:.1}, \"p50_us\": {}, \"p99_us\": {}, \"p99_9_us\": {}, \"max_us\": {}}}",
        all.len(),
        all.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    Ok(())
}
