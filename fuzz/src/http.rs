//! Any bytes as HTTP/1.1: whatever is accepted can be read in one way only, by us again and by a reader that
//! knows nothing but lines.
//!
//! Each check cuts its input as connections do: the whole at once, and byte by byte, must give the same.

use relay::RequestHead;
use relay::codec::body::Body;
use relay::codec::chunked::Chunked;
use relay::codec::proxy;
use relay::codec::response::ResponseHead;
use relay::codec::scan::{Found, Scan};
use relay::codec::write::{self, HeadEdits, Keep};

/// What the next server is told of the client; no byte from outside may say it.
const FORWARDED_FOR: (&str, &str) = ("x-forwarded-for", "192.0.2.1");

/// Fields of ours come on top of those that came, and a head may have 128.
const MANY_FIELDS: usize = 120;

/// A header of the PROXY protocol: the verdict falls when it is whole, and is not changed by what comes after.
pub fn proxy(bytes: &[u8]) {
    let whole = proxy::read(bytes);
    let decided =
        (0..bytes.len()).map(|cut| proxy::read(&bytes[..cut])).find(|read| !matches!(read, Ok(None)));
    if let Some(decided) = decided {
        assert_eq!(decided, whole, "more bytes changed the verdict");
    }
    if let Ok(Some(introduced)) = whole {
        assert!(introduced.length <= bytes.len().min(proxy::PROXY_BYTES));
        assert_eq!(proxy::read(&bytes[..introduced.length]), whole);
        assert!(introduced.length == 0 || proxy::read(&bytes[..introduced.length - 1]) == Ok(None));
    }
}

/// A request's head, what is made of it for the next server, and the body that follows.
pub fn request(bytes: &[u8]) {
    let Some((begin, end)) = head_of(bytes) else { return };
    let head = &bytes[begin..end];
    let mut read = RequestHead::default();
    let Ok(body) = read.load(head) else { return };
    assert!(is_framed_plainly(head, &body), "accepted with another framing than its lines say");
    let target = "192.0.2.9:80".parse().expect("an address");
    let mut out = Vec::new();
    let edits = HeadEdits { set: &[FORWARDED_FOR], ..HeadEdits::default() };
    write::request(&mut out, &read, &edits, target);
    let lines = lines(&out);
    assert_eq!(count(&lines, "host"), 1, "one host");
    assert!(count(&lines, "connection") == usize::from(read.wants_upgrade()), "nothing of this hop");
    assert_eq!(forwarded(&lines), [FORWARDED_FOR.1.as_bytes()]);
    let (again_at, again_end) = head_of(&out).expect("what we write is a head");
    assert_eq!((again_at, again_end), (0, out.len()));
    let mut again = RequestHead::default();
    if read.fields().len() > MANY_FIELDS {
        return; // the next of us says 431
    }
    assert_eq!(again.load(&out).as_ref(), Ok(&body));
    assert_eq!((again.method(), again.target()), (read.method(), read.target()));
    assert_eq!(again.host(), read.host().or(Some("192.0.2.9:80")));
    feed(body, &bytes[end..], usize::MAX).ok();
}

/// An answer's head, to a GET and to a HEAD, and what is made of it for the client.
pub fn response(bytes: &[u8]) {
    let Some((0, end)) = head_of(bytes) else { return };
    for to_head in [false, true] {
        let mut read = ResponseHead::default();
        let Ok(body) = read.load(&bytes[..end], to_head) else { continue };
        let mut out = Vec::new();
        let date = b"Sun, 06 Nov 1994 08:49:37 GMT";
        write::response(&mut out, &read, &HeadEdits::default(), Keep::Implied, true, date);
        let lines = lines(&out);
        assert_eq!(count(&lines, "connection") + count(&lines, "keep-alive"), 0);
        assert!(count(&lines, "content-length") + count(&lines, "transfer-encoding") <= 1, "one framing");
        assert_eq!(head_of(&out), Some((0, out.len())));
        if read.fields().len() > MANY_FIELDS {
            continue; // the next of us says 502
        }
        let mut again = ResponseHead::default();
        assert_eq!(again.load(&out, to_head).as_ref(), Ok(&body));
        assert_eq!(again.status(), read.status());
        feed(body, &bytes[end..], usize::MAX).ok();
    }
}

/// A chunked body, with its marks and without.
pub fn chunked(bytes: &[u8]) {
    let marked = || Body::Chunked(Chunked::with_marks());
    let whole = feed(marked(), bytes, usize::MAX);
    for piece in [1, 3] {
        let cut = feed(marked(), bytes, piece);
        assert_eq!(cut.is_ok(), whole.is_ok(), "a verdict that depends on the cut");
        assert!(whole.is_err() || cut == whole, "a result that depends on the cut");
    }
    let plain = feed(Body::Chunked(Chunked::without_marks()), bytes, 1);
    assert_eq!(plain.is_ok(), whole.is_ok());
    let (Ok(whole), Ok(plain)) = (whole, plain) else { return };
    if whole.done {
        assert_eq!(plain.taken, whole.taken);
        assert_eq!(decoded(&bytes[..whole.taken]).as_ref(), Some(&plain.out), "the data that came");
        assert_eq!(decoded(&whole.out).as_ref(), Some(&plain.out), "the data that passes");
    }
}

