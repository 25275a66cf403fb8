//! One health check: a request on a connection of its own, and the status of the answer.
//!
//! A request, not a bare connect: the kernel accepts connections for a process that is stopped or stuck.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::buffer::{Buffer, Buffers};
use crate::codec::body::Body;
use crate::codec::chunked::Chunked;
use crate::codec::response::ResponseHead;
use crate::codec::scan::{Found, Scan};
use crate::reason::reason;
use crate::secure::Secured;
use crate::stream::epoll;

/// What is looked at of an answer's body, when it is.
pub(crate) const PROBE_BODY_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot connect: {}", reason(.0))]
    Connect(io::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("the connection broke before an answer: {}", reason(.0))]
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
    let question = Question { method: "GET", path, host, wants_body: false };
    let asked = tokio::time::timeout(within, ask(target, source, None, &question)).await;
    asked.unwrap_or(Err(ProbeError::Late(within))).map(|answer| answer.status)
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    /// Whether the body of the answer is looked at.
    pub(crate) wants_body: bool,
}

/// What was answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// The first [`PROBE_BODY_BYTES`] of the body, or all of a shorter one.
    pub(crate) body: Vec<u8>,
}

/// Asks on a connection of its own, for as long as the caller waits.
pub(crate) async fn ask(
    target: SocketAddr,
    source: Option<IpAddr>,
    secured: Option<&Secured>,
    question: &Question<'_>,
) -> Result<Answered, ProbeError> {
    let stream = epoll::connect(target, source).await.map_err(ProbeError::Connect)?;
    match secured {
        None => put(stream, question).await,
        Some(secured) => {
            let stream = secured.connect(stream).await.map_err(ProbeError::Connect)?;
            put(stream, question).await
        }
    }
}

async fn put(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: &Question<'_>,
) -> Result<Answered, ProbeError> {
    let Question { method, path, host, wants_body } = question;
    let length = if *method == "POST" { "content-length: 0\r\n" } else { "" };
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: dolmen-check\r\naccept: */*\r\n{length}\
         connection: close\r\n\r\n"
    );
    let sent = async {
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await
    };
    sent.await.map_err(ProbeError::Broken)?;
    let (mut buffer, mut scan) = (Buffer::default(), Scan::default());
    let mut answered = Answered::default();
    let body = loop {
        match scan.advance(buffer.data()) {
            Found::Head { begin, end } => {
                let mut head = ResponseHead::default();
                let loaded = head.load(&buffer.data()[begin..end], *method == "HEAD");
                let body = loaded.map_err(|_| ProbeError::NotHttp)?;
                buffer.consume(end);
                if !head.is_interim() {
                    answered.status = head.status();
                    break body;
                }
                scan = Scan::default();
                continue;
            }
            Found::Partial if !buffer.is_full() => {}
            _ => return Err(ProbeError::NotHttp),
        }
        if fill(&mut stream, &mut buffer).await? == 0 {
            return Err(ProbeError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
    };
    if *wants_body {
        read_body(&mut stream, &mut buffer, body, &mut answered.body).await?;
    }
    Ok(answered)
}

/// Reads the body until it ends, or until enough of it is here.
async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Buffer,
    body: Body,
    into: &mut Vec<u8>,
) -> Result<(), ProbeError> {
    let mut body = match body {
        Body::Chunked(_) => Body::Chunked(Chunked::without_marks()),
        body => body,
    };
    while !body.is_done() && into.len() < PROBE_BODY_BYTES {
        let step = body.advance(buffer.data_mut()).map_err(|_| ProbeError::NotHttp)?;
        into.extend_from_slice(&buffer.data()[..step.pass]);
        buffer.consume(step.pass + step.skip);
        let moved = step.pass + step.skip > 0;
        if !moved && !body.is_done() && fill(stream, buffer).await? == 0 {
            break;
        }
    }
    into.truncate(PROBE_BODY_BYTES);
    Ok(())
}

async fn fill(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Buffer) -> Result<usize, ProbeError> {
    buffer.ready(&Buffers::default());
    let count = stream.read(buffer.space()).await.map_err(ProbeError::Broken)?;
    buffer.filled(count);
    Ok(count)
}
