//! One frame: four bytes of length, big-endian, then JSON. Used on the link and by the agent API.
//!
//! On a Unix socket descriptors may come beside the frame (SCM_RIGHTS, unix(7)). A frame is never larger
//! than [`LIMIT`]: a peer that announces more is cut off before a byte of it is stored.

use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest frame in bytes: a plan of some hundred servers is a tenth of this.
pub const LIMIT: usize = 4 * 1024 * 1024;

/// The most descriptors beside one frame; the kernel allows 253.
pub const DESCRIPTORS: usize = 200;

const HEAD: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the other side closed the connection")]
    Closed,
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLarge { length: usize, limit: usize },
    #[error("a frame cannot be read: {0}")]
    Meaning(#[from] serde_json::Error),
    #[error("an unexpected frame: {0}")]
    Unexpected(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<rustix::io::Errno> for FrameError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - HEAD;
    if length > LIMIT {
        return Err(FrameError::TooLarge { length, limit: LIMIT });
    }
    bytes[..HEAD].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(bytes)
}

fn length(head: [u8; HEAD], limit: usize) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(head) as usize;
    if length > limit { Err(FrameError::TooLarge { length, limit }) } else { Ok(length) }
}

/// Writes one frame, with descriptors beside its first byte. Blocks.
pub fn send(stream: &UnixStream, message: &impl Serialize, fds: &[impl AsFd]) -> Result<(), FrameError> {
    let bytes = encode(message)?;
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(&fds).size()];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(FrameError::Unexpected(format!("{} descriptors do not fit a frame", fds.len())));
    }
    let mut sent = 0;
    while sent < bytes.len() {
        let rest = [IoSlice::new(&bytes[sent..])];
        match sendmsg(stream, &rest, &mut beside, SendFlags::NOSIGNAL) {
            Ok(count) => {
                sent += count;
                beside.clear();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Reads one frame and the descriptors that came with it. Blocks.
pub fn receive<M: DeserializeOwned>(mut stream: &UnixStream) -> Result<(M, Vec<OwnedFd>), FrameError> {
    let mut head = [0; HEAD];
    let mut descriptors = Vec::new();
    let mut filled = 0;
    while filled < HEAD {
        let count = receive_some(stream, &mut head[filled..], &mut descriptors)?;
        if count == 0 {
            return Err(FrameError::Closed);
        }
        filled += count;
    }
    let mut body = vec![0; length(head, LIMIT)?];
    stream.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, descriptors))
}

fn receive_some(
    stream: &UnixStream,
    into: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<usize, FrameError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(stream, &mut [IoSliceMut::new(into)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(received.bytes)
}

/// The same frame over any asynchronous stream, without descriptors.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), FrameError> {
    stream.write_all(&encode(message)?).await?;
    Ok(stream.flush().await?)
}

/// Reads one frame of at most so many bytes from any asynchronous stream. Not safe to cancel: the stream is then in the
/// middle of one.
pub async fn read<M: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<M, FrameError> {
    let mut head = [0; HEAD];
    if let Err(error) = stream.read_exact(&mut head).await {
        let closed = error.kind() == std::io::ErrorKind::UnexpectedEof;
        return Err(if closed { FrameError::Closed } else { error.into() });
    }
    let mut body = vec![0; length(head, limit)?];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_come_with_their_frame() {
        let (a, b) = UnixStream::pair().unwrap();
        let (x, y) = UnixStream::pair().unwrap();
        send(&a, &"first", &[x]).unwrap();
        send(&a, &"second", &[] as &[OwnedFd]).unwrap();
        let (first, descriptors): (String, _) = receive(&b).unwrap();
        let (second, none): (String, _) = receive(&b).unwrap();
        assert_eq!((first.as_str(), second.as_str(), none.len()), ("first", "second", 0));
        let x = UnixStream::from(descriptors.into_iter().next().unwrap());
        send(&x, &42, &[] as &[OwnedFd]).unwrap();
        assert_eq!(receive::<u32>(&y).unwrap().0, 42);
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_before_it_is_read() {
        use std::io::Write;
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(matches!(receive::<String>(&b), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn an_end_is_told_from_a_broken_frame() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert!(matches!(receive::<String>(&b), Err(FrameError::Closed)));
    }
}
