//! The `Date` field, formatted once a second.

use std::time::SystemTime;

/// The text of the current second.
#[derive(Clone, Debug)]
pub struct DateText {
    second: u64,
    text: [u8; 29],
}

impl Default for DateText {
    fn default() -> Self {
        Self { second: u64::MAX, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }
    }
}

impl DateText {
    /// The text for this time (RFC 9110 section 5.6.7).
    pub fn at(&mut self, now: SystemTime) -> &[u8; 29] {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second {
            self.second = second;
            let text = httpdate::fmt_http_date(now);
            if text.len() == self.text.len() {
                self.text.copy_from_slice(text.as_bytes());
            }
        }
        &self.text
    }
}
