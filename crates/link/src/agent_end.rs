//! The agent's end of the link: who is at the other end, and what is said.
//!
//! It moves frames; what they mean for a server's life is decided in the agent.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::frame::{self, FrameError};
pub use crate::line::{Down, Given, Taken, Up, VERSION, Welcome};

/// How long a server may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);

/// How long a frame down may wait for room. A server that is stopped in its tracks must not hold up the agent;
/// it is cut off, and connects again when it goes on.
const WRITE: Duration = Duration::from_millis(100);

/// A connection that was accepted, and who is at its other end as the kernel says it. Any account of the
/// computer may connect: read nothing from a process that cannot be a server.
#[derive(Debug)]
pub struct Knock {
    pub pid: u32,
    pub uid: u32,
    stream: UnixStream,
}

/// A server that has said hello.
#[derive(Debug)]
pub struct Hello {
    pub server: String,
    pub pid: u32,
    pub uid: u32,
    /// Whether it outlived an earlier agent.
    pub again: bool,
    /// What it brings back: nothing when it is new.
    pub holds: Vec<(String, OwnedFd)>,
    pub peer: Peer,
}

/// One connected server.
#[derive(Debug)]
pub struct Peer {
    stream: UnixStream,
}

impl Knock {
    pub fn of(stream: UnixStream) -> std::io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        Ok(Self { pid: peer.pid.as_raw_pid() as u32, uid: peer.uid.as_raw(), stream })
    }

    /// Reads the first frame. Blocks up to [`HELLO`].
    pub fn hello(self) -> Result<Hello, FrameError> {
        let Self { pid, uid, stream } = self;
        stream.set_read_timeout(Some(HELLO))?;
        stream.set_write_timeout(Some(WRITE))?;
        let (up, descriptors) = frame::receive::<Up>(&stream)?;
        let Up::Hello { version, server, again, holds } = up else {
            return Err(FrameError::Unexpected("no hello".into()));
        };
        if version != VERSION || holds.len() != descriptors.len() {
            return Err(FrameError::Unexpected(format!(
                "{server} speaks version {version} of the link with {} descriptors; this agent speaks {VERSION}",
                descriptors.len()
            )));
        }
        stream.set_read_timeout(None)?;
        let holds = holds.into_iter().zip(descriptors).collect();
        Ok(Hello { server, pid, uid, again, holds, peer: Peer { stream } })
    }
}

impl Peer {
    pub fn welcome(&self, welcome: Welcome, descriptors: &[impl AsFd]) -> Result<(), FrameError> {
        frame::send(&self.stream, &Down::Welcome(Box::new(welcome)), descriptors)
    }

    pub fn adopted(&self) -> Result<(), FrameError> {
        self.send(&Down::Adopted)
    }

    pub fn send(&self, down: &Down) -> Result<(), FrameError> {
        frame::send(&self.stream, down, &[] as &[OwnedFd])
    }

    /// The next frame from the server. Blocks.
    pub fn receive(&self) -> Result<Up, FrameError> {
        frame::receive(&self.stream).map(|(up, _)| up)
    }

    /// A second handle on the same connection, so that one thread can read while another writes.
    pub fn second(&self) -> std::io::Result<Peer> {
        Ok(Peer { stream: self.stream.try_clone()? })
    }

    /// Ends the connection in both directions, which also ends a `receive` that waits in another thread.
    pub fn close(&self) {
        if let Err(error) = self.stream.shutdown(std::net::Shutdown::Both) {
            tracing::trace!("the connection was closed before: {error}");
        }
    }
}
