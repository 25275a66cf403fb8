//! Who and what is let in: so many requests of one client, and none that is too large.

use std::time::Instant;

use plan::Limits;
use relay::{Exchange, RequestHead};

use crate::rates::Rates;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Gate {
    rates: Option<Rates>,
    limits: Limits,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// In so many seconds the client may ask again.
    TooMany(u64),
    HeadTooLarge,
    BodyTooLarge,
}

impl Gate {
    /// `before`: the gate until now, which knows what clients have had.
    pub(crate) fn new(planned: &plan::Balancer, before: Option<&Gate>) -> Self {
        let known = before.and_then(|before| before.rates.as_ref());
        let rates = planned.rate_limit.as_ref().map(|limit| match known {
            Some(rates) => rates.changed(limit),
            None => Rates::new(limit, Instant::now()),
        });
        Self { rates, limits: planned.limits }
    }

    pub(crate) fn admit(&self, exchange: &mut Exchange<'_>) -> Result<(), Refused> {
        if let Some(rates) = &self.rates {
            rates.admit(exchange.client().ip(), exchange.began()).map_err(Refused::TooMany)?;
        }
        if self.limits.header_bytes.is_some_and(|most| head_bytes(exchange.request()) > most) {
            return Err(Refused::HeadTooLarge);
        }
        match self.limits.body_bytes {
            Some(most) if !exchange.limit_body(most) => Err(Refused::BodyTooLarge),
            _ => Ok(()),
        }
    }
}

/// As it came, but for blanks around values.
fn head_bytes(request: &RequestHead) -> u64 {
    let line = request.method().len() + request.target().len() + " HTTP/1.1\r\n".len() + 1;
    let fields = request.fields().iter().map(|(name, value)| name.len() + value.len() + ": \r\n".len());
    (line + fields.sum::<usize>() + "\r\n".len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_measured() {
        let text = "GET /a HTTP/1.1\r\nHost: x\r\nX-Long: 1\r\n\r\n";
        let mut head = RequestHead::default();
        head.load(text.as_bytes()).unwrap();
        assert_eq!(head_bytes(&head), text.len() as u64);
    }
}
