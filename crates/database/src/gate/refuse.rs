//! Refusals in PostgreSQL's own words, so that every client library shows why.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::opening::{self, Opening};

/// How long a client may take to hear that it is refused.
const LIMIT: Duration = Duration::from_secs(2);

/// Questions about encryption before a start-up message; libpq asks at most two.
const QUESTIONS: usize = 3;

/// SQLSTATE codes of the PostgreSQL manual, appendix A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    TooManyConnections,
    CannotConnectNow,
    /// What PostgreSQL says to the sessions that a stop ends: every pool knows it.
    Ended,
    /// Whether a transaction is there, and stays there, nobody knows.
    OutcomeUnknown,
}

/// Said in place of the success of a commit that is on the primary alone.
pub(crate) const UNCONFIRMED: &str =
    "the wait for the replicas was cancelled: the transaction is on the primary alone and may yet be lost";

/// Said at the read-write address for a server that was the primary and is none now.
pub(crate) const STANDBY: &str =
    "the server that was the primary is a standby now, and there is no other yet; connect again";

impl Code {
    fn text(self) -> &'static str {
        match self {
            Code::TooManyConnections => "53300",
            Code::CannotConnectNow => "57P03",
            Code::Ended => "57P01",
            Code::OutcomeUnknown => "08007",
        }
    }
}

/// Tells the client and closes. `opening` is what it said so far, if it was read already.
pub(crate) async fn refuse(mut client: TcpStream, opening: Option<Opening>, code: Code, message: &str) {
    let told = tell(&mut client, opening, code, message);
    match tokio::time::timeout(LIMIT, told).await {
        Ok(Err(error)) => tracing::trace!("a client did not wait for its refusal: {error}"),
        Err(_) => tracing::trace!("a client was too slow for its refusal"),
        Ok(Ok(())) => {}
    }
}

async fn tell(
    client: &mut TcpStream,
    mut opening: Option<Opening>,
    code: Code,
    message: &str,
) -> std::io::Result<()> {
    for _ in 0..QUESTIONS {
        match opening.take() {
            // An error in answer to the question would not be shown: no encryption, then the start-up message.
            Some(Opening::Encrypt(_)) => client.write_all(b"N").await?,
            Some(Opening::Startup(_)) => {
                client.write_all(&error_response(code, message)).await?;
                break;
            }
            Some(Opening::Cancel(_) | Opening::Other(_)) => return Ok(()),
            None => {}
        }
        opening = opening::read(client).await?;
        if opening.is_none() {
            return Ok(());
        }
    }
    end(client).await
}

/// Ends our side and waits for the client's. What it sent meanwhile must be read, or the close becomes a reset
/// that overtakes the last message.
pub(crate) async fn end(client: &mut TcpStream) -> std::io::Result<()> {
    client.shutdown().await?;
    let mut rest = [0; 512];
    while client.read(&mut rest).await? != 0 {}
    Ok(())
}

/// ErrorResponse, section 55.7 of the manual.
pub(crate) fn error_response(code: Code, message: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code.text()), (b'M', message)] {
        body.push(field);
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut bytes = vec![b'E'];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.append(&mut body);
    bytes
}

/// The SQLSTATE in the body of an ErrorResponse.
pub(crate) fn sqlstate(body: &[u8]) -> Option<&str> {
    field(body, b'C')
}

/// Its message.
pub(crate) fn message(body: &[u8]) -> Option<&str> {
    field(body, b'M')
}

fn field(body: &[u8], name: u8) -> Option<&str> {
    let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&name))?;
    std::str::from_utf8(&found[1..]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_as_it_was_written() {
        let bytes = error_response(Code::CannotConnectNow, "not now");
        assert_eq!(bytes[0], b'E');
        assert_eq!(bytes.len(), 1 + u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize);
        assert_eq!((sqlstate(&bytes[5..]), message(&bytes[5..])), (Some("57P03"), Some("not now")));
    }
}
