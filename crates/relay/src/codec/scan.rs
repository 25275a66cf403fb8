//! Finds the end of a head, however it is cut into reads, looking at each byte once.

use std::sync::LazyLock;

use memchr::memchr_iter;
use memchr::memmem::Finder;

use crate::limits;

/// What ends a head whose lines all end as they should.
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// How far a head was looked through. Lives as long as one head is being read.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Bytes that need not be looked at again.
    seen: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the head begins: after empty lines, which a client may send before a request.
    begin: usize,
    empty_lines: usize,
    /// Whether the first line was complete.
    first_line: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// More bytes are needed.
    Partial,
    /// The head is `begin..end`, the empty line included.
    Head { begin: usize, end: usize },
    /// A line that ends in LF without CR (RFC 9112 section 2.2 allows to refuse it, and readers disagree on it).
    BareLineFeed,
    /// The first line is longer than [`limits::REQUEST_LINE_BYTES`].
    FirstLineTooLong,
    /// The whole is longer than [`limits::HEAD_BYTES`].
    HeadTooLong,
}

impl Scan {
    /// Looks at `bytes`, which begin where they began in the last call and may have grown.
    pub fn advance(&mut self, bytes: &[u8]) -> Found {
        if self.seen == 0
            && let Some(end) = plain_end(bytes)
        {
            return Found::Head { begin: 0, end };
        }
        for at in memchr_iter(b'\n', &bytes[self.seen..]) {
            let at = self.seen + at;
            if at == self.line || bytes[at - 1] != b'\r' {
                return Found::BareLineFeed;
            }
            let empty = at == self.line + 1;
            self.line = at + 1;
            if empty && self.first_line {
                return self.complete(at + 1);
            } else if empty {
                self.begin = at + 1;
                self.empty_lines += 1;
                if self.empty_lines > limits::LEADING_EMPTY_LINES {
                    return Found::BareLineFeed;
                }
            } else if !self.first_line {
                self.first_line = true;
                if at - self.begin > limits::REQUEST_LINE_BYTES {
                    return Found::FirstLineTooLong;
                }
            }
        }
        self.seen = bytes.len();
        self.incomplete(bytes.len())
    }

    /// Whether nothing but empty lines came so far.
    pub fn is_blank(&self, bytes: &[u8]) -> bool {
        bytes[self.begin.min(bytes.len())..].iter().all(|byte| *byte == b'\r')
    }

    /// Whether what came so far can never become a head: it does not begin with a method, or its first line names
    /// no version (HTTP/0.9, or another protocol). Its sender waits for an answer and would send nothing more.
    pub fn is_hopeless(&self, bytes: &[u8]) -> bool {
        let rest = &bytes[self.begin.min(bytes.len())..];
        let begins = rest.first().is_none_or(|byte| *byte == b'\r' || byte.is_ascii_graphic());
        let names_version = || {
            let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
            memchr::memmem::find(line, b" HTTP/").is_some()
        };
        !begins || self.first_line && !names_version()
    }

    fn complete(&self, end: usize) -> Found {
        if end - self.begin > limits::HEAD_BYTES {
            return Found::HeadTooLong;
        }
        Found::Head { begin: self.begin, end }
    }

    fn incomplete(&self, length: usize) -> Found {
        if !self.first_line && length - self.begin > limits::REQUEST_LINE_BYTES {
            Found::FirstLineTooLong
        } else if length - self.begin >= limits::HEAD_BYTES {
            Found::HeadTooLong
        } else {
            Found::Partial
        }
    }
}

/// Where a head ends that is here as a whole, with nothing before it and nothing wrong with its lines or its length, as
/// nearly all are. Sooner known than by going from line to line; None says nothing.
fn plain_end(bytes: &[u8]) -> Option<usize> {
    let end = END.find(bytes)? + END.needle().len();
    let head = &bytes[..end];
    let line = memchr::memchr(b'\n', head)?;
    let bare =
        head.iter().zip(&head[1..]).fold(false, |bare, (cr, lf)| bare | (*lf == b'\n') & (*cr != b'\r'));
    let begins = !matches!(head[0], b'\r' | b'\n');
    (begins && !bare && line <= limits::REQUEST_LINE_BYTES && end <= limits::HEAD_BYTES).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_empty_line() {
        let scan = |bytes: &[u8]| Scan::default().advance(bytes);
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA: b\r\n\r\nmore"), Found::Head { begin: 0, end: 24 });
        assert_eq!(scan(b"\r\nGET / HTTP/1.1\r\n\r\n"), Found::Head { begin: 2, end: 20 });
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA: b\r\n"), Found::Partial);
        assert_eq!(scan(b"GET / HTTP/1.1\nA: b\r\n"), Found::BareLineFeed);
        assert_eq!(scan(b"\r\n\r\n\r\n"), Found::BareLineFeed);
        assert_eq!(scan(b"\n"), Found::BareLineFeed);
    }

    #[test]
    fn tells_what_can_never_be_a_head() {
        let hopeless = |bytes: &[u8]| {
            let mut scan = Scan::default();
            assert_eq!(scan.advance(bytes), Found::Partial);
            scan.is_hopeless(bytes)
        };
        for bytes in ["", "\r", "G", "GET / HT", "GET / HTTP/1.1\r\nA", "\r\n\r\nGET"] {
            assert!(!hopeless(bytes.as_bytes()), "{bytes:?}");
        }
        for bytes in ["\x16\x03\x01", " GET", "GET /\r\n", "\r\n\0"] {
            assert!(hopeless(bytes.as_bytes()), "{bytes:?}");
        }
    }

    #[test]
    fn limits_lines_and_heads() {
        let line = vec![b'a'; limits::REQUEST_LINE_BYTES + 1];
        assert_eq!(Scan::default().advance(&line), Found::FirstLineTooLong);
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        head.resize(limits::HEAD_BYTES, b'a');
        assert_eq!(Scan::default().advance(&head), Found::HeadTooLong);
    }

    proptest::proptest! {
        #[test]
        fn a_head_at_once_is_found_as_line_by_line(bytes in "[a\r\n]{0,12}(\r\n\r\n)?[a\r\n]{0,3}") {
            let mut lines = Scan::default();
            let by_bytes = (0..=bytes.len()).map(|length| lines.advance(&bytes.as_bytes()[..length]));
            let found = by_bytes.into_iter().find(|found| *found != Found::Partial).unwrap_or(Found::Partial);
            proptest::prop_assert_eq!(Scan::default().advance(bytes.as_bytes()), found);
        }

        #[test]
        fn any_cut_gives_the_same(bytes in "[a\r\n]{0,12}(\r\n\r\n)?", cut in 0usize..16) {
            let cut = cut.min(bytes.len());
            let mut scan = Scan::default();
            let early = scan.advance(&bytes.as_bytes()[..cut]);
            let late = if early == Found::Partial { scan.advance(bytes.as_bytes()) } else { early };
            proptest::prop_assert_eq!(late, Scan::default().advance(bytes.as_bytes()));
        }
    }
}