/// The head that the scanner finds, however the bytes are cut.
fn head_of(bytes: &[u8]) -> Option<(usize, usize)> {
    let whole = Scan::default().advance(bytes);
    let mut scan = Scan::default();
    let cut = (1..=bytes.len()).map(|end| scan.advance(&bytes[..end])).find(|found| *found != Found::Partial);
    // At the limits of length the whole may be complete before it is found to be too long.
    if bytes.len() < 8 * 1024 {
        assert_eq!(cut.unwrap_or(Found::Partial), whole, "a head that depends on the cut");
    }
    match whole {
        Found::Head { begin, end } => Some((begin, end)),
        _ => None,
    }
}

/// What became of a body.
#[derive(Debug, PartialEq)]
struct Fed {
    out: Vec<u8>,
    taken: usize,
    done: bool,
}

/// Feeds the body in pieces of this length; what was not used stays in the buffer, as in a connection.
fn feed(mut body: Body, bytes: &[u8], piece: usize) -> Result<Fed, ()> {
    let (mut buffer, mut out, mut taken, mut rest) = (Vec::new(), Vec::new(), 0, bytes);
    while !body.is_done() && !rest.is_empty() {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        buffer.extend_from_slice(now);
        rest = later;
        loop {
            let step = body.advance(&mut buffer).map_err(|_| ())?;
            assert!(step.pass + step.skip <= buffer.len(), "more than there is");
            out.extend(buffer.drain(..step.pass));
            buffer.drain(..step.skip);
            taken += step.pass + step.skip;
            if step.pass + step.skip == 0 || body.is_done() {
                break;
            }
        }
    }
    Ok(Fed { out, taken, done: body.is_done() })
}

/// A decoder of chunks that is nothing but the grammar (RFC 9112 section 7.1) over a complete body.
pub fn decoded(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let (line, after) = line_of(rest)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = &line[digits..];
        let begins = extension.trim_ascii_start().first().is_none_or(|byte| *byte == b';');
        let size = usize::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if !begins {
            return None;
        }
        if size == 0 {
            return ends_with_fields(after).then_some(data);
        }
        data.extend_from_slice(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// Whether this is lines of fields and one empty line, and nothing after it.
fn ends_with_fields(mut rest: &[u8]) -> bool {
    while let Some((line, after)) = line_of(rest) {
        if line.is_empty() {
            return after.is_empty();
        }
        if field(line).is_none() {
            return false;
        }
        rest = after;
    }
    false
}

/// A line without its CRLF, and what follows. No line with a CR, LF or NUL within.
fn line_of(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = &bytes[..end];
    (!line.iter().any(|byte| b"\r\n\0".contains(byte))).then_some((line, &bytes[end + 2..]))
}

type Line<'a> = (&'a [u8], &'a [u8]);

/// Name and value of a field, when the name is a token (RFC 9110 section 5.6.2).
fn field(line: &[u8]) -> Option<Line<'_>> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    (!name.is_empty() && name.iter().all(is_token)).then_some((name, value.trim_ascii()))
}

/// The fields of a head, read by nothing but its lines; all of it must be that.
fn lines(head: &[u8]) -> Vec<Line<'_>> {
    let (_, mut rest) = line_of(head).expect("a first line that ends in CRLF");
    let mut fields = Vec::new();
    loop {
        let (line, after) = line_of(rest).expect("lines that end in CRLF, without CR, LF and NUL in them");
        if line.is_empty() {
            assert!(after.is_empty(), "bytes after the empty line");
            return fields;
        }
        fields.push(field(line).expect("a field with a name"));
        rest = after;
    }
}

fn count(lines: &[Line<'_>], name: &str) -> usize {
    lines.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).count()
}

/// The values of all fields that a program behind us may take for `X-Forwarded-For`.
fn forwarded<'a>(lines: &[Line<'a>]) -> Vec<&'a [u8]> {
    let same =
        |name: &[u8]| String::from_utf8_lossy(name).replace('_', "-").eq_ignore_ascii_case(FORWARDED_FOR.0);
    lines.iter().filter(|(name, _)| same(name)).map(|(_, value)| *value).collect()
}

/// Whether the lines of an accepted head say this framing, and no other.
fn is_framed_plainly(head: &[u8], body: &Body) -> bool {
    let fields = lines(head);
    let of = |name: &str| -> Vec<&[u8]> {
        let same = fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
        same.map(|(_, value)| *value).collect()
    };
    match (of("content-length").as_slice(), of("transfer-encoding").as_slice(), body) {
        ([], [], Body::Length(0)) => true,
        ([text], [], Body::Length(length)) => {
            text.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(text).is_ok_and(|text| text.parse() == Ok(*length))
        }
        // Empty members of the list and blanks around it are allowed (RFC 9110 section 5.6.1).
        ([], [coding], Body::Chunked(_)) => {
            let text = String::from_utf8_lossy(coding).to_ascii_lowercase();
            text.trim_matches([',', ' ', '\t']) == "chunked"
        }
        // An empty field beside the one that says it changes nothing.
        ([], codings, Body::Chunked(_)) => {
            let all = codings.iter().map(|coding| String::from_utf8_lossy(coding).to_ascii_lowercase());
            all.map(|text| text.trim_matches([',', ' ', '\t']).to_owned()).collect::<String>() == "chunked"
        }
        _ => false,
    }
}
