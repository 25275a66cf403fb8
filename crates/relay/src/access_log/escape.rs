//! What a client wrote, made harmless: no byte of it can end a line or a text, or mean anything to a terminal.

/// What is written of one field; the rest is cut off, and three dots say so.
const FIELD_BYTES: usize = 4 * 1024;

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Between double quotes as nginx and Apache write it: `\xHH` for quotes, backslashes and all that is not visible
/// ASCII.
pub(super) fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    let (mut rest, is_cut) = cut(bytes);
    // Almost all is plain, which is sooner known without stopping at the first that is not.
    if rest.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        out.extend_from_slice(rest);
        return end(out, is_cut);
    }
    while let Some(odd) = rest.iter().position(|byte| !is_plain(*byte)) {
        out.extend_from_slice(&rest[..odd]);
        let byte = rest[odd];
        out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]);
        rest = &rest[odd + 1..];
    }
    out.extend_from_slice(rest);
    end(out, is_cut);
}

/// A JSON string in ASCII, with its quotes (RFC 8259 section 7). What is not UTF-8 becomes U+FFFD.
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    let (bytes, is_cut) = cut(bytes);
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match u8::try_from(letter) {
                Ok(byte) if is_plain(byte) => out.push(byte),
                _ => letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped(out, *unit)),
            }
        }
        if !chunk.invalid().is_empty() {
            escaped(out, 0xfffd);
        }
    }
    end(out, is_cut);
    out.push(b'"');
}

fn cut(bytes: &[u8]) -> (&[u8], bool) {
    (&bytes[..bytes.len().min(FIELD_BYTES)], bytes.len() > FIELD_BYTES)
}

fn end(out: &mut Vec<u8>, is_cut: bool) {
    if is_cut {
        out.extend_from_slice(b"...");
    }
}

fn escaped(out: &mut Vec<u8>, unit: u16) {
    let [high, low] = unit.to_be_bytes();
    let digits = [digit(high >> 4), digit(high), digit(low >> 4), digit(low)];
    out.extend_from_slice(b"\\u");
    out.extend_from_slice(&digits);
}

fn digit(value: u8) -> u8 {
    DIGITS[usize::from(value & 15)]
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(write: fn(&mut Vec<u8>, &[u8]), bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_odd_is_escaped() {
        let odd = "a\"b\\c\r\n\x1b[31m\x7fé\u{1f600}".as_bytes();
        assert_eq!(said(quoted, odd), r"a\x22b\x5Cc\x0D\x0A\x1B[31m\x7F\xC3\xA9\xF0\x9F\x98\x80");
        assert_eq!(said(json, odd), r#""a\u0022b\u005Cc\u000D\u000A\u001B[31m\u007F\u00E9\uD83D\uDE00""#);
        assert_eq!(said(json, b"\xff\xc3"), "\"\\uFFFD\\uFFFD\"");
        let long = "x".repeat(FIELD_BYTES + 1);
        assert_eq!(said(quoted, long.as_bytes()).len(), FIELD_BYTES + "...".len());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_stay_inside_their_quotes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let text = said(quoted, &bytes);
            proptest::prop_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"'));
            let text = said(json, &bytes);
            proptest::prop_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            let read: String = serde_json::from_str(&text).unwrap();
            proptest::prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }
    }
}
