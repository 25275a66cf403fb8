//! Writes heads: what passes on from one that came in, and answers of our own.
//!
//! Fields of one hop alone are left out (RFC 9110 section 7.6.1); framing fields pass as they came, since the body
//! does too. Runs of lines that stay are copied whole.

use std::net::SocketAddr;

use super::fields::{Fields, Known};
use super::request::RequestHead;
use super::response::ResponseHead;
use super::text::number;

/// What to do with `Via` (RFC 9110 section 7.6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via<'a> {
    #[default]
    Keep,
    /// Adds this member, for example `1.1 web-1`, after those that came.
    Add(&'a str),
    Remove,
}

/// Changes to a head on its way. Names are written as given, compared without case.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEdits<'a> {
    /// Each replaces all fields of its name. An empty value only removes them.
    pub set: &'a [(&'a str, &'a str)],
    /// Each is written after those that came, whatever these are.
    pub add: &'a [(&'a str, &'a str)],
    /// Of a request: path and query for the next server, in place of those that came.
    pub target: Option<&'a str>,
    pub via: Via<'a>,
}

/// What a written head says of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: HTTP/1.1 keeps it anyway.
    Implied,
    /// `Connection: keep-alive`, to a client of HTTP/1.0 that asked for it.
    Said,
    Close,
    /// `Connection: upgrade`, with the `Upgrade` field as it came.
    Upgrade,
}

/// The head of a request for the next server. The connection to it is kept unless it says otherwise.
/// The host is `target` when the client named none, as HTTP/1.0 allows.
pub fn request(out: &mut Vec<u8>, head: &RequestHead, edits: &HeadEdits<'_>, target: SocketAddr) {
    out.extend_from_slice(head.method().as_bytes());
    out.push(b' ');
    out.extend_from_slice(edits.target.unwrap_or(head.target()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    match head.host() {
        _ if is_set(edits.set, b"host") => {}
        Some(host) if head.is_absolute() => line(out, "host", host.as_bytes()),
        Some(_) => {}
        None => line(out, "host", target.to_string().as_bytes()),
    }
    let keep = if head.wants_upgrade() { Keep::Upgrade } else { Keep::Implied };
    fields(out, head.fields(), edits, keep, |known| known == Known::Host && head.is_absolute());
    out.extend_from_slice(b"\r\n");
}

/// The head of an answer for the client. `chunks` is false when the body passes without its chunk marks;
/// `date` is written when the answer has none (RFC 9110 section 6.6.1).
pub fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    edits: &HeadEdits<'_>,
    keep: Keep,
    chunks: bool,
    date: &[u8],
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    match head.code_and_reason() {
        // The space stands even before no reason (RFC 9112 section 4).
        [code @ .., b'\r', b'\n'] if code.len() == 3 => {
            out.extend_from_slice(code);
            out.extend_from_slice(b" \r\n");
        }
        line => out.extend_from_slice(line),
    }
    let bodiless = head.status() == 204 || head.status() < 200;
    fields(out, head.fields(), edits, keep, |known| match known {
        Known::TransferEncoding => !chunks || bodiless,
        Known::ContentLength => bodiless,
        _ => false,
    });
    if !head.is_interim() && head.fields().known(Known::Date).next().is_none() {
        line(out, "date", date);
    }
    out.extend_from_slice(b"\r\n");
}

/// The head of an answer of our own. `length` is absent where an answer has no body by its nature (204, 304).
pub fn answer(
    out: &mut Vec<u8>,
    status: u16,
    set: &[(&str, &str)],
    keep: Keep,
    length: Option<u64>,
    date: &[u8],
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    line(out, "date", date);
    for (name, value) in set {
        line(out, name, value.as_bytes());
    }
    if let Some(length) = length {
        out.extend_from_slice(b"content-length: ");
        number(out, length);
        out.extend_from_slice(b"\r\n");
    }
    connection(out, keep);
    out.extend_from_slice(b"\r\n");
}

/// All fields that pass, then ours.
fn fields(
    out: &mut Vec<u8>,
    fields: &Fields,
    edits: &HeadEdits<'_>,
    keep: Keep,
    also_drops: impl Fn(Known) -> bool,
) {
    let mut run = 0..0;
    for (index, field) in fields.list().iter().enumerate() {
        let drops = match field.known {
            Known::Connection | Known::HopOnly => true,
            Known::Upgrade => keep != Keep::Upgrade,
            Known::Via => edits.via != Via::Keep,
            Known::ContentLength | Known::TransferEncoding => false,
            Known::Host => is_set(edits.set, b"host"),
            Known::Other | Known::Date | Known::Expect => {
                let name = fields.name(field);
                is_set(edits.set, name) || fields.is_named_by_connection(name)
            }
        };
        let line = fields.line(index);
        if drops || also_drops(field.known) {
            continue;
        } else if run.end == line.start {
            run.end = line.end;
        } else {
            out.extend_from_slice(&fields.bytes()[run]);
            run = line;
        }
    }
    out.extend_from_slice(&fields.bytes()[run]);
    via(out, fields, edits.via);
    for (name, value) in edits.set.iter().filter(|(_, value)| !value.is_empty()) {
        line(out, name, value.as_bytes());
    }
    for (name, value) in edits.add {
        line(out, name, value.as_bytes());
    }
    connection(out, keep);
}

/// An underscore counts as a hyphen: CGI and its children do not tell them apart, so `X_Forwarded_For` would be
/// believed.
fn is_set(set: &[(&str, &str)], name: &[u8]) -> bool {
    let same = |ours: u8, theirs: u8| ours.eq_ignore_ascii_case(&theirs) || ours == b'-' && theirs == b'_';
    set.iter().any(|(set, _)| set.len() == name.len() && set.bytes().zip(name).all(|(a, b)| same(a, *b)))
}

/// One field with all members, so that the way can be read from the left to the right.
fn via(out: &mut Vec<u8>, fields: &Fields, via: Via<'_>) {
    let Via::Add(member) = via else { return };
    out.extend_from_slice(b"via: ");
    for value in fields.known(Known::Via).filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(member.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn connection(out: &mut Vec<u8>, keep: Keep) {
    out.extend_from_slice(match keep {
        Keep::Implied => b"",
        Keep::Said => b"connection: keep-alive\r\n",
        Keep::Close => b"connection: close\r\n",
        Keep::Upgrade => b"connection: upgrade\r\n",
    });
}

/// A value of ours never has a line end in it; if one came in from outside by mistake it is cut there, since what
/// follows would be read as a field.
fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let ends = |byte: u8| byte == b'\r' || byte == b'\n' || byte == 0;
    // Almost never there, and sooner excluded without stopping at the first.
    let is_cut = value.iter().fold(false, |found, byte| found | ends(*byte));
    let end =
        if is_cut { value.iter().position(|byte| ends(*byte)).unwrap_or_default() } else { value.len() };
    out.reserve(name.len() + end + ": \r\n".len());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(&value[..end]);
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase (RFC 9110 section 15).
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
