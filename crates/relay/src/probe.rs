//! One health check: a request on a connection of its own, and the status of the answer.
//!
//! A request, not a bare connect: the kernel accepts connections for a process that is stopped or stuck.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Context;
use std::time::Duration;

use crate::buffer::{Buffer, Buffers};
use crate::codec::response::ResponseHead;
use crate::codec::scan::{Found, Scan};
use crate::stream::Stream;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("the connection broke before an answer: {0}")]
    Broken(io::Error),
    #[error("the answer is not HTTP")]
    NotHttp,
}

/// Sends `GET path` to `target` (from `source`, when given) and says the status of the answer.
pub async fn probe(
    target: SocketAddr,
    source: Option<IpAddr>,
    host: &str,
    path: &str,
    within: Duration,
) -> Result<u16, ProbeError> {
    tokio::time::timeout(within, ask(target, source, host, path))
        .await
        .unwrap_or(Err(ProbeError::Late(within)))
}

async fn ask(target: SocketAddr, source: Option<IpAddr>, host: &str, path: &str) -> Result<u16, ProbeError> {
    let mut stream = Stream::connect(target, source).await.map_err(ProbeError::Connect)?;
    let text = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: dolmen-check\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let sent = std::future::poll_fn(|context| stream.poll_send(context, rest)).await;
        rest = &rest[sent.map_err(ProbeError::Broken)?..];
    }
    let (mut buffer, mut scan) = (Buffer::default(), Scan::default());
    loop {
        match scan.advance(buffer.data()) {
            Found::Head { begin, end } => {
                let mut head = ResponseHead::default();
                let loaded = head.load(&buffer.data()[begin..end], false);
                return loaded.map(|_| head.status()).map_err(|_| ProbeError::NotHttp);
            }
            Found::Partial if !buffer.is_full() => {}
            _ => return Err(ProbeError::NotHttp),
        }
        let fill = |context: &mut Context<'_>| stream.poll_fill(context, &mut buffer, &Buffers::default());
        match std::future::poll_fn(fill).await {
            Ok(0) => return Err(ProbeError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(ProbeError::Broken(error)),
        }
    }
}
