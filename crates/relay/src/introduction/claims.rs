//! What proxies say of the client before them, believed as far as each one is trusted. Pure.
//!
//! Each proxy adds the address that it saw on the right, so the list is read from the right: the first address that is
//! not a trusted proxy's is the client's. What stands left of it was written by the client, and is left out.

use std::net::{IpAddr, SocketAddr};

use plan::Network;

use crate::codec::fields::{Fields, tokens};
use crate::codec::target::is_authority;

/// The most proxies before us that are followed.
const PROXIES: usize = 32;
const ID_BYTES: usize = 128;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// From the client to whoever is connected to us.
    pub(super) chain: Vec<IpAddr>,
    pub(super) https: bool,
    pub(super) host: Option<String>,
    pub(super) id: Option<String>,
    /// Whether they were said, or said as well, in `Forwarded`.
    pub(super) forwarded: bool,
}

/// None: the other end is no trusted proxy, and nothing that it says of others counts.
pub(super) fn read(peer: IpAddr, fields: &Fields, trusted: &[Network]) -> Option<Claims> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return None;
    }
    let last = |name| fields.all(name).flat_map(tokens).last();
    let elements: Vec<Element<'_>> = fields.all("forwarded").flat_map(elements).collect();
    let listed: Vec<&[u8]> = fields.all("x-forwarded-for").flat_map(tokens).collect();
    let plain = !listed.is_empty();
    let hops = if plain { listed } else { elements.iter().map(|element| element.client).collect() };
    let mut chain = vec![peer.to_canonical()];
    for hop in hops.iter().rev().take(PROXIES) {
        match address(hop) {
            Some(address) if chain.last().is_some_and(|last| is_trusted(*last)) => chain.push(address),
            _ => break,
        }
    }
    // The element that tells of the client itself.
    let element = (!plain).then(|| elements.iter().rev().nth(chain.len().saturating_sub(2))).flatten();
    let scheme = last("x-forwarded-proto").or(element.map(|element| element.scheme));
    let host = last("x-forwarded-host").or(element.map(|element| element.host));
    chain.reverse();
    Some(Claims {
        chain,
        https: scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https")),
        host: host.filter(|host| !host.is_empty() && is_authority(host)).map(text),
        id: fields.get("x-request-id").filter(|id| is_id(id)).map(text),
        forwarded: !elements.is_empty(),
    })
}

/// One member of `Forwarded` (RFC 7239 section 4). Empty: not said.
#[derive(Clone, Copy, Debug, Default)]
struct Element<'a> {
    client: &'a [u8],
    scheme: &'a [u8],
    host: &'a [u8],
}

fn elements(value: &[u8]) -> impl Iterator<Item = Element<'_>> {
    outside_quotes(value, b',').map(|element| {
        let mut read = Element::default();
        for pair in outside_quotes(element, b';') {
            let Some(equals) = memchr::memchr(b'=', pair) else { continue };
            let (name, value) = (pair[..equals].trim_ascii(), unquoted(pair[equals + 1..].trim_ascii()));
            match name {
                name if name.eq_ignore_ascii_case(b"for") => read.client = value,
                name if name.eq_ignore_ascii_case(b"proto") => read.scheme = value,
                name if name.eq_ignore_ascii_case(b"host") => read.host = value,
                _ => {}
            }
        }
        read
    })
}

fn outside_quotes(value: &[u8], mark: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value.split(move |byte| {
        quoted ^= *byte == b'"';
        !quoted && *byte == mark
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// An address, with or without a port and brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

fn is_id(id: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=ID_BYTES).contains(&id.len()) && id.iter().all(fits)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::request::RequestHead;

    fn claims(fields: &str) -> Option<Claims> {
        from("10.0.0.1", fields)
    }

    fn from(peer: &str, fields: &str) -> Option<Claims> {
        let mut head = RequestHead::default();
        head.load(format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes()).unwrap();
        let trusted = [Network { address: "10.0.0.0".parse().unwrap(), bits: 8 }];
        read(peer.parse().unwrap(), head.fields(), &trusted)
    }

    fn chain(fields: &str) -> String {
        let claims = claims(fields).unwrap();
        claims.chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_not_trusted() {
        assert_eq!(from("192.0.2.9", "X-Forwarded-For: 6.6.6.6\r\n"), None);
        assert_eq!(chain(""), "10.0.0.1");
        assert_eq!(chain("X-Forwarded-For: 192.0.2.1\r\n"), "192.0.2.1 10.0.0.1");
        assert_eq!(
            chain("X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nx-forwarded-for: 10.0.0.2\r\n"),
            "192.0.2.1 10.0.0.2 10.0.0.1"
        );
        assert_eq!(chain("X-Forwarded-For: 192.0.2.1, nonsense\r\n"), "10.0.0.1");
        assert_eq!(chain("X-Forwarded-For: [2001:db8::1]:80\r\n"), "2001:db8::1 10.0.0.1");
        assert_eq!(chain("X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n"), "10.0.0.3 10.0.0.2 10.0.0.1");
        let long = format!("X-Forwarded-For: 10.0.0.2{}\r\n", ", 10.0.0.2".repeat(100));
        assert_eq!(claims(&long).unwrap().chain.len(), PROXIES + 1);
    }

    #[test]
    fn forwarded_is_read_where_the_older_field_is_absent() {
        let fields = "Forwarded: for=6.6.6.6;host=evil, for=\"[2001:db8::1]:4711\";proto=https;host=a.example, \
                      for=10.0.0.2;proto=http\r\n";
        let claims = claims(fields).unwrap();
        assert_eq!(chain(fields), "2001:db8::1 10.0.0.2 10.0.0.1");
        assert_eq!((claims.https, claims.host.as_deref(), claims.forwarded), (true, Some("a.example"), true));
    }

    #[test]
    fn scheme_host_and_id_are_taken_when_they_are_plain() {
        let told = claims(
            "X-Forwarded-Proto: http, HTTPS\r\nX-Forwarded-Host: a.example:8443\r\nX-Request-Id: a-1\r\n",
        );
        let told = told.unwrap();
        assert_eq!(
            (told.https, told.host.as_deref(), told.id.as_deref()),
            (true, Some("a.example:8443"), Some("a-1"))
        );
        let told =
            claims("X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a b\r\nX-Request-Id: <b>\r\n").unwrap();
        assert_eq!((told.https, told.host, told.id), (false, None, None));
    }
}
