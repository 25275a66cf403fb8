//! A place in PostgreSQL's write-ahead log, written as PostgreSQL writes it: `0/8135C58`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes since the beginning of the log (manual, section 8.20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(pub u64);

/// What is not a place in a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place in a write-ahead log: two hexadecimal numbers with a slash between")]
pub struct NotLsn(String);

impl fmt::Display for Lsn {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

impl FromStr for Lsn {
    type Err = NotLsn;

    fn from_str(text: &str) -> Result<Self, NotLsn> {
        let half = |digits: &str| {
            let hexadecimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            hexadecimal.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) = halves.ok_or_else(|| NotLsn(text.to_owned()))?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = NotLsn;

    fn try_from(text: String) -> Result<Self, NotLsn> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_postgresql_writes_it() {
        for (text, number) in [("0/0", 0), ("0/8135C58", 0x813_5C58), ("16/B374D848", 0x16_B374_D848)] {
            assert_eq!(text.parse(), Ok(Lsn(number)));
            assert_eq!(Lsn(number).to_string(), text);
        }
        for wrong in ["", "/", "0", "0/", "/0", "+1/0", "0/100000000", "x/1", "1/2/3"] {
            assert_eq!(wrong.parse::<Lsn>(), Err(NotLsn(wrong.into())));
        }
    }
}
