//! The chunked transfer coding (RFC 9112 section 7.1), checked strictly while it passes.
//!
//! Lenient reading of chunk lines is how requests are smuggled: every line ends in CRLF, sizes are hex digits and
//! nothing else, extensions are dropped on the way to a reader that takes no chunks and are short otherwise.

use crate::limits::{CHUNK_LINE_BYTES, FIELDS, TRAILER_BYTES};

use super::body::Step;
use super::fields::Known;

/// Why a chunked body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("a chunk size is not a hexadecimal number of at most 15 digits")]
    Size,
    #[error("a chunk extension has a forbidden byte or is too long")]
    Extension,
    #[error("a chunk does not end with CRLF")]
    End,
    #[error("the trailer section is not valid or too long")]
    Trailer,
    #[error("the body is longer than allowed")]
    TooLong,
}

/// How far a chunked body was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    at: At,
    /// Whether chunk marks pass (to a reader of chunks) or are left out (to one of HTTP/1.0).
    marks: bool,
    /// Data that may still come.
    room: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    /// In the hex digits of a size; `length` counts the bytes of the line so far.
    Size {
        size: u64,
        length: usize,
    },
    /// After blanks that follow the size: a semicolon or the end of the line must come.
    Blank {
        size: u64,
        length: usize,
    },
    /// After a semicolon, until CR.
    Extension {
        size: u64,
        length: usize,
    },
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataEnd,
    DataEndLf,
    Trailers,
    Done,
}

impl Chunked {
    pub fn with_marks() -> Self {
        Self { at: At::Size { size: 0, length: 0 }, marks: true, room: u64::MAX }
    }

    /// For a reader that does not know chunks: only the data passes.
    pub fn without_marks() -> Self {
        Self { marks: false, ..Self::with_marks() }
    }

    /// Refuses a chunk as soon as its size says that there would be more data than this.
    pub fn limit(&mut self, bytes: u64) {
        self.room = self.room.min(bytes);
    }

    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// See [`super::body::Body::advance`].
    pub fn advance(&mut self, bytes: &mut [u8]) -> Result<Step, ChunkError> {
        let mut step = Step::default();
        let mut seen = 0;
        while seen < bytes.len() && self.at != At::Done {
            let before = seen;
            let passes = match self.at {
                At::Data { left } => {
                    let count = left.min((bytes.len() - seen) as u64);
                    self.at = if count == left { At::DataEnd } else { At::Data { left: left - count } };
                    seen += count as usize;
                    true
                }
                At::Trailers => {
                    let trailers = self.trailers(&mut bytes[seen..])?;
                    return Ok(add_trailers(step, trailers));
                }
                _ => {
                    self.mark(bytes[seen])?;
                    seen += 1;
                    self.marks
                }
            };
            if passes && step.skip > 0 {
                // What passes must be in one piece: this data waits for the next call.
                self.at = undo(&self.at, seen - before);
                return Ok(step);
            }
            *if passes { &mut step.pass } else { &mut step.skip } += seen - before;
        }
        Ok(step)
    }

    /// One byte of anything but data and trailers.
    fn mark(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.at = match (&self.at, byte) {
            (At::Size { length: 0, .. }, b'\r' | b';' | b' ' | b'\t') => return Err(ChunkError::Size),
            (At::Size { size, .. }, b'\r') => At::SizeEnd { size: *size },
            (At::Size { size, length }, b';') | (At::Blank { size, length }, b';') => {
                At::Extension { size: *size, length: length + 1 }
            }
            (At::Size { size, length }, b' ' | b'\t') => At::Blank { size: *size, length: length + 1 },
            (At::Size { size, length }, _) => {
                let digit = (byte as char).to_digit(16).ok_or(ChunkError::Size)?;
                if *length >= 15 {
                    return Err(ChunkError::Size);
                }
                At::Size { size: size << 4 | u64::from(digit), length: length + 1 }
            }
            (At::Blank { size, .. } | At::Extension { size, .. }, b'\r') => At::SizeEnd { size: *size },
            (At::Blank { size, length }, b' ' | b'\t') if *length < CHUNK_LINE_BYTES => {
                At::Blank { size: *size, length: length + 1 }
            }
            (At::Blank { .. }, _) => return Err(ChunkError::Extension),
            (At::Extension { size, length }, _) => {
                let allowed = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
                if !allowed || *length >= CHUNK_LINE_BYTES {
                    return Err(ChunkError::Extension);
                }
                At::Extension { size: *size, length: length + 1 }
            }
            (At::SizeEnd { size: 0 }, b'\n') => At::Trailers,
            (At::SizeEnd { size }, b'\n') => {
                self.room = self.room.checked_sub(*size).ok_or(ChunkError::TooLong)?;
                At::Data { left: *size }
            }
            (At::SizeEnd { .. }, _) => return Err(ChunkError::Size),
            (At::DataEnd, b'\r') => At::DataEndLf,
            (At::DataEndLf, b'\n') => At::Size { size: 0, length: 0 },
            _ => return Err(ChunkError::End),
        };
        Ok(())
    }

