//! The fuzz corpus on stable Rust: every input as it stands, and changed at random by a seed for some seconds.
//!
//! What is found is written as a new file of the corpus, which then fails until it is mended.
//! `DOLMEN_FUZZ_SECONDS` is how long (2), `DOLMEN_FUZZ_SEED` with what (1), `DOLMEN_REWRITE` writes the seeds anew.

use std::fs::{self, File};
use std::io::Write;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{cases, hostile_servers, http};

/// Inputs that grow over this are cut: what is longer only repeats.
const LONGEST: usize = 4096;

/// What the grammar is made of, to be put anywhere.
const WORDS: [&str; 24] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "0\r\n\r\n",
    "\r\n\r\n",
    "Content-Length: ",
    "Transfer-Encoding: chunked",
    "chunked",
    "Host: a",
    "Connection: close",
    "Connection: upgrade\r\nUpgrade: a",
    "X_Forwarded_For: b",
    "HTTP/1.1",
    "HTTP/1.0",
    "GET ",
    "http://b",
    "ffffffff",
    "\x7f",
];

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder(target)).expect("a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Every case of the tables, by the target that it is a seed of.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let requests = cases::all().into_iter().filter(|case| case.bytes.len() <= LONGEST).flat_map(|case| {
        let name = format!("{}-{}", case.section, case.name);
        let body = case.bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        let body =
            case.section.starts_with('7').then(|| ("chunked", name.clone(), case.bytes[body..].to_vec()));
        [Some(("request", name, case.bytes)), body].into_iter().flatten()
    });
    let answers = hostile_servers::answers().into_iter().filter(|(_, text)| text.len() <= LONGEST);
    let answers = answers.map(|(name, text)| ("response", name.to_owned(), text.into_bytes()));
    requests.chain(answers).collect()
}

fn keep(target: &str, name: &str, bytes: &[u8]) {
    fs::create_dir_all(folder(target)).unwrap();
    File::create(folder(target).join(name)).unwrap().write_all(bytes).unwrap();
}

#[test]
fn every_case_of_the_tables_is_a_seed() {
    let rewrites = std::env::var_os("DOLMEN_REWRITE").is_some();
    for (target, name, bytes) in seeds() {
        if rewrites {
            keep(target, &name, &bytes);
        }
        let kept = fs::read(folder(target).join(&name)).unwrap_or_default();
        assert!(kept == bytes, "fuzz/corpus/{target}/{name} is not the case: run with DOLMEN_REWRITE=1");
    }
}

#[test]
fn requests_hold() {
    hold("request", http::request);
}

#[test]
fn answers_hold() {
    hold("response", http::response);
}

#[test]
fn headers_of_proxies_hold() {
    hold("proxy", http::proxy);
}

#[test]
fn chunked_bodies_hold() {
    hold("chunked", http::chunked);
}

fn hold(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|bytes| check(bytes));
    let number =
        |name: &str, other| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(other);
    let seconds = Duration::from_secs(number("DOLMEN_FUZZ_SECONDS", 2));
    let mut random = Random(number("DOLMEN_FUZZ_SEED", 1));
    let (began, mut count) = (Instant::now(), 0u64);
    while began.elapsed() < seconds {
        for _ in 0..256 {
            let bytes = changed(&corpus, &mut random);
            if catch_unwind(|| check(&bytes)).is_err() {
                let name = format!("found-{:016x}", random.next());
                keep(target, &name, &bytes);
                panic!("kept as fuzz/corpus/{target}/{name}: {}", bytes.escape_ascii());
            }
            count += 1;
        }
    }
    println!("{target}: {} inputs, {count} changed ones in {seconds:?}", corpus.len());
}

/// One of the corpus after a few changes.
fn changed(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let (at, other) = (random.below(bytes.len() + 1), random.below(bytes.len() + 1));
        match random.below(6) {
            0 => insert(&mut bytes, at, WORDS[random.below(WORDS.len())].as_bytes()),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at.min(other)..at.max(other).min(at.min(other) + 8))),
            3 => {
                let piece = bytes[at.min(other)..at.max(other)].to_vec();
                insert(&mut bytes, at, &piece);
            }
            4 => {
                let from = &corpus[random.below(corpus.len())];
                let (begin, end) = (random.below(from.len() + 1), random.below(from.len() + 1));
                insert(&mut bytes, at, &from[begin.min(end)..begin.max(end)]);
            }
            _ => bytes.truncate(at),
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

/// SplitMix64: the same seed, the same inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
