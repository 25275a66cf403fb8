//! What a command that did not succeed says, and the exit code that goes with it.

use std::fmt::Display;
use std::process::ExitCode;

/// The message says what happened, to what, and what to do next (`hint: …` on a line of its own).
#[derive(Debug)]
pub enum Failure {
    /// The user's mistake: exit code 2.
    Mistake(String),
    /// Mistakes in the site file, drawn already: exit code 2.
    Mistakes(String),
    /// It could not be done: exit code 1.
    Failed(String),
    /// Everything was said already; the exit code.
    Said(i32),
}

impl Failure {
    pub fn mistake(message: impl Display) -> Self {
        Self::Mistake(message.to_string())
    }

    pub fn failed(message: impl Display) -> Self {
        Self::Failed(message.to_string())
    }

    /// Says it on standard error; the one place where errors become exit codes.
    pub fn report(&self) -> ExitCode {
        match self {
            Failure::Mistake(message) => {
                crate::out::error(message);
                ExitCode::from(2)
            }
            Failure::Mistakes(drawn) => {
                crate::out::drawn(drawn);
                ExitCode::from(2)
            }
            Failure::Failed(message) => {
                crate::out::error(message);
                ExitCode::from(1)
            }
            Failure::Said(code) => ExitCode::from(u8::try_from(*code).unwrap_or(1)),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

impl From<crate::site::StateError> for Failure {
    fn from(error: crate::site::StateError) -> Self {
        Self::failed(error)
    }
}

impl From<crate::site::OpenError> for Failure {
    fn from(error: crate::site::OpenError) -> Self {
        Self::failed(error)
    }
}

impl From<link::api::AuthorityError> for Failure {
    fn from(error: link::api::AuthorityError) -> Self {
        Self::failed(error)
    }
}

impl From<link::api::ApiError> for Failure {
    fn from(error: link::api::ApiError) -> Self {
        Self::failed(error)
    }
}
