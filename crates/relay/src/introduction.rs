//! Who the client is, told to the servers behind by the first of ours that it meets.
//!
//! Whatever a client says of itself in these fields is replaced or removed, unless it is a proxy whose word is trusted.

mod claims;

use std::net::IpAddr;

use plan::Network;

use crate::codec::text::Text;
use crate::exchange::Exchange;

/// The client's address and the request's name, as text.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// The client and the proxies after it, as `X-Forwarded-For` lists them.
    chain: Text,
    scheme: &'static str,
    /// What the client asked a trusted proxy for.
    host: Option<String>,
    /// The same for servers that read `Forwarded`, when a proxy wrote it.
    forwarded: String,
    id: Text,
}

impl Introduction {
    /// Of a client that comes by itself, or by way of proxies in these networks: then the exchange has the client's
    /// address from now on.
    pub fn of(exchange: &mut Exchange<'_>, trusted: &[Network]) -> Self {
        let peer = exchange.client().ip().to_canonical();
        let claims = match trusted {
            [] => None,
            _ => claims::read(peer, exchange.request().fields(), trusted),
        };
        let Some(claims) = claims else {
            let (chain, id) = (Text::of_ip(peer), exchange.id_text());
            return Self { chain, scheme: "http", host: None, forwarded: String::new(), id };
        };
        if let [client, _, ..] = claims.chain[..] {
            exchange.speaks_for(client);
        }
        if let Some(id) = claims.id {
            exchange.takes_id(id);
        }
        let scheme = if claims.https { "https" } else { "http" };
        let chain: Vec<String> = claims.chain.iter().map(IpAddr::to_string).collect();
        let host = claims.host.as_deref().or(exchange.request().host());
        let forwarded = match claims.forwarded {
            true => forwarded(&claims.chain, scheme, host),
            false => String::new(),
        };
        let chain = Text::Long(chain.join(", "));
        Self { forwarded, chain, scheme, host: claims.host, id: exchange.id_text() }
    }

    /// The name of this request, which the client sees on error pages and the servers in `X-Request-Id`.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// The fields to set; an empty value removes. `host`: what the request asks for.
    pub fn fields<'a>(&'a self, host: Option<&'a str>) -> [(&'a str, &'a str); 9] {
        [
            ("x-forwarded-for", self.chain.as_str()),
            ("x-forwarded-proto", self.scheme),
            ("x-forwarded-host", self.host.as_deref().or(host).unwrap_or_default()),
            ("x-request-id", self.id.as_str()),
            ("forwarded", &self.forwarded),
            ("x-real-ip", ""),
            ("x-forwarded-port", ""),
            ("x-forwarded-server", ""),
            ("x-forwarded-prefix", ""),
        ]
    }
}

/// The chain as `Forwarded` writes it (RFC 7239 section 4).
fn forwarded(chain: &[IpAddr], scheme: &str, host: Option<&str>) -> String {
    let node = |address: &IpAddr| match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    let mut nodes: Vec<String> = chain.iter().map(node).collect();
    nodes[0] += &format!(";proto={scheme}");
    if let Some(host) = host {
        nodes[0] += &format!(";host=\"{host}\"");
    }
    nodes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_quotes_what_needs_it() {
        let chain = ["2001:db8::1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        let text = forwarded(&chain, "https", Some("a.example:8443"));
        assert_eq!(text, "for=\"[2001:db8::1]\";proto=https;host=\"a.example:8443\", for=10.0.0.1");
    }
}
