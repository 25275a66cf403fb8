//! What workers write, line by line into the log.
//!
//! The pipe is always emptied, so that a worker never waits for us; what is too long or too much is left out,
//! and the log says how much that was. Bytes that are not text are made visible, so that a worker cannot
//! write control characters to the terminal of whoever reads the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// The longest line in bytes; the rest of a longer one is left out.
const LINE: usize = 4096;
/// Lines that may come at once, and how many each second after that.
const BURST: u32 = 2000;
const PER_SECOND: u32 = 200;
/// The longest last line in the state of a server, in characters.
const LAST: usize = 200;
const READ: usize = 16 * 1024;
/// What workers say when their port is taken, in lower case: C and most others, Node.js, Go and Java.
const PORT_TAKEN: [&str; 3] = ["address already in use", "eaddrinuse", "address in use"];

/// What is remembered of the output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    last: Option<String>,
    port_taken: bool,
}

impl Tail {
    /// The last line that was not empty, shortened.
    pub(crate) fn last(&self) -> Option<String> {
        self.remembered().last.clone()
    }

    pub(crate) fn port_taken(&self) -> bool {
        self.remembered().port_taken
    }

    fn note(&self, line: &str) {
        let mut remembered = self.remembered();
        let lower = line.to_ascii_lowercase();
        remembered.port_taken |= PORT_TAKEN.iter().any(|text| lower.contains(text));
        let line = line.trim();
        if !line.is_empty() {
            let short: String = line.chars().take(LAST).collect();
            remembered.last = Some(if short.len() < line.len() { short + "…" } else { short });
        }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies until the last writer has closed the pipe. `name` begins each line.
pub(crate) async fn copy(mut pipe: Receiver, name: String, tail: Tail) {
    let (mut lines, mut rate) = (Lines::default(), Rate::new(Instant::now()));
    let mut say = |line: &str, now| {
        tail.note(line);
        let (may, left_out) = rate.take(now);
        if left_out > 0 {
            tracing::warn!(target: "worker", "{name}: {left_out} lines were too many and are left out here");
        }
        if may {
            tracing::info!(target: "worker", "{name}: {line}");
        }
    };
    let mut buffer = vec![0; READ];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => lines.push(&buffer[..count], |line| say(line, Instant::now())),
            Err(error) => {
                tracing::debug!("the output of {name} ended: {error}");
                break;
            }
        }
    }
    lines.finish(|line| say(line, Instant::now()));
}

/// Puts bytes together to lines.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    left_out: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = text.len().min(LINE - self.line.len());
            self.line.extend_from_slice(&text[..room]);
            self.left_out += text.len() - room;
            if ends {
                self.complete(&mut each);
            }
        }
    }

    /// The last line may have no end.
    fn finish(&mut self, mut each: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.complete(&mut each);
        }
    }

    fn complete(&mut self, each: &mut impl FnMut(&str)) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let mut text = printable(&String::from_utf8_lossy(line));
        if self.left_out > 0 {
            text += &format!("… ({} bytes left out)", self.left_out);
        }
        each(&text);
        self.line.clear();
        self.left_out = 0;
    }
}

/// Control characters as they would be written in a program; colours of a terminal are left out.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' && characters.next_if_eq(&'[').is_some() {
            // ECMA-48 section 5.4: up to the final byte.
            let _ = characters.find(|next| ('@'..='~').contains(next));
        } else if character.is_control() && character != '\t' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// A bucket of lines that fills with time.
#[derive(Debug)]
struct Rate {
    left: u32,
    filled: Instant,
    left_out: u64,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now, left_out: 0 }
    }

    /// Whether a line may be written, and how many were left out since the last that was.
    fn take(&mut self, now: Instant) -> (bool, u64) {
        let seconds = now.saturating_duration_since(self.filled).as_secs() as u32;
        if seconds > 0 {
            self.left = self.left.saturating_add(seconds.saturating_mul(PER_SECOND)).min(BURST);
            self.filled += Duration::from_secs(seconds.into());
        }
        if self.left == 0 {
            self.left_out += 1;
            return (false, 0);
        }
        self.left -= 1;
        (true, std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for part in parts {
            lines.push(part, |line| all.push(line.to_owned()));
        }
        lines.finish(|line| all.push(line.to_owned()));
        all
    }

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        assert_eq!(lines(&[b"one\ntw", b"o\r\n", b"\nlast"]), ["one", "two", "", "last"]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn what_is_no_text_is_made_visible() {
        assert_eq!(lines(&[b"a\xff\x07b\tc\n"]), ["a\u{fffd}\\u{7}b\tc"]);
        assert_eq!(lines(&[b"\x1b[31mred\x1b[0m plain \x1b]0;title\n"]), ["red plain \\u{1b}]0;title"]);
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = vec![b'x'; LINE + 10];
        let expect = format!("{}… (10 bytes left out)", "x".repeat(LINE));
        assert_eq!(lines(&[&long[..7], &long[7..], b"\nnext\n"]), [expect, "next".into()]);
    }

    #[test]
    fn too_many_lines_are_counted() {
        let begin = Instant::now();
        let mut rate = Rate::new(begin);
        assert_eq!((0..BURST + 5).filter(|_| rate.take(begin).0).count(), BURST as usize);
        assert_eq!(rate.take(begin + Duration::from_secs(1)), (true, 5));
        assert_eq!(rate.take(begin + Duration::from_secs(1)), (true, 0));
    }

    #[test]
    fn the_tail_remembers_the_last_line_and_a_taken_port() {
        let tail = Tail::default();
        for line in ["OSError: [Errno 98] Address already in use", "", "  the end  ", "   "] {
            tail.note(line);
        }
        assert_eq!((tail.last().as_deref(), tail.port_taken()), (Some("the end"), true));
        tail.note(&"ü".repeat(300));
        assert_eq!(tail.last().unwrap().chars().count(), LAST + 1);
    }
}
