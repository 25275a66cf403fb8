//! The smuggling table, filed by section of RFC 9112: what a client may send that readers disagree on.
//!
//! Each refused case has a second request behind it, which must never arrive. The same bytes are the seeds of the
//! fuzz corpus, and the input of the differential test.

/// The target of the request that is hidden behind, or in, each refused one.
pub const HIDDEN: &str = "/hidden";

const AFTER: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

pub struct Case {
    pub section: &'static str,
    pub name: String,
    pub bytes: Vec<u8>,
    pub expect: Expect,
}

pub enum Expect {
    /// The client is told this status; the origin sees no request.
    Refused(u16),
    /// The origin gets this, and the client its answer.
    Passes(String),
}

pub fn all() -> Vec<Case> {
    let parts =
        [message_parsing(), request_line(), targets(), hosts(), fields(), codings(), lengths(), chunks()];
    parts.into_iter().flatten().chain(trailers()).chain(limits()).collect()
}

fn refused(section: &'static str, name: &str, status: u16, text: &str) -> Case {
    let bytes = [text.as_bytes(), AFTER.as_bytes()].concat();
    Case { section, name: name.into(), bytes, expect: Expect::Refused(status) }
}

fn passes(section: &'static str, name: &str, text: &str, request: &str) -> Case {
    let expect = Expect::Passes(request.into());
    Case { section, name: name.into(), bytes: text.as_bytes().to_vec(), expect }
}

