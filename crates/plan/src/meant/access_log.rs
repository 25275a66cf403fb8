//! What `access-log` means: a line for each request, in which words, and where.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The log of a server's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    pub format: LogFormat,
    /// None: `access.log` in the server's own folder.
    pub path: Option<PathBuf>,
    /// The size at which a file is put aside.
    pub file_bytes: u64,
    /// Files that are kept, with the current one.
    pub files: u32,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: LogFormat::Combined, path: None, file_bytes: 64 << 20, files: 5 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// As Apache and nginx write it.
    Combined,
    /// One object for each line, with all that is known.
    Json,
    /// With times and the cause of the end, in the order of HAProxy's httplog.
    Timers,
}

impl LogFormat {
    pub const ALL: [(&'static str, LogFormat); 3] =
        [("combined", LogFormat::Combined), ("json", LogFormat::Json), ("timers", LogFormat::Timers)];
}
