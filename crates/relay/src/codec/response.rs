//! The head of an answer.

use super::body::Body;
use super::chunked::Chunked;
use super::fields::{Fields, Known, unparsed};
use super::request::plain_number;

/// Why an answer cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    #[error("the status line or a header field of the answer is malformed")]
    Malformed,
    #[error("the head of the answer is too long or has too many fields")]
    TooLong,
    #[error("the answer's framing is ambiguous")]
    Framing,
}

/// An answer's head. Owned, and loaded again for each answer of a connection.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    fields: Fields,
    status: u16,
    minor: u8,
    /// Where the status code begins in the head: after the version and a space.
    code: usize,
    /// Where the status line ends, CRLF included.
    line_end: usize,
    /// See [`ResponseHead::keeps_body`].
    keeps_body: bool,
}

impl ResponseHead {
    /// Reads a complete head and says how the body is framed, knowing whether the request was HEAD.
    pub fn load(&mut self, head: &[u8], to_head: bool) -> Result<Body, BadResponse> {
        let mut fields = unparsed();
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut response, head, &mut fields) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(BadResponse::TooLong),
            _ => return Err(BadResponse::Malformed),
        }
        let (Some(status), Some(minor)) = (response.code, response.version) else {
            return Err(BadResponse::Malformed);
        };
        if !(100..=999).contains(&status) {
            return Err(BadResponse::Malformed);
        }
        self.status = status;
        self.minor = minor;
        self.code = "HTTP/1.x ".len();
        self.line_end = memchr::memchr(b'\n', head).map_or(head.len(), |at| at + 1);
        self.fields.load(head, response.headers);
        self.framing(to_head)
    }

    /// RFC 9112 section 6.3. Two lengths, or a length beside a coding, are refused: somebody behind us and
    /// somebody before us could understand them differently.
    fn framing(&mut self, to_head: bool) -> Result<Body, BadResponse> {
        let mut lengths = self.fields.known(Known::ContentLength);
        let length = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(text), None) => Some(plain_number(text).ok_or(BadResponse::Framing)?),
            _ => return Err(BadResponse::Framing),
        };
        let mut codings = self.fields.known(Known::TransferEncoding);
        let coded = match (codings.next(), codings.next()) {
            (None, _) => false,
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => true,
            _ => return Err(BadResponse::Framing),
        };
        if coded && (length.is_some() || self.minor == 0) {
            return Err(BadResponse::Framing);
        }
        let has_none = to_head || self.status < 200 || matches!(self.status, 204 | 304);
        self.keeps_body = has_none && (coded || length.is_some_and(|length| length > 0));
        if has_none {
            return Ok(Body::NONE);
        }
        Ok(match (coded, length) {
            (true, _) => Body::Chunked(Chunked::with_marks()),
            (false, Some(length)) => Body::Length(length),
            (false, None) => Body::UntilClose,
        })
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// 1xx: another head follows. 101 is not one of these: after it HTTP is over.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Whether it tells of a body that does not follow it.
    pub fn keeps_body(&self) -> bool {
        self.keeps_body
    }

    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The status line from the code on, CRLF included.
    pub(crate) fn code_and_reason(&self) -> &[u8] {
        &self.fields.bytes()[self.code..self.line_end]
    }

    /// Whether the connection it came on may be used again.
    pub fn keeps_alive(&self) -> bool {
        let connection = self.fields.connection;
        !connection.close && (self.minor == 1 || connection.keep_alive)
    }
}
