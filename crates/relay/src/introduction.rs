//! Who the client is, told to the servers behind by the first of ours that it meets.
//!
//! Whatever a client says of itself in these fields is replaced or removed, since nobody has said whom to trust.

use crate::exchange::Exchange;

/// The client's address and the request's name, as text.
#[derive(Clone, Debug)]
pub struct Introduction {
    client: String,
    id: String,
}

impl Introduction {
    pub fn of(exchange: &Exchange<'_>) -> Self {
        Self { client: exchange.client().ip().to_canonical().to_string(), id: exchange.fresh_id() }
    }

    /// The name of this request, which the client sees on error pages and the servers in `X-Request-Id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The fields to set; an empty value removes.
    pub fn fields<'a>(&'a self, host: Option<&'a str>) -> [(&'a str, &'a str); 9] {
        [
            ("x-forwarded-for", &self.client),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", host.unwrap_or_default()),
            ("x-request-id", &self.id),
            ("forwarded", ""),
            ("x-real-ip", ""),
            ("x-forwarded-port", ""),
            ("x-forwarded-server", ""),
            ("x-forwarded-prefix", ""),
        ]
    }
}
