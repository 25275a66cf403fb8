//! The tokens that this machine gave: on disk, since a restart must not make a used one good again.
//!
//! Only the fingerprints of their keys are kept. One that was used or is late is remembered for a while, so that
//! whoever comes with it gets a sentence and not only a closed door.

use std::io;
use std::path::{Path, PathBuf};

use link::api::Fingerprint;
use link::disk::{self, Access};
use serde::{Deserialize, Serialize};

use super::desk::span;

const FILE: &str = "tokens.json";

/// Tokens that are remembered; the oldest are forgotten first.
const KEPT: usize = 256;

/// A token is good for at most a day.
pub const MINUTES_MAX: u32 = 24 * 60;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    key: Fingerprint,
    machine: String,
    /// Seconds since 1970, by this machine's clock alone.
    until_s: u64,
    used_s: Option<u64>,
}

/// All tokens of this machine.
#[derive(Debug)]
pub struct Tokens {
    file: PathBuf,
    given: Vec<Given>,
}

impl Tokens {
    pub fn open(root: &Path) -> io::Result<Self> {
        let file = root.join(FILE);
        Ok(Self { given: disk::read_json(&file)?.unwrap_or_default(), file })
    }

    pub fn keys(&self) -> impl Iterator<Item = Fingerprint> {
        self.given.iter().map(|given| given.key)
    }

    pub fn give(&mut self, key: Fingerprint, machine: &str, until_s: u64) -> io::Result<()> {
        let excess = (self.given.len() + 1).saturating_sub(KEPT);
        self.given.drain(..excess);
        self.given.push(Given { key, machine: machine.to_owned(), until_s, used_s: None });
        self.write()
    }

    /// The machine that may join by the token of this key now, or why none may.
    pub fn check(&self, key: Fingerprint, now_s: u64) -> Result<&str, String> {
        let unknown = || "this machine does not know the token: another one is needed".to_owned();
        let given = self.given.iter().find(|given| given.key == key).ok_or_else(unknown)?;
        if let Some(used_s) = given.used_s {
            let ago = span(now_s.saturating_sub(used_s));
            return Err(format!("the token was used {ago} ago, and is good only once"));
        }
        if now_s > given.until_s {
            return Err(format!("the token is {} too late", span(now_s - given.until_s)));
        }
        Ok(&given.machine)
    }

    /// Says on disk that the token was used, before anybody is answered.
    pub fn spend(&mut self, key: Fingerprint, now_s: u64) -> io::Result<()> {
        self.given.iter_mut().filter(|given| given.key == key).for_each(|given| given.used_s = Some(now_s));
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        disk::replace_json(&self.file, &self.given, Access::Owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_a_while_also_after_a_restart() {
        let folder = std::env::temp_dir().join(format!("dolmen-tokens-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (key, late) = (Fingerprint::of(b"one"), Fingerprint::of(b"two"));
        let mut tokens = Tokens::open(&folder).unwrap();
        tokens.give(key, "beta", 1000).unwrap();
        tokens.give(late, "gamma", 1000).unwrap();
        assert_eq!(tokens.check(key, 1000).unwrap(), "beta");
        assert!(tokens.check(Fingerprint::of(b"three"), 1).unwrap_err().contains("does not know"));
        assert_eq!(tokens.check(late, 1300).unwrap_err(), "the token is 5 minutes too late");
        tokens.spend(key, 900).unwrap();
        let again = Tokens::open(&folder).unwrap();
        let because = again.check(key, 930).unwrap_err();
        assert_eq!(because, "the token was used 30 s ago, and is good only once");
        for number in 0..KEPT as u64 {
            tokens.give(Fingerprint::of(&number.to_ne_bytes()), "beta", 1000).unwrap();
        }
        assert_eq!(tokens.keys().count(), KEPT);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
