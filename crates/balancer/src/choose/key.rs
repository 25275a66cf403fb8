//! What a consistent choice goes by, as one number.
//!
//! The hash is fixed (FNV-1a, then the last step of SplitMix64), so that all balancers of a site, today's and
//! tomorrow's, send a client to the same server. It is no defence: who picks keys can pick a server.

use std::net::IpAddr;

use relay::RequestHead;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Source,
    /// The path without the query.
    Uri,
    Header(String),
    Cookie(String),
}

impl Key {
    /// None: this request has no such header or cookie.
    pub fn of(&self, client: IpAddr, request: &RequestHead) -> Option<u64> {
        match self {
            Key::Source => Some(match client.to_canonical() {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
            Key::Uri => Some(hash(request.path().as_bytes())),
            Key::Header(name) => request.fields().get(name).map(hash),
            Key::Cookie(name) => cookies(request, name).next().map(hash),
        }
    }
}

/// The values of the cookies of this name (RFC 6265 section 4.2.1).
pub fn cookies<'a>(request: &'a RequestHead, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
    let pairs = request.fields().all("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })
}

pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Spreads a number over all 64 bits.
pub fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &str) -> RequestHead {
        let mut head = RequestHead::default();
        head.load(format!("GET /a/b?c HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes()).unwrap();
        head
    }

    #[test]
    fn keys_are_found_where_they_are() {
        let client = "192.0.2.1".parse().unwrap();
        let head = request("X-User: 7\r\nCookie: a=1; sid=xyz;b=2\r\nCookie: sidx=0\r\n");
        assert_eq!(Key::Uri.of(client, &head), Some(hash(b"/a/b")));
        assert_eq!(Key::Header("x-user".into()).of(client, &head), Some(hash(b"7")));
        assert_eq!(Key::Cookie("sid".into()).of(client, &head), Some(hash(b"xyz")));
        assert_eq!(Key::Cookie("si".into()).of(client, &head), None);
        assert_eq!(Key::Header("x-none".into()).of(client, &head), None);
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(Key::Source.of(client, &head), Key::Source.of(mapped, &head));
    }

    /// Every balancer of a site must agree, so this may never change.
    #[test]
    fn the_hash_is_fixed() {
        assert_eq!((hash(b""), hash(b"a")), (0xf52a_15e9_a9b5_e89b, 0x02c0_bdbf_4814_20f8));
    }
}
