//! Why a request could not be forwarded: whose fault, and whether to try elsewhere.

use std::io;

use crate::codec::chunked::ChunkError;
use crate::outcome::Cause;
use crate::reason::{is_ours, reason};

#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("cannot connect: {}", reason(.0))]
    Connect(io::Error),
    #[error("no connection within the time allowed")]
    ConnectLate,
    #[error("the connection broke before anything was sent: {}", reason(.0))]
    NotSent(io::Error),
    /// `again`: the request can do no harm if it is sent a second time, and is still whole.
    #[error("the connection broke before an answer: {}", reason(error))]
    Died { error: io::Error, again: bool },
    #[error("its checks failed while a request waited for an answer")]
    Lost,
    #[error("no answer within the time allowed")]
    FirstByteLate,
    #[error("the answer cannot be passed on: {0}")]
    BadResponse(String),
    #[error("the answer ended before it was complete")]
    Truncated,
    #[error("the answer's body stopped coming")]
    BodyLate,
    #[error("the client went away")]
    ClientGone,
    #[error("the client stopped sending or reading")]
    ClientLate,
    #[error("the request's body is not valid: {0}")]
    BadRequest(ChunkError),
    #[error("the exchange had its answer before")]
    Over,
}

impl ForwardError {
    /// Whether the same request may be sent to another target: nothing was sent, or it may be done twice.
    pub fn elsewhere(&self) -> bool {
        match self {
            ForwardError::Connect(_)
            | ForwardError::ConnectLate
            | ForwardError::NotSent(_)
            | ForwardError::Lost => true,
            ForwardError::Died { again, .. } => *again,
            _ => false,
        }
    }

    /// Whether it speaks against the target: a few of these in a row, and it is taken out of rotation.
    pub fn is_of_target(&self) -> bool {
        match self {
            ForwardError::Connect(error) => !is_ours(error),
            ForwardError::ClientGone
            | ForwardError::ClientLate
            | ForwardError::BadRequest(_)
            | ForwardError::Over => false,
            _ => true,
        }
    }

    /// Whether the connection was there and then was not.
    pub(crate) fn is_death(&self) -> bool {
        matches!(self, ForwardError::NotSent(_) | ForwardError::Died { .. })
    }

    /// What logs and counters call it.
    pub fn cause(&self) -> Cause {
        match self {
            ForwardError::Connect(_) => Cause::ConnectFailed,
            ForwardError::ConnectLate => Cause::ConnectLate,
            ForwardError::NotSent(_) | ForwardError::Died { .. } => Cause::ServerLeft,
            ForwardError::Lost => Cause::ServerLost,
            ForwardError::FirstByteLate => Cause::FirstByteLate,
            ForwardError::BadResponse(_) => Cause::BadAnswer,
            ForwardError::Truncated => Cause::CutShort,
            ForwardError::BodyLate => Cause::BodyLate,
            ForwardError::ClientGone => Cause::ClientLeft,
            ForwardError::ClientLate => Cause::ClientLate,
            ForwardError::BadRequest(ChunkError::TooLong) => Cause::BodyTooLarge,
            ForwardError::BadRequest(_) => Cause::BadBody,
            ForwardError::Over => Cause::Internal,
        }
    }

    /// The status for the client, when no other target is left to try.
    pub fn status(&self) -> u16 {
        match self {
            ForwardError::ConnectLate
            | ForwardError::FirstByteLate
            | ForwardError::BodyLate
            | ForwardError::Lost => 504,
            ForwardError::ClientLate => 408,
            ForwardError::BadRequest(ChunkError::TooLong) => 413,
            ForwardError::BadRequest(_) | ForwardError::ClientGone => 400,
            ForwardError::Over => 500,
            _ => 502,
        }
    }
}
