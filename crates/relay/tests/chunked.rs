//! The chunked coding (RFC 9112 section 7.1): what passes, what is refused, however it is cut.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

use proptest::prelude::*;
use relay::codec::body::Body;
use relay::codec::chunked::Chunked;

/// Feeds `input` in pieces of these lengths, as connections do: what was not used stays in the buffer.
fn feed(mut body: Body, input: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, bool), String> {
    let (mut buffer, mut out, mut rest) = (Vec::new(), Vec::new(), input);
    let mut cuts = cuts.iter();
    while !rest.is_empty() && !body.is_done() {
        let count = cuts.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
        buffer.extend_from_slice(&rest[..count]);
        rest = &rest[count..];
        loop {
            let step = body.advance(&mut buffer).map_err(|error| format!("{error:?}"))?;
            out.extend(buffer.drain(..step.pass));
            buffer.drain(..step.skip);
            if step.pass + step.skip == 0 || body.is_done() {
                break;
            }
        }
    }
    let done = body.is_done();
    Ok((out, done))
}

fn whole(input: &str) -> String {
    match feed(Body::Chunked(Chunked::with_marks()), input.as_bytes(), &[]) {
        Ok((out, true)) => String::from_utf8(out).unwrap(),
        Ok((_, false)) => "partial".into(),
        Err(error) => error,
    }
}

#[test]
fn section_7_1_what_passes() {
    for same in [
        "0\r\n\r\n",
        "3\r\nabc\r\n0\r\n\r\n",
        "00003\r\nabc\r\n0\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\n",
        "3;a=b\r\nabc\r\n0;c\r\n\r\n",
        "3\r\nabc\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
    ] {
        assert_eq!(whole(same), same);
    }
}

#[test]
fn section_7_1_what_is_refused() {
    for (input, expect) in [
        ("\r\n", "Size"),
        ("x\r\n", "Size"),
        ("0x3\r\nabc\r\n", "Size"),
        ("-1\r\n", "Size"),
        (" 3\r\nabc\r\n", "Size"),
        ("3\nabc\r\n", "Size"),
        ("3\rabc\r\n", "Size"),
        ("10000000000000000\r\n", "Size"),
        ("3;a\nb\r\nabc\r\n", "Extension"),
        ("3;a\0\r\nabc\r\n", "Extension"),
        ("3\r\nabcd\r\n", "End"),
        ("3\r\nabc\n0\r\n\r\n", "End"),
        ("3\r\nabc\r0\r\n\r\n", "End"),
        ("0\r\nX: y\n\r\n", "Trailer"),
        ("0\r\nX : y\r\n\r\n", "Trailer"),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", "Trailer"),
    ] {
        assert_eq!(whole(input), expect, "{input:?}");
    }
    assert_eq!(whole(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(300))), "Extension");
    assert_eq!(whole(&format!("0\r\nX: {}", "a".repeat(9000))), "Trailer");
}

#[test]
fn section_6_5_1_trailers_lose_what_must_not_be_there() {
    let input = "0\r\nContent-Length: 3\r\nX-Sum: 1\r\nX-Forwarded-For: 1.2.3.4\r\nHost: b\r\nY: 2\r\n\r\n";
    assert_eq!(whole(input), "0\r\nX-Sum: 1\r\nY: 2\r\n\r\n");
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(
        chunks in prop::collection::vec("[a-z\r\n]{1,40}", 0..5),
        trailer in "(X: y\r\n)?(Host: a\r\n)?",
        cuts in prop::collection::vec(1usize..9, 0..60),
    ) {
        let mut input = String::new();
        for chunk in &chunks {
            input += &format!("{:x};e\r\n{chunk}\r\n", chunk.len());
        }
        input += &format!("0\r\n{trailer}\r\n");
        let marked = || Body::Chunked(Chunked::with_marks());
        let plain = || Body::Chunked(Chunked::without_marks());
        prop_assert_eq!(feed(marked(), input.as_bytes(), &cuts), feed(marked(), input.as_bytes(), &[]));
        let (data, done) = feed(plain(), input.as_bytes(), &cuts).unwrap();
        prop_assert!(done);
        prop_assert_eq!(String::from_utf8(data).unwrap(), chunks.concat());
    }

    #[test]
    fn any_bytes_end_in_a_verdict(
        input in prop::collection::vec(prop::sample::select(b"0123456789abcdef;\r\n \tXy:=".to_vec()), 0..60),
        cuts in prop::collection::vec(1usize..9, 0..60),
    ) {
        let marked = || Body::Chunked(Chunked::with_marks());
        let (early, late) = (feed(marked(), &input, &cuts), feed(marked(), &input, &[]));
        // Cut bytes may have passed before the refusal; the verdict is the same.
        prop_assert_eq!(early.clone().map_err(|_| ()), late.map_err(|_| ()));
    }
}