fn message_parsing() -> Vec<Case> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let refuse = |name, text: &str| refused("2.2", name, 400, text);
    vec![
        refuse("lf-all", "GET / HTTP/1.1\nHost: a\n\n"),
        refuse("lf-request-line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        refuse("lf-field", &get("X: a\nY: b\r\n")),
        refuse("lf-empty-line", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        refuse("lf-before-empty-line", "GET / HTTP/1.1\r\nHost: a\n\r\n"),
        refuse("cr-in-value", &get("X: a\rTransfer-Encoding: chunked\r\n")),
        refuse("cr-in-name", &get("X\r: a\r\n")),
        refuse("cr-request-line", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
        refuse("cr-cr-lf", &get("X: a\r\r\n")),
        refuse("cr-for-empty-line", "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"),
        refuse("nul-in-value", &get("X: a\0b\r\n")),
        refuse("nul-in-name", &get("X\0: a\r\n")),
        refuse("nul-in-target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        refuse("control-in-value", &get("X: a\x01b\r\n")),
        refuse("delete-in-value", &get("X: a\x7fb\r\n")),
        refuse("blank-before-fields", "GET / HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: a\r\n\r\n"),
        refuse("three-empty-lines-before", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        refuse("binary", "\x16\x03\x01\x02\x05"),
        passes(
            "2.2",
            "empty-line-before",
            &format!("\r\n{}", get("")),
            &sent("GET / HTTP/1.1", "Host: a\r\n", ""),
        ),
    ]
}

fn request_line() -> Vec<Case> {
    let with = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let refuse = |name, status, line: &str| refused("3", name, status, &with(line));
    vec![
        refused("3", "http-0-9", 400, "GET /\r\n"),
        refused("3", "http-2-preface", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        refuse("version-2", 505, "GET / HTTP/2.0"),
        refuse("version-1-2", 505, "GET / HTTP/1.2"),
        refuse("version-lower-case", 400, "GET / http/1.1"),
        refuse("version-other", 400, "GET / HTTQ/1.1"),
        refuse("version-long", 400, "GET / HTTP/1.10"),
        refuse("two-spaces", 400, "GET  / HTTP/1.1"),
        refuse("tab", 400, "GET\t/ HTTP/1.1"),
        refuse("space-at-end", 400, "GET / HTTP/1.1 "),
        refuse("space-before", 400, " GET / HTTP/1.1"),
        refuse("space-in-target", 400, "GET /a b HTTP/1.1"),
        refuse("method-not-a-token", 400, "G(T / HTTP/1.1"),
        refuse("fragment", 400, "GET /a#b HTTP/1.1"),
        refuse("not-ascii", 400, "GET /\u{e4} HTTP/1.1"),
        refuse("trace", 501, "TRACE / HTTP/1.1"),
        refuse("connect", 501, "CONNECT a:443 HTTP/1.1"),
        refuse("connect-origin-form", 501, "CONNECT / HTTP/1.1"),
        passes("3", "unknown-method", &with("FROB / HTTP/1.1"), &sent("FROB / HTTP/1.1", "Host: a\r\n", "")),
    ]
}

fn targets() -> Vec<Case> {
    let with = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let refuse = |name, line: &str| refused("3.2", name, 400, &with(line));
    let normal = |name, line: &str, request: &str, host: &str| {
        passes("3.2", name, &with(line), &format!("{request}\r\nhost: {host}\r\nvia: 1.1 relay\r\n\r\n"))
    };
    vec![
        refuse("authority-form", "GET a:80 HTTP/1.1"),
        refuse("no-form", "GET a HTTP/1.1"),
        refuse("asterisk-of-get", "GET * HTTP/1.1"),
        refuse("user-in-authority", "GET http://u@b/ HTTP/1.1"),
        refuse("empty-authority", "GET http:///x HTTP/1.1"),
        refuse("other-scheme", "GET ftp://b/ HTTP/1.1"),
        refuse("bad-authority", "GET http://b^c/ HTTP/1.1"),
        normal("absolute-form-other-host", "GET http://b:80/x?y HTTP/1.1", "GET /x?y HTTP/1.1", "b:80"),
        normal("absolute-form-no-path", "GET http://b?y HTTP/1.1", "GET /?y HTTP/1.1", "b"),
        normal("absolute-form-of-options", "OPTIONS http://b HTTP/1.1", "OPTIONS * HTTP/1.1", "b"),
        passes(
            "3.2",
            "asterisk-form",
            &with("OPTIONS * HTTP/1.1"),
            &sent("OPTIONS * HTTP/1.1", "Host: a\r\n", ""),
        ),
    ]
}

fn hosts() -> Vec<Case> {
    let refuse =
        |name, fields: &str| refused("3.2-host", name, 400, &format!("GET / HTTP/1.1\r\n{fields}\r\n"));
    vec![
        refuse("none", ""),
        refuse("none-with-absolute-form", "X: y\r\n"),
        refuse("two", "Host: a\r\nHost: a\r\n"),
        refuse("two-different", "Host: a\r\nX: y\r\nhost: b\r\n"),
        refuse("empty", "Host:\r\n"),
        refuse("list", "Host: a, b\r\n"),
        refuse("path", "Host: a/b\r\n"),
        refuse("user", "Host: u@a\r\n"),
        refuse("blank", "Host: a b\r\n"),
        refuse("port-not-a-number", "Host: a:b\r\n"),
        refuse("port-twice", "Host: a:80:80\r\n"),
        refuse("not-closed", "Host: [::1\r\n"),
        refuse("not-ascii", "Host: \u{e4}\r\n"),
        refuse("blank-before-colon", "Host : a\r\n"),
        passes(
            "3.2-host",
            "http-1-0-without",
            "GET http://b/ HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: b\r\nvia: 1.1 relay\r\n\r\n",
        ),
        refused("3.2-host", "http-1-0-two", 400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    ]
}

/// A POST whose fields are in question, with a body that hides a request.
fn post(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\n")
}

fn fields() -> Vec<Case> {
    let refuse = |name, fields: &str| refused("5.1", name, 400, &post(fields));
    vec![
        refuse("blank-before-colon", "Transfer-Encoding : chunked\r\n"),
        refuse("tab-before-colon", "Transfer-Encoding\t: chunked\r\n"),
        refuse("length-blank-before-colon", "Content-Length : 5\r\n"),
        refuse("vertical-tab-before-colon", "Transfer-Encoding\x0b: chunked\r\n"),
        refuse("nul-before-colon", "Transfer-Encoding\0: chunked\r\n"),
        refuse("no-colon", "Transfer-Encoding\r\n"),
        refuse("no-name", ": chunked\r\n"),
        refuse("quoted-name", "\"Transfer-Encoding\": chunked\r\n"),
        refuse("not-ascii-name", "Transfer-Encod\u{131}ng: chunked\r\n"),
        refuse("fold", "X: a\r\n b\r\n"),
        refuse("fold-tab", "X: a\r\n\tTransfer-Encoding: chunked\r\n"),
        refuse("fold-coding", "Transfer-Encoding:\r\n chunked\r\n"),
        refuse("fold-coding-after", "Transfer-Encoding: chunked\r\n , identity\r\n"),
        refuse("fold-length", "Content-Length: 1\r\n 0\r\n"),
        refuse("fold-blank-line", "X: a\r\n \r\nTransfer-Encoding: chunked\r\n"),
    ]
}

fn codings() -> Vec<Case> {
    let refuse = |name, status, fields: &str| refused("6.1", name, status, &post(fields));
    vec![
        refuse("length-then-coding", 400, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        refuse("coding-then-length", 400, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        refuse("coding-and-empty-length", 400, "Transfer-Encoding: chunked\r\nContent-Length:\r\n"),
        refuse("twice", 400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        refuse("twice-in-list", 400, "Transfer-Encoding: chunked, chunked\r\n"),
        refuse("identity", 400, "Transfer-Encoding: identity\r\n"),
        refuse("identity-beside", 400, "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        refuse("then-identity", 400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        refuse("empty-beside", 400, "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"),
        refuse("empty-member", 400, "Transfer-Encoding: , chunked\r\n"),
        refuse("empty-member-after", 400, "Transfer-Encoding: chunked,\r\n"),
        refuse("empty", 400, "Transfer-Encoding:\r\n"),
        refuse("xchunked", 400, "Transfer-Encoding: xchunked\r\n"),
        refuse("chunkedx", 400, "Transfer-Encoding: chunkedx\r\n"),
        refuse("chunked-gzip", 400, "Transfer-Encoding: chunked, gzip\r\n"),
        refuse("gzip-chunked", 501, "Transfer-Encoding: gzip, chunked\r\n"),
        refuse("gzip", 400, "Transfer-Encoding: gzip\r\n"),
        refuse("parameter", 400, "Transfer-Encoding: chunked;q=1\r\n"),
        refuse("quoted", 400, "Transfer-Encoding: \"chunked\"\r\n"),
        refuse("vertical-tab", 400, "Transfer-Encoding: \x0bchunked\r\n"),
        refuse("form-feed", 400, "Transfer-Encoding: \x0cchunked\r\n"),
        refuse("nul", 400, "Transfer-Encoding: chunked\0\r\n"),
        refuse("blank-within", 400, "Transfer-Encoding: chun ked\r\n"),
        refuse("not-ascii-blank", 400, "Transfer-Encoding: \u{a0}chunked\r\n"),
        refused(
            "6.1",
            "http-1-0",
            400,
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        passes(
            "6.1",
            "any-case-and-blanks",
            &post("TRANSFER-encoding:\t chUNKed \t\r\n"),
            &sent("POST / HTTP/1.1", "Host: a\r\nTRANSFER-encoding:\t chUNKed \t\r\n", "0\r\n\r\n"),
        ),
        passes(
            "6.1",
            "named-by-connection",
            &post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n"),
            &sent("POST / HTTP/1.1", "Host: a\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
    ]
}

fn lengths() -> Vec<Case> {
    let refuse =
        |name, value: &str| refused("6.2", name, 400, &post(&format!("Content-Length: {value}\r\n")));
    vec![
        refuse("plus", "+5"),
        refuse("minus", "-5"),
        refuse("list", "5,5"),
        refuse("list-with-blank", "5, 5"),
        refuse("hexadecimal", "0x5"),
        refuse("fraction", "5.0"),
        refuse("exponent", "5e0"),
        refuse("letters", "five"),
        refuse("underscore", "1_0"),
        refuse("blank-within", "5 5"),
        refuse("empty", ""),
        refuse("huge", "99999999999999999999"),
        refuse("overflow-to-five", "18446744073709551621"),
        refuse("not-ascii-digit", "\u{665}"),
        refuse("comma-after", "5,"),
        refuse("twice", "5\r\nContent-Length: 5"),
        refuse("twice-different", "5\r\nContent-Length: 6"),
        refuse("twice-with-empty", "5\r\nContent-Length:"),
        passes(
            "6.2",
            "zeros-before",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello",
            &sent("POST / HTTP/1.1", "Host: a\r\nContent-Length: 005\r\n", "hello"),
        ),
        passes(
            "6.2",
            "named-by-connection",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
            &sent("POST / HTTP/1.1", "Host: a\r\nContent-Length: 5\r\n", "hello"),
        ),
        passes(
            "6.2",
            "of-get",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            &sent("GET / HTTP/1.1", "Host: a\r\nContent-Length: 5\r\n", "hello"),
        ),
    ]
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What the origin gets: the head with our own field, and the body.
fn sent(line: &str, fields: &str, body: &str) -> String {
    format!("{line}\r\n{fields}via: 1.1 relay\r\n\r\n{body}")
}

fn chunked_passes(section: &'static str, name: &str, body: &str, expect: &str) -> Case {
    let fields = "Host: a\r\nTransfer-Encoding: chunked\r\n";
    passes(section, name, &format!("{CHUNKED}{body}"), &sent("POST / HTTP/1.1", fields, expect))
}

fn chunks() -> Vec<Case> {
    let refuse = |name, body: &str| refused("7.1", name, 400, &format!("{CHUNKED}{body}"));
    let same = |name, body: &str| chunked_passes("7.1", name, body, body);
    vec![
        refuse("size-empty", "\r\nabc\r\n0\r\n\r\n"),
        refuse("size-hexadecimal-mark", "0x3\r\nabc\r\n0\r\n\r\n"),
        refuse("size-plus", "+3\r\nabc\r\n0\r\n\r\n"),
        refuse("size-minus", "-3\r\nabc\r\n0\r\n\r\n"),
        refuse("size-underscore", "1_0\r\nabc\r\n0\r\n\r\n"),
        refuse("size-blank-before", " 3\r\nabc\r\n0\r\n\r\n"),
        refuse("size-overflow", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        refuse("size-overflow-of-32-bits-too-long", "0000000000000003\r\nabc\r\n0\r\n\r\n"),
        refuse("size-then-text", "3 x\r\nabc\r\n0\r\n\r\n"),
        refuse("size-then-cr", "3\rabc\r\n0\r\n\r\n"),
        refuse("size-then-lf", "3\nabc\r\n0\r\n\r\n"),
        refuse("size-then-cr-cr-lf", "3\r\r\nabc\r\n0\r\n\r\n"),
        refuse("size-only-extension", ";a=b\r\nabc\r\n0\r\n\r\n"),
        refuse("data-too-long", "3\r\nabcd\r\n0\r\n\r\n"),
        refuse("data-without-end", "3\r\nabc0\r\n\r\n"),
        refuse("data-ends-in-lf", "3\r\nabc\n0\r\n\r\n"),
        refuse("data-ends-in-cr", "3\r\nabc\r0\r\n\r\n"),
        refuse("last-line-in-lf", "3\r\nabc\r\n0\n\n"),
        refuse("last-line-lf-then-crlf", "3\r\nabc\r\n0\n\r\n"),
        refused("7.1.1", "lf-in-extension", 400, &format!("{CHUNKED}3;a\nabc\r\n0\r\n\r\n")),
        refused("7.1.1", "cr-in-extension", 400, &format!("{CHUNKED}3;a\rb\r\nabc\r\n0\r\n\r\n")),
        refused("7.1.1", "lf-in-quoted-extension", 400, &format!("{CHUNKED}3;a=\"\n\"\r\nabc\r\n0\r\n\r\n")),
        refused("7.1.1", "crlf-in-quoted-extension", 400, &format!("{CHUNKED}3;a=\"\r\nabcd\"\r\n0\r\n\r\n")),
        refused("7.1.1", "nul-in-extension", 400, &format!("{CHUNKED}3;a\0\r\nabc\r\n0\r\n\r\n")),
        refused(
            "7.1.1",
            "extension-long",
            400,
            &format!("{CHUNKED}3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(300)),
        ),
        same("plain", "3\r\nabc\r\n0\r\n\r\n"),
        same("zeros-and-case", "00a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n"),
        same("blank-after-size", "3 \t\r\nabc\r\n0\r\n\r\n"),
        chunked_passes(
            "7.1.1",
            "extension",
            "3 ;a=\"b\"\r\nabc\r\n0;c\r\n\r\n",
            "3 ;a=\"b\"\r\nabc\r\n0;c\r\n\r\n",
        ),
    ]
}

fn trailers() -> Vec<Case> {
    let refuse = |name, fields: &str| refused("7.1.2", name, 400, &format!("{CHUNKED}0\r\n{fields}\r\n"));
    let pass = |name, fields: &str, kept: &str| {
        chunked_passes("7.1.2", name, &format!("0\r\n{fields}\r\n"), &format!("0\r\n{kept}\r\n"))
    };
    vec![
        refuse("line-ends-in-lf", "X: y\n"),
        refuse("fold", "X: y\r\n z\r\n"),
        refuse("blank-before-colon", "X : y\r\n"),
        refuse("a-request", "GET /hidden HTTP/1.1\r\n"),
        refuse("nul", "X: \0\r\n"),
        refuse("cr", "X: a\rb\r\n"),
        refuse("too-long", &format!("X: {}\r\n", "a".repeat(9000))),
        refuse("too-many", &"X: y\r\n".repeat(200)),
        pass("kept", "X-Sum: 1\r\nY: 2\r\n", "X-Sum: 1\r\nY: 2\r\n"),
        pass(
            "framing-dropped",
            "Content-Length: 5\r\nX-Sum: 1\r\nTransfer-Encoding: chunked\r\n",
            "X-Sum: 1\r\n",
        ),
        pass("routing-dropped", "Host: b\r\nX-Sum: 1\r\nConnection: close\r\n", "X-Sum: 1\r\n"),
        pass(
            "trust-dropped",
            "X-Forwarded-For: 1\r\nX_Forwarded_Proto: 2\r\nForwarded: 3\r\nX-Real-IP: 4\r\n",
            "",
        ),
        pass("login-dropped", "Authorization: b\r\nCookie: c\r\nSet-Cookie: d\r\n", ""),
    ]
}

fn limits() -> Vec<Case> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    vec![
        refused("limits", "target", 414, &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(17_000))),
        refused("limits", "head", 431, &get(&format!("X: {}\r\n", "a".repeat(70_000)))),
        refused("limits", "fields", 431, &get(&"X: y\r\n".repeat(200))),
    ]
}
