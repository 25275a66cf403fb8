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
}

/// How far a chunked body was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    at: At,
    /// Whether chunk marks pass (to a reader of chunks) or are left out (to one of HTTP/1.0).
    marks: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    /// In the hex digits of a size; `length` counts the bytes of the line so far.
    Size {
        size: u64,
        length: usize,
    },
    /// After the size, until CR.
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
        Self { at: At::Size { size: 0, length: 0 }, marks: true }
    }

    /// For a reader that does not know chunks: only the data passes.
    pub fn without_marks() -> Self {
        Self { marks: false, ..Self::with_marks() }
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
            (At::Size { size, length }, b';' | b' ' | b'\t') => {
                At::Extension { size: *size, length: length + 1 }
            }
            (At::Size { size, length }, _) => {
                let digit = (byte as char).to_digit(16).ok_or(ChunkError::Size)?;
                if *length >= 15 {
                    return Err(ChunkError::Size);
                }
                At::Size { size: size << 4 | u64::from(digit), length: length + 1 }
            }
            (At::Extension { size, .. }, b'\r') => At::SizeEnd { size: *size },
            (At::Extension { size, length }, _) => {
                let allowed = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
                if !allowed || *length >= CHUNK_LINE_BYTES {
                    return Err(ChunkError::Extension);
                }
                At::Extension { size: *size, length: length + 1 }
            }
            (At::SizeEnd { size: 0 }, b'\n') => At::Trailers,
            (At::SizeEnd { size }, b'\n') => At::Data { left: *size },
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
        self.at = At::Done;
        let kept = if length == 2 { 2 } else { keep_allowed(&mut bytes[..length])? };
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

/// Fields of framing, routing, trust and of this hop are not merged from a trailer section.
fn is_allowed(name: &[u8]) -> bool {
    const REFUSED: [&str; 6] =
        ["trailer", "authorization", "cookie", "set-cookie", "content-encoding", "content-range"];
    Known::of(name) == Known::Other
        && !REFUSED.iter().any(|refused| name.eq_ignore_ascii_case(refused.as_bytes()))
        && !name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded-"))
}
