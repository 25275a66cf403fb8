//! The fuzz corpus of PostgreSQL's protocol on stable Rust: every input as it stands, and changed by a seed.
//! `DOLMEN_FUZZ_SECONDS` is how long (1), `DOLMEN_FUZZ_SEED` with what (1).

#![allow(clippy::unwrap_used)] // a test

#[path = "../../../fuzz/src/postgres.rs"]
mod postgres;

use std::path::Path;
use std::time::{Duration, Instant};

/// Inputs that grow over this are cut: what is longer only repeats.
const LONGEST: usize = 2048;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/postgres");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn replay() {
    let corpus = corpus();
    assert!(corpus.len() >= 12);
    corpus.iter().for_each(|bytes| postgres::all(bytes));
    let mut state = variable("DOLMEN_FUZZ_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below.max(1)
    };
    let end = Instant::now() + Duration::from_secs(variable("DOLMEN_FUZZ_SECONDS", 1));
    let mut runs = 0_u64;
    while Instant::now() < end {
        let mut bytes = corpus[random(corpus.len())].clone();
        for _ in 0..=random(4) {
            let other = &corpus[random(corpus.len())];
            match random(4) {
                0 if !bytes.is_empty() => {
                    let at = random(bytes.len());
                    bytes[at] = random(256) as u8;
                }
                1 => bytes.truncate(random(bytes.len() + 1)),
                2 => bytes.extend_from_slice(&other[random(other.len())..]),
                _ => {
                    let at = random(bytes.len() + 1);
                    bytes.splice(at..at, other[..random(other.len() + 1)].iter().copied());
                }
            }
        }
        bytes.truncate(LONGEST);
        if std::panic::catch_unwind(|| postgres::all(&bytes)).is_err() {
            panic!("found after {runs} runs: {:?}", bytes.escape_ascii().to_string());
        }
        runs += 1;
    }
    println!("{runs} runs");
}
