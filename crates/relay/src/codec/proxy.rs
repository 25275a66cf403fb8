//! The PROXY protocol (versions 1 and 2 of haproxy.org's proxy-protocol.txt): who the client is, said by a proxy before
//! the first byte of the client's own.
//!
//! Read only where the other end is known to send it: nobody guesses, since a client that may write such a line says
//! of itself what it likes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, its line end included, and the longest of version 2 that is taken, with all that
/// follows the addresses.
const LINE_BYTES: usize = 107;
pub const PROXY_BYTES: usize = 4_096;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES: usize = 16;

/// A header, and whom it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduced {
    /// None: the proxy speaks for itself.
    pub client: Option<SocketAddr>,
    /// Its bytes; what follows is the client's.
    pub length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("the connection does not begin with the PROXY protocol")]
    Absent,
    #[error("the PROXY protocol's header is malformed")]
    Malformed,
    #[error("the PROXY protocol's header is too long")]
    TooLong,
    #[error("the PROXY protocol speaks of a client that did not come by TCP")]
    NotTcp,
}

/// Reads a header at the beginning of `bytes`. None: more bytes are needed.
pub fn read(bytes: &[u8]) -> Result<Option<Introduced>, ProxyError> {
    const WORD: &[u8] = b"PROXY ";
    let begins = |text: &[u8]| bytes.iter().zip(text).all(|(byte, expect)| byte == expect);
    if begins(SIGNATURE) {
        return if bytes.len() < FIXED_BYTES { Ok(None) } else { binary(bytes) };
    }
    if !begins(WORD) {
        return Err(ProxyError::Absent);
    }
    let within = &bytes[..bytes.len().min(LINE_BYTES)];
    match memchr::memchr(b'\n', within) {
        Some(end) => {
            let line = within[..end].strip_suffix(b"\r").ok_or(ProxyError::Malformed)?;
            Ok(Some(Introduced { client: text(line)?, length: end + 1 }))
        }
        None if within.len() == LINE_BYTES => Err(ProxyError::TooLong),
        None => Ok(None),
    }
}

/// `PROXY TCP4 SOURCE DESTINATION PORT PORT`, each after one blank.
fn text(line: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed)?;
    let words: Vec<&str> = line.split(' ').collect();
    let address = |four: bool, text: &str| {
        let address: IpAddr = text.parse().ok().filter(|address: &IpAddr| address.is_ipv4() == four)?;
        Some(address)
    };
    let four = match words[..] {
        // Whatever follows is not looked at.
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", "TCP4", _, _, _, _] => true,
        ["PROXY", "TCP6", _, _, _, _] => false,
        _ => return Err(ProxyError::Malformed),
    };
    let whole = || {
        let source = SocketAddr::new(address(four, words[2])?, port(words[4])?);
        let _destination = SocketAddr::new(address(four, words[3])?, port(words[5])?);
        Some(source)
    };
    whole().map(Some).ok_or(ProxyError::Malformed)
}

/// Digits alone, without zeros before them.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn binary(bytes: &[u8]) -> Result<Option<Introduced>, ProxyError> {
    let (command, family) = (bytes[12], bytes[13]);
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > PROXY_BYTES {
        return Err(ProxyError::TooLong);
    }
    let needed = match (command, family) {
        // The proxy's own connection, for example a check: whatever the rest says.
        (0x20, _) | (0x21, 0x00) => 0,
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        (0x21, 0x12 | 0x22 | 0x31 | 0x32) => return Err(ProxyError::NotTcp),
        _ => return Err(ProxyError::Malformed),
    };
    if length < FIXED_BYTES + needed {
        return Err(ProxyError::Malformed);
    }
    let Some(body) = bytes.get(FIXED_BYTES..length) else { return Ok(None) };
    let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let client = match needed {
        12 => {
            let octets: [u8; 4] = body[..4].try_into().map_err(|_| ProxyError::Malformed)?;
            Some(SocketAddr::new(Ipv4Addr::from(octets).into(), number(8)))
        }
        36 => {
            let octets: [u8; 16] = body[..16].try_into().map_err(|_| ProxyError::Malformed)?;
            Some(SocketAddr::new(Ipv6Addr::from(octets).into(), number(32)))
        }
        _ => None,
    };
    Ok(Some(Introduced { client, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    fn client(bytes: &[u8]) -> Result<Option<String>, ProxyError> {
        let whole = read(bytes)?.expect("it is all there");
        for cut in 0..whole.length {
            assert_eq!(read(&bytes[..cut]), Ok(None), "{cut}");
        }
        let more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(read(&more), Ok(Some(whole)));
        Ok(whole.client.map(|client| client.to_string()))
    }

    #[test]
    fn both_versions_name_the_client() {
        let four = b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\r\n";
        assert_eq!(client(four), Ok(Some("192.0.2.1:4711".into())));
        let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 80\r\n";
        assert_eq!(client(six), Ok(Some("[2001:db8::1]:4711".into())));
        assert_eq!(client(b"PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(client(b"PROXY UNKNOWN what ever\r\n"), Ok(None));
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 0, 80];
        assert_eq!(client(&version_2(0x21, 0x11, &four)), Ok(Some("192.0.2.1:4711".into())));
        let with_more = [&four[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(client(&version_2(0x21, 0x11, &with_more)), Ok(Some("192.0.2.1:4711".into())));
        let mut six = [0; 36];
        (six[15], six[33]) = (1, 80);
        assert_eq!(client(&version_2(0x21, 0x21, &six)), Ok(Some("[::1]:80".into())));
        assert_eq!(client(&version_2(0x20, 0x11, &[])), Ok(None), "LOCAL");
        assert_eq!(client(&version_2(0x21, 0, &[1, 2])), Ok(None), "UNSPEC");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 80 \r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.1 4711 80\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 4711 80\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 4711 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +4711 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 04711 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 4711 80\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Err(ProxyError::Malformed), "{line:?}");
        }
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n"), Err(ProxyError::Absent));
        assert_eq!(read(b"\r\n\r\nGET"), Err(ProxyError::Absent));
        assert_eq!(read(&[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat()), Err(ProxyError::TooLong));
        assert_eq!(read(&version_2(0x11, 0x11, &[0; 12])), Err(ProxyError::Malformed), "version 1");
        assert_eq!(read(&version_2(0x22, 0x11, &[0; 12])), Err(ProxyError::Malformed), "command 2");
        assert_eq!(read(&version_2(0x21, 0x11, &[0; 11])), Err(ProxyError::Malformed), "too short");
        assert_eq!(read(&version_2(0x21, 0x12, &[0; 12])), Err(ProxyError::NotTcp));
        assert_eq!(read(&version_2(0x21, 0x11, &[0; 5_000])), Err(ProxyError::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), tail in 0usize..3) {
            let begun = [&[], &b"PROXY TCP4 "[..], SIGNATURE][tail];
            let bytes = [begun, &bytes].concat();
            if let Ok(Some(read)) = read(&bytes) {
                proptest::prop_assert!(read.length <= bytes.len());
            }
        }
    }
}
