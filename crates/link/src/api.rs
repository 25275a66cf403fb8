//! The agent API: one protocol between agents, and between the commands and any agent.
//!
//! Frames (see [`crate::frame`]) over TLS 1.3 in which both sides show a certificate of the site's own
//! authority; there is no unencrypted or anonymous form of it, on `up` neither. A connection begins with a
//! [`Greeting`] from each side, then carries one [`Ask`] and its [`Answer`]s; to a control server, one after another.
//! Joining is one of the asks, and not a protocol of its own: see [`Token`].

mod authority;
mod delegate;
mod door;
mod fingerprint;
mod guests;
mod joining;
mod sealed;
mod shown;
mod token;
mod validity;
mod vouched;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use authority::{Authority, AuthorityError, Identity, OPERATOR, name_in, put, request, requested_key};
pub use delegate::Delegate;
pub use door::{ApiError, Caller, Conversation, Door, call, call_as_guest};
pub use fingerprint::Fingerprint;
pub use guests::Guests;
pub use joining::{Entry, EntryKind, Join, Joined};
pub use rustls::pki_types::CertificateDer;
pub use sealed::{SealError, Sealed, SealingKey};
pub use token::{Token, TokenError};
pub use validity::{Due, Validity};
pub use vouched::VouchError;

use crate::control::wire::{ControlAnswer, ControlAsk};
use crate::program::Build;
use crate::report::{MachineReport, SiteReport};

/// Grows when a frame changes its meaning. One version apart must work; more is refused with a sentence.
pub const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Greeting {
    pub version: u32,
    pub site: String,
    /// The time of its clock, in seconds since 1970; earlier versions do not say it.
    #[serde(default)]
    pub clock_s: Option<u64>,
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
    /// Operator only: a token by which this machine of the plan may join, within so many minutes.
    Token { machine: String, minutes: u32 },
    /// Guests only, who have a token and no certificate yet.
    Join(Box<Join>),
    /// Machines only: a new certificate for the key and the name of the one that was shown. The clock tells whether the
    /// two machines agree on the time.
    Renew { clock_s: u64 },
    /// The application files of this digest: [`Answer::Entry`] and [`Answer::Part`] in turn, then [`Answer::Done`].
    Release { digest: String },
    /// Operator only: which program this machine runs and which one lies on its disk, tried out: one
    /// [`Answer::Program`]. Changes nothing.
    Program,
    /// Operator only: the agent becomes the program on disk, if that is the build of this name, in its very process;
    /// its servers go on. A connection that ends without an answer says that it does so.
    Become { id: String },
    /// Operator only: replaces the process of one server by one of the agent's own build. Answered when the new one
    /// serves; the old one finishes what it began, at most within this time.
    Succeed { server: String, drain_ms: u64 },
}

/// Which program a machine runs, and which one lies on its disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgramReport {
    pub path: PathBuf,
    /// The build that the agent runs, and with which it starts servers.
    pub running: Build,
    /// The build on disk, if it can take over from the one that runs; else why not.
    pub on_disk: Result<Build, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Site {
        generation: u64,
        report: SiteReport,
    },
    Machine(MachineReport),
    Log {
        server: String,
        line: String,
    },
    Control(ControlAnswer),
    Token(String),
    Joined(Box<Joined>),
    /// A certificate, as PEM.
    Renewed(String),
    Entry(Entry),
    /// The next bytes of the file that was announced last, as base64.
    Part(String),
    Program(Box<ProgramReport>),
    Done,
    Refused {
        because: String,
    },
}