    /// The trailer section and the empty line after it, once all of it is there: it is small, and fields that
    /// must not stand in it (RFC 9110 section 6.5.1) are taken out before any of it passes.
    fn trailers(&mut self, bytes: &mut [u8]) -> Result<Step, ChunkError> {
        let Some(length) = section_end(bytes)? else {
            return if bytes.len() > TRAILER_BYTES { Err(ChunkError::Trailer) } else { Ok(Step::default()) };
        };
        let kept = if length == 2 { 2 } else { keep_allowed(&mut bytes[..length])? };
        self.at = At::Done;
        Ok(if self.marks { Step { pass: kept, skip: length - kept } } else { Step { pass: 0, skip: length } })
    }
}

/// Puts the trailer section's step after what was counted before it.
fn add_trailers(step: Step, trailers: Step) -> Step {
    debug_assert!(step.skip == 0 || trailers.pass == 0, "marks pass always or never");
    Step { pass: step.pass + trailers.pass, skip: step.skip + trailers.skip }
}

/// Steps back over `count` bytes of data.
fn undo(at: &At, count: usize) -> At {
    match at {
        At::Data { left } => At::Data { left: left + count as u64 },
        _ => At::Data { left: count as u64 },
    }
}

/// Where the section ends, its empty line included. Lines must end in CRLF.
fn section_end(bytes: &[u8]) -> Result<Option<usize>, ChunkError> {
    let mut line = 0;
    for at in memchr::memchr_iter(b'\n', bytes) {
        if at == line || bytes[at - 1] != b'\r' {
            return Err(ChunkError::Trailer);
        }
        if at == line + 1 {
            return if at < TRAILER_BYTES { Ok(Some(at + 1)) } else { Err(ChunkError::Trailer) };
        }
        line = at + 1;
    }
    Ok(None)
}

/// Moves the allowed lines to the front and says how long the section is now.
fn keep_allowed(section: &mut [u8]) -> Result<usize, ChunkError> {
    let mut parsed = [httparse::EMPTY_HEADER; FIELDS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut parsed) else {
        return Err(ChunkError::Trailer);
    };
    let base = section.as_ptr() as usize;
    let starts: Vec<_> = fields.iter().map(|field| field.name.as_ptr() as usize - base).collect();
    let allowed: Vec<_> = fields.iter().map(|field| is_allowed(field.name.as_bytes())).collect();
    let mut kept = 0;
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(section.len() - 2);
        if allowed[index] {
            section.copy_within(*start..end, kept);
            kept += end - start;
        }
    }
    section[kept..kept + 2].copy_from_slice(b"\r\n");
    Ok(kept + 2)
}

/// Fields of framing, routing, trust, content and of this hop are not merged from a trailer section. An
/// underscore counts as a hyphen, as in a head.
fn is_allowed(name: &[u8]) -> bool {
    const REFUSED: [&str; 24] = [
        "trailer",
        "authorization",
        "proxy-authorization",
        "www-authenticate",
        "proxy-authenticate",
        "cookie",
        "set-cookie",
        "content-encoding",
        "content-range",
        "content-type",
        "cache-control",
        "pragma",
        "age",
        "expires",
        "location",
        "retry-after",
        "vary",
        "range",
        "max-forwards",
        "forwarded",
        "x-real-ip",
        "x-request-id",
        "x-http-method-override",
        "x-original-url",
    ];
    const REFUSED_KINDS: [&str; 2] = ["x-forwarded-", "if-"];
    let mut name = name.to_ascii_lowercase();
    name.iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
    Known::of(&name) == Known::Other
        && !REFUSED.iter().any(|refused| name == refused.as_bytes())
        && !REFUSED_KINDS.iter().any(|kind| name.starts_with(kind.as_bytes()))
}
