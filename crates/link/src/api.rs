//! The agent API: one protocol between agents, and between the commands and any agent.
//!
//! Frames (see [`crate::frame`]) over TLS 1.3 in which both sides show a certificate of the site's own
//! authority; there is no unencrypted or anonymous form of it, on `up` neither. A connection begins with a
//! [`Greeting`] from each side, then carries one [`Ask`] and its [`Answer`]s; to a control server, one after another.
//! Deploys and joining become further asks, not further protocols.

mod authority;
mod door;

use serde::{Deserialize, Serialize};

pub use authority::{Authority, AuthorityError, Identity, OPERATOR};
pub use door::{ApiError, Caller, Conversation, Door, call};

use crate::control::wire::{ControlAnswer, ControlAsk};
use crate::report::{MachineReport, SiteReport};

/// Grows when a frame changes its meaning. One version apart must work; more is refused with a sentence.
pub const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Greeting {
    pub version: u32,
    pub site: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// The whole site as this agent sees it: one [`Answer::Site`].
    Status,
    /// This machine's own report, now and after every change, and again at least once a second.
    Watch,
    /// The last `lines` of the logs of this machine; with `follow` also what comes after, until the
    /// connection ends.
    Logs { server: Option<String>, lines: usize, follow: bool },
    /// For a control server, which is asked one thing after another on one connection.
    Control(ControlAsk),
    /// Operator only: ends a server at once and keeps it down.
    Kill { server: String },
    /// Operator only: lets a killed server run again.
    Start { server: String },
    /// Operator only: ends the named servers in an orderly way, answers when they have ended.
    Stop { servers: Vec<String>, within_ms: u64 },
    /// Operator only: carries out the plan in the state folder, which is of this generation or a later one.
    /// Answered when the servers have been told; the machine's report says how far each of them is.
    Reload { generation: u64 },
    /// Operator only: ends the agent itself, after its servers.
    End,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Site { generation: u64, report: SiteReport },
    Machine(MachineReport),
    Log { server: String, line: String },
    Control(ControlAnswer),
    Done,
    Refused { because: String },
}
