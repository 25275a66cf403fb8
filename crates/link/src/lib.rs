//! How the parts talk: an agent with the servers it started, and agents with each other.
//!
//! * [`Start`] is what a server is given when it begins: the plan, its sockets, its folder, its secrets, and
//!   the [`Line`] by which it reports and takes orders. Servers use nothing else of this crate.
//! * [`agent_end`] is the other end of that line. The socket is a Unix stream with descriptors beside the frames.
//! * [`api`] is the agent API: frames over mutual TLS, used by agents among themselves and by the commands.
//! * [`control`] is how servers reach what the machines agreed on.
//! * [`program`] is which build of dolmen a process runs, and which one lies on disk.
//! * [`board`] is the one thing that servers share without a message: the ready workers of an app server.
//!
//! No traffic of a client ever passes through here, and no server waits for its agent.

pub mod agent_end;
pub mod api;
pub mod board;
pub mod control;
pub mod disk;
pub mod frame;
mod line;
pub mod log;
pub mod program;
pub mod report;
mod secrets;
pub mod short_path;
mod start;

pub use line::{Given, Line, Order, Plans, Taken};
pub use secrets::{Secret, Secrets};
pub use start::{Sockets, Start, StartError};
