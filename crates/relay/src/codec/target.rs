//! Request targets and authorities (RFC 9112 section 3.2, RFC 3986 section 3.2).

use std::ops::Range;

/// The form of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`; the path may be missing.
    Absolute { authority: Range<usize>, path: Range<usize> },
    /// `*`
    Asterisk,
    /// `host:port`, of CONNECT alone.
    Authority,
}

/// Tells the form. None for text that has none, or bytes that must be percent-encoded.
pub fn read(text: &[u8]) -> Option<Target> {
    if !text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return None;
    }
    if text.first() == Some(&b'/') {
        return Some(Target::Origin);
    }
    if text == b"*" {
        return Some(Target::Asterisk);
    }
    let scheme = ["http://", "https://"].into_iter().find(|scheme| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    });
    let Some(scheme) = scheme else {
        return is_authority(text).then_some(Target::Authority);
    };
    let start = scheme.len();
    let end = memchr::memchr2(b'/', b'?', &text[start..]).map_or(text.len(), |at| start + at);
    is_authority(&text[start..end])
        .then_some(Target::Absolute { authority: start..end, path: end..text.len() })
}

/// `host[:port]` without user information. Narrower than RFC 3986 where browsers and servers are.
pub fn is_authority(text: &[u8]) -> bool {
    if text.first() == Some(&b'[') {
        let Some(close) = memchr::memchr(b']', text) else { return false };
        let inner = &text[1..close];
        let address = std::str::from_utf8(inner).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        return address && is_port(&text[close + 1..]);
    }
    let end = memchr::memchr(b':', text).unwrap_or(text.len());
    end > 0 && text[..end].iter().all(|byte| is_host_byte(*byte)) && is_port(&text[end..])
}

fn is_host_byte(byte: u8) -> bool {
    HOST_BYTES[usize::from(byte)]
}

static HOST_BYTES: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let (others, mut at) = (b"-._~%!$&'()*+;=", 0);
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// Nothing, or `:` and up to five digits.
fn is_port(text: &[u8]) -> bool {
    match text.split_first() {
        None => true,
        Some((b':', digits)) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(read(b"/a?b"), Some(Target::Origin));
        assert_eq!(read(b"*"), Some(Target::Asterisk));
        assert_eq!(read(b"a.example:443"), Some(Target::Authority));
        assert_eq!(read(b"http://a:80/b"), Some(Target::Absolute { authority: 7..11, path: 11..13 }));
        assert_eq!(read(b"HTTP://a?b"), Some(Target::Absolute { authority: 7..8, path: 8..10 }));
        assert_eq!(read(b"http://user@a/"), None);
        assert_eq!(read(b"http:///a"), None);
        assert_eq!(read(b"/a#b"), None);
        assert_eq!(read("/ä".as_bytes()), None);
    }

    #[test]
    fn authorities() {
        for good in ["a", "a:80", "[::1]", "[::1]:8080", "127.0.0.1:1", "a:"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in ["", ":80", "a b", "a/b", "a:80:80", "a:123456", "[::1", "[a]", "u@a", "a,b", "[::1]x"] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
