//! The head of a request, checked so that nobody behind us can read it in another way.

use super::body::Body;
use super::chunked::Chunked;
use super::fields::{Fields, Known, tokens, unparsed};
use super::target::{self, Target};
use crate::limits::FREE_HEAD_BYTES;

/// Why a request is refused. Each has the status that the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request line or a header field is malformed")]
    Malformed,
    #[error("a line of the head does not end in CRLF")]
    BareLineFeed,
    #[error("the request line is too long")]
    TargetTooLong,
    #[error("the head is too long or has too many fields")]
    HeadTooLong,
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    #[error("the request target is malformed")]
    Target,
    #[error("the Host field is missing, repeated or malformed")]
    Host,
    #[error("Content-Length is repeated or not a plain number")]
    ContentLength,
    #[error("both Content-Length and Transfer-Encoding")]
    BothFramings,
    #[error("Transfer-Encoding is repeated, does not end with one chunked, or comes with HTTP/1.0")]
    TransferEncoding,
    #[error("a transfer coding other than chunked")]
    TransferCoding,
    #[error("the method is CONNECT")]
    Connect,
    #[error("the method is TRACE")]
    Trace,
}

impl Refusal {
    pub fn status(self) -> u16 {
        match self {
            Refusal::TargetTooLong => 414,
            Refusal::HeadTooLong => 431,
            Refusal::Version => 505,
            Refusal::TransferCoding | Refusal::Connect | Refusal::Trace => 501,
            _ => 400,
        }
    }
}

/// A request's head. Owned, and loaded again for each request of a connection.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    fields: Fields,
    /// Method, target and host, one after the other.
    text: String,
    method_end: usize,
    target_end: usize,
    has_host: bool,
    is_head: bool,
    is_idempotent: bool,
    /// Whether the host came from the target, so that the Host field must be written anew.
    absolute: bool,
    /// 0 or 1: HTTP/1.0 or HTTP/1.1.
    minor: u8,
}

