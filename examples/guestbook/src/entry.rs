//! An entry, and what may become one.
//!
//! The one place that knows the limits of a name and a message; the form, the API and the database's own
//! checks follow it.

use serde::{Deserialize, Serialize};

pub(crate) const NAME_LIMIT: usize = 60;
pub(crate) const MESSAGE_LIMIT: usize = 1000;

/// One row of the guestbook, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Entry {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) message: String,
    /// RFC 3339, in UTC.
    pub(crate) at: String,
    /// The same moment, for people.
    #[serde(skip)]
    pub(crate) day: String,
}

/// What somebody wants to write, not yet checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DraftError {
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("{what} has {count} characters; at most {limit} fit")]
    TooLong { what: &'static str, count: usize, limit: usize },
    #[error("{0} has a control character in it")]
    Control(&'static str),
}

impl Draft {
    /// Trims both texts, gives lines one kind of end, and refuses what does not fit.
    pub(crate) fn checked(&self) -> Result<Self, DraftError> {
        let name = self.name.trim().to_owned();
        let message = self.message.replace("\r\n", "\n").trim().to_owned();
        fits("the name", &name, NAME_LIMIT)?;
        fits("the message", &message, MESSAGE_LIMIT)?;
        plain("the name", &name, |_| false)?;
        plain("the message", &message, |character| matches!(character, '\n' | '\t'))?;
        Ok(Self { name, message })
    }
}

fn fits(what: &'static str, text: &str, limit: usize) -> Result<(), DraftError> {
    match text.chars().count() {
        0 => Err(DraftError::Empty(what)),
        count if count > limit => Err(DraftError::TooLong { what, count, limit }),
        _ => Ok(()),
    }
}

fn plain(what: &'static str, text: &str, allowed: fn(char) -> bool) -> Result<(), DraftError> {
    let odd = text.chars().any(|character| character.is_control() && !allowed(character));
    if odd { Err(DraftError::Control(what)) } else { Ok(()) }
}
