//! The first message of a client, as far as a gate must understand it.
//!
//! PostgreSQL manual, section 55.2.1 (start-up), 55.2.10 (cancel), 55.2.11 and 55.2.12 (encryption).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// PostgreSQL's own limit on a start-up message.
const STARTUP_BYTES: usize = 10_000;

/// The largest cancel request: a key of 256 bytes (protocol 3.2).
const CANCEL_BYTES: usize = 12 + 256;

const HEAD: usize = 8;
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// Whole messages, as they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A running statement of another connection is to end.
    Cancel(Vec<u8>),
    /// May this connection be encrypted? The server answers with one byte.
    Encrypt(Vec<u8>),
    Startup(Vec<u8>),
    /// Something else, such as TLS without a question before it: the beginning of what was sent.
    Other(Vec<u8>),
}

impl Opening {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Opening::Cancel(bytes)
            | Opening::Encrypt(bytes)
            | Opening::Startup(bytes)
            | Opening::Other(bytes) => bytes,
        }
    }
}

/// Reads exactly one opening message, not a byte more. `None`: the client went without one.
pub async fn read(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Opening>> {
    let mut bytes = vec![0; HEAD];
    if client.read(&mut bytes[..1]).await? == 0 {
        return Ok(None);
    }
    client.read_exact(&mut bytes[1..]).await?;
    let length = number(&bytes[..4]) as usize;
    let code = number(&bytes[4..HEAD]);
    let opening = match (code, length) {
        (TLS | GSS, HEAD) => return Ok(Some(Opening::Encrypt(bytes))),
        (CANCEL, 16..=CANCEL_BYTES) => Opening::Cancel,
        (_, HEAD..=STARTUP_BYTES) => Opening::Startup,
        _ => return Ok(Some(Opening::Other(bytes))),
    };
    bytes.resize(length, 0);
    client.read_exact(&mut bytes[HEAD..]).await?;
    Ok(Some(opening(bytes)))
}

/// The key in a cancel request: what `BackendKeyData` said.
pub fn cancel_key(request: &[u8]) -> &[u8] {
    request.get(HEAD..).unwrap_or_default()
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(sent: &[u8], expect: Option<Opening>) {
        let mut rest = sent;
        assert_eq!(read(&mut rest).await.unwrap(), expect);
    }

    #[tokio::test]
    async fn messages_are_told_apart() {
        let encrypt = [0, 0, 0, 8, 4, 210, 22, 47];
        check(&encrypt, Some(Opening::Encrypt(encrypt.to_vec()))).await;
        let cancel = [0, 0, 0, 16, 4, 210, 22, 46, 1, 2, 3, 4, 5, 6, 7, 8];
        check(&cancel, Some(Opening::Cancel(cancel.to_vec()))).await;
        let startup = [0, 0, 0, 9, 0, 3, 0, 0, 0];
        check(&startup, Some(Opening::Startup(startup.to_vec()))).await;
        let hello = [22, 3, 1, 2, 0, 1, 0, 1];
        check(&hello, Some(Opening::Other(hello.to_vec()))).await;
        check(&[], None).await;
        let mut short = &startup[..7];
        assert!(read(&mut short).await.is_err());
        let mut more = &[&encrypt[..], b"rest"].concat()[..];
        read(&mut more).await.unwrap();
        assert_eq!(more, b"rest");
    }
}
