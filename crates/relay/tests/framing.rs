//! Heads and framing, filed by section of RFC 9112. `check(head, expect)`: what a request says, or its refusal.

use relay::RequestHead;
use relay::codec::body::Body;
use relay::codec::response::ResponseHead;
use relay::codec::scan::{Found, Scan};

/// One line that tells what was understood.
fn understood(input: &str) -> String {
    let bytes = input.as_bytes();
    let (begin, end) = match Scan::default().advance(bytes) {
        Found::Head { begin, end } => (begin, end),
        other => return format!("{other:?}"),
    };
    let mut head = RequestHead::default();
    match head.load(&bytes[begin..end]) {
        Ok(body) => {
            format!("{} {} {} {}", head.method(), head.target(), head.host().unwrap_or("-"), framed(&body))
        }
        Err(refusal) => format!("{} {refusal:?}", refusal.status()),
    }
}

fn framed(body: &Body) -> String {
    match body {
        Body::Length(length) => length.to_string(),
        Body::Chunked(_) => "chunked".into(),
        Body::UntilClose => "until close".into(),
    }
}

fn check(table: &[(&str, &str)]) {
    for (input, expect) in table {
        assert_eq!(understood(input), *expect, "{input:?}");
    }
}

fn check_fields(table: &[(&str, &str)]) {
    for (fields, expect) in table {
        assert_eq!(understood(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")), *expect, "{fields:?}");
    }
}

#[test]
fn section_2_2_message_parsing() {
    check(&[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a 0"),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / a 0"),
        ("GET / HTTP/1.1\nHost: a\n\n", "BareLineFeed"),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", "BareLineFeed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "400 Malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "400 Malformed"),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400 Malformed"),
        ("GET / HTTP/1.1\r\n X: b\r\nHost: a\r\n\r\n", "400 Malformed"),
    ]);
}

#[test]
fn section_2_3_version() {
    check(&[
        ("GET / HTTP/1.0\r\n\r\n", "GET / - 0"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505 Version"),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "505 Version"),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", "400 Malformed"),
        ("GET /\r\n\r\n", "400 Malformed"),
        ("PRI * HTTP/2.0\r\n\r\n", "505 Version"),
    ]);
}

#[test]
fn section_3_request_line() {
    check(&[
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400 Malformed"),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "400 Malformed"),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400 Malformed"),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "400 Malformed"),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", "get / a 0"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400 Malformed"),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "400 Target"),
        ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", "400 Target"),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "400 Target"),
    ]);
}

#[test]
fn section_3_2_request_target_and_host() {
    check(&[
        ("GET http://b:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?y b:80 0"),
        ("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", "GET / b 0"),
        ("GET http://b?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?y b 0"),
        ("GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400 Target"),
        ("GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "400 Target"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * a 0"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400 Target"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "501 Connect"),
        ("GET / HTTP/1.1\r\n\r\n", "400 Host"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "400 Host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400 Host"),
        ("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", "400 Host"),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "400 Host"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400 Host"),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "400 Host"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET / [::1]:80 0"),
    ]);
}

#[test]
fn section_5_field_syntax() {
    check_fields(&[
        ("X : b\r\n", "400 Malformed"),
        ("X\t: b\r\n", "400 Malformed"),
        (": b\r\n", "400 Malformed"),
        ("X\r\n", "400 Malformed"),
        ("X: a\r\n b\r\n", "400 Malformed"),
        ("X: a\r\n\tb\r\n", "400 Malformed"),
        ("X\u{e4}: a\r\n", "400 Malformed"),
        ("X: \u{e4}\r\n", "POST / a 0"),
        ("X:\r\n", "POST / a 0"),
        ("Transfer-Encoding\0: chunked\r\n", "400 Malformed"),
    ]);
}

#[test]
fn section_6_1_transfer_encoding() {
    check_fields(&[
        ("Transfer-Encoding: chunked\r\n", "POST / a chunked"),
        ("transfer-encoding: Chunked\r\n", "POST / a chunked"),
        ("Transfer-Encoding: gzip, chunked\r\n", "501 TransferCoding"),
        ("Transfer-Encoding: chunked, gzip\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: chunked, chunked\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: xchunked\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: chunked;q=1\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: \"chunked\"\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding:\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: \x0bchunked\r\n", "400 Malformed"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "400 BothFramings"),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "400 BothFramings"),
    ]);
    check(&[("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "400 TransferEncoding")]);
}

#[test]
fn section_6_2_content_length() {
    check_fields(&[
        ("Content-Length: 3\r\n", "POST / a 3"),
        ("Content-Length: 003\r\n", "POST / a 3"),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", "400 ContentLength"),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", "400 ContentLength"),
        ("Content-Length: 3, 3\r\n", "400 ContentLength"),
        ("Content-Length: +3\r\n", "400 ContentLength"),
        ("Content-Length: -3\r\n", "400 ContentLength"),
        ("Content-Length: 0x3\r\n", "400 ContentLength"),
        ("Content-Length: 3 3\r\n", "400 ContentLength"),
        ("Content-Length: 3.0\r\n", "400 ContentLength"),
        ("Content-Length:\r\n", "400 ContentLength"),
        ("Content-Length: 99999999999999999999\r\n", "400 ContentLength"),
    ]);
}

#[test]
fn section_6_3_length_of_an_answer() {
    let answer = |head: &str, to_head| {
        let mut loaded = ResponseHead::default();
        loaded
            .load(format!("{head}\r\n\r\n").as_bytes(), to_head)
            .map_or_else(|error| format!("{error:?}"), |body| framed(&body))
    };
    let table = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3", false, "3"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3", true, "0"),
        ("HTTP/1.1 200\r\nContent-Length: 3", false, "3"),
        ("HTTP/1.1 200 OK", false, "until close"),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 3", false, "0"),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", false, "0"),
        ("HTTP/1.1 100 Continue", false, "0"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", false, "chunked"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked", false, "Framing"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", false, "Framing"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3", false, "Framing"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3", false, "Framing"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x", false, "Framing"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c", false, "Malformed"),
        ("HTTP/1.1 099 OK", false, "Malformed"),
        ("HTTP/2 200 OK", false, "Malformed"),
        ("<html>", false, "Malformed"),
    ];
    for (head, to_head, expect) in table {
        assert_eq!(answer(head, to_head), expect, "{head:?}");
    }
}

#[test]
fn limits_have_their_status() {
    let long = "a".repeat(20_000);
    assert_eq!(understood(&format!("GET /{long}")), "FirstLineTooLong");
    let fields = "X: y\r\n".repeat(200);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    assert_eq!(understood(&many), "431 HeadTooLong");
    let big = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    assert_eq!(understood(&big), "HeadTooLong");
}