impl RequestHead {
    /// Reads a complete head, the empty line included, and says how its body is framed.
    pub fn load(&mut self, head: &[u8]) -> Result<Body, Refusal> {
        let mut fields = unparsed();
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, &mut fields) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Ok(_) => return Err(Refusal::Malformed),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLong),
            Err(httparse::Error::Version) if names_version(head) => return Err(Refusal::Version),
            Err(_) => return Err(Refusal::Malformed),
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
        else {
            return Err(Refusal::Malformed);
        };
        self.fields.load(head, request.headers);
        self.minor = minor;
        self.text.clear();
        self.text.push_str(method);
        self.method_end = method.len();
        self.is_head = method == "HEAD";
        self.is_idempotent = matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE");
        let authority = self.place_target(target, method)?;
        self.target_end = self.text.len();
        self.place_host(authority)?;
        self.framing()
    }

    /// Understands the target; the absolute form becomes the origin form, and its authority, which is returned, the
    /// host (RFC 9112 section 3.2.2).
    fn place_target<'t>(&mut self, target: &'t str, method: &str) -> Result<Option<&'t str>, Refusal> {
        let mut host = None;
        match target::read(target.as_bytes()).ok_or(Refusal::Target)? {
            Target::Origin => self.text.push_str(target),
            Target::Asterisk if method == "OPTIONS" => self.text.push_str(target),
            Target::Absolute { authority, path } => {
                host = target.get(authority);
                let rest = target.get(path.start..).unwrap_or_default();
                if !rest.starts_with('/') {
                    // A server as a whole is asked for in this form (RFC 9112 section 3.2.4).
                    let whole = method == "OPTIONS" && rest.is_empty();
                    self.text.push_str(if whole { "*" } else { "/" });
                }
                self.text.push_str(rest);
            }
            Target::Asterisk | Target::Authority if method != "CONNECT" => return Err(Refusal::Target),
            _ => return Err(Refusal::Connect),
        }
        match method {
            "CONNECT" => Err(Refusal::Connect),
            // It would show to the client what we tell the servers behind us (RFC 9110 section 9.3.8).
            "TRACE" => Err(Refusal::Trace),
            _ => Ok(host),
        }
    }

    /// One Host field in HTTP/1.1, at most one in 1.0, and a valid one (RFC 9112 section 3.2). `authority`: what the
    /// target named in its place.
    fn place_host(&mut self, authority: Option<&str>) -> Result<(), Refusal> {
        let mut hosts = self.fields.known(Known::Host);
        let (first, second) = (hosts.next(), hosts.next());
        if second.is_some() || first.is_none() && self.minor == 1 {
            return Err(Refusal::Host);
        }
        if first.is_some_and(|host| !target::is_authority(host)) {
            return Err(Refusal::Host);
        }
        let named = first.and_then(|host| std::str::from_utf8(host).ok());
        let host = authority.or(named);
        (self.absolute, self.has_host) = (authority.is_some(), host.is_some());
        self.text.push_str(host.unwrap_or_default());
        Ok(())
    }

    /// RFC 9112 section 6.3, refusing whatever is not plain.
    fn framing(&self) -> Result<Body, Refusal> {
        let mut lengths = self.fields.known(Known::ContentLength);
        let length = lengths.next();
        if lengths.next().is_some() {
            return Err(Refusal::ContentLength);
        }
        if self.fields.known(Known::TransferEncoding).next().is_none() {
            return match length {
                None => Ok(Body::NONE),
                Some(text) => plain_number(text).map(Body::Length).ok_or(Refusal::ContentLength),
            };
        }
        if length.is_some() {
            return Err(Refusal::BothFramings);
        }
        self.transfer_coding()
    }

    /// `chunked`, once and last, and nothing else that we would have to decode. In one field: a server that
    /// looks at the first of several, or at the last, would see another framing.
    fn transfer_coding(&self) -> Result<Body, Refusal> {
        let mut values = self.fields.known(Known::TransferEncoding);
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Refusal::TransferEncoding);
        };
        if value.eq_ignore_ascii_case(b"chunked") && self.minor == 1 {
            return Ok(Body::Chunked(Chunked::with_marks()));
        }
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let ends_chunked = tokens(value).last().is_some_and(is_chunked);
        let times = tokens(value).filter(|coding| is_chunked(coding)).count();
        let others = tokens(value).count() > 1;
        let plain = self.minor == 1 && times == 1 && ends_chunked && others;
        Err(if plain { Refusal::TransferCoding } else { Refusal::TransferEncoding })
    }

    pub fn method(&self) -> &str {
        &self.text[..self.method_end]
    }

    /// Path and query as they came; `*` for `OPTIONS *`.
    pub fn target(&self) -> &str {
        &self.text[self.method_end..self.target_end]
    }

    pub fn path(&self) -> &str {
        self.target().split_once('?').map_or(self.target(), |(path, _)| path)
    }

    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// Host and port that the client asked for; absent only with HTTP/1.0.
    pub fn host(&self) -> Option<&str> {
        self.has_host.then(|| &self.text[self.target_end..])
    }

    /// Whether its memory is worth keeping for the next head.
    pub(crate) fn is_small(&self) -> bool {
        self.fields.is_small() && self.text.capacity() <= FREE_HEAD_BYTES
    }

    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The value of the first field of this name, when it is text of visible ASCII.
    pub fn field(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.fields.get(name)?).ok()
    }

    pub fn is_http_1_0(&self) -> bool {
        self.minor == 0
    }

    /// Whether the target named the host, so that the Host field is not to be passed on as it came.
    pub(crate) fn is_absolute(&self) -> bool {
        self.absolute
    }

    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Whether doing it twice is the same as once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// Whether the client wants its connection kept (RFC 9112 section 9.3).
    pub fn keeps_alive(&self) -> bool {
        let connection = self.fields.connection;
        !connection.close && (self.minor == 1 || connection.keep_alive)
    }

    /// Whether it asks for another protocol (RFC 9110 section 7.8). HTTP/2 over cleartext is never asked for in
    /// a client's name: behind it requests would pass that nobody looked at.
    pub fn wants_upgrade(&self) -> bool {
        let mut protocols = self.fields.known(Known::Upgrade).flat_map(tokens).peekable();
        self.minor == 1
            && self.fields.connection.upgrade
            && protocols.peek().is_some()
            && protocols.all(|protocol| !protocol.get(..3).is_some_and(|p| p.eq_ignore_ascii_case(b"h2c")))
    }

    /// Whether it waits for 100 before it sends its body (RFC 9110 section 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.fields.known(Known::Expect).any(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }
}

/// Whether the request line is `method target HTTP/digit…`: of a version that we do not speak, and not malformed.
fn names_version(head: &[u8]) -> bool {
    let version = head.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    version.starts_with(b"HTTP/") && version.get(5).is_some_and(u8::is_ascii_digit)
}

/// Digits and nothing else (RFC 9110 section 8.6), at most 18 of them, so that it fits.
pub(crate) fn plain_number(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    plain.then(|| text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
