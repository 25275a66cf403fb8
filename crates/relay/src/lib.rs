//! The HTTP/1.1 engine that balancer, web and app stand on.
//!
//! ```text
//! serve ── one thread per listening socket, nothing shared between them but atomics
//!   └ connection ── one task per client: waits, reads a head, calls the handler, decides whether to go on
//!       └ Handler::handle(&mut Exchange) ── the server's own idea of what to do with a request
//!           ├ Exchange::reply        an answer of our own
//!           ├ Exchange::reply_file   a file, or a range of it
//!           └ Exchange::forward      to another server, streaming both ways, tunnel after 101
//! ```
//!
//! How a server uses it:
//!
//! ```ignore
//! struct Shop { fleet: Arc<Fleet> }
//!
//! impl relay::Handler for Shop {
//!     async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
//!         let mut tried = Tried::default();
//!         loop {
//!             let Some(member) = self.fleet.next(&tried) else {
//!                 return exchange.reply(503, &[("retry-after", "1")], b"nobody there").await;
//!             };
//!             tried.add(member);
//!             match exchange.forward(self.fleet.way(member), &Edits::default()).await {
//!                 Ok(_) => return Ok(()),
//!                 Err(error) if error.elsewhere() => self.fleet.failed(member, &error),
//!                 Err(error) => return exchange.reply(error.status(), &[], b"").await,
//!             }
//!         }
//!     }
//! }
//!
//! let stop = relay::Stop::default();
//! let serving = relay::serve(listeners, settings, stop.clone(), |_thread| Shop { … })?;
//! // … when told to end:
//! stop.drain(within);
//! serving.wait();
//! ```
//!
//! `codec` is sans-IO: bytes in, meaning out; it never opens a socket and never looks at a clock. All system calls
//! on connections are in [`stream`], behind which stand epoll and io_uring.

mod access_log;
mod alarm;
mod buffer;
mod clock;
pub mod codec;
mod connection;
mod counters;
mod current;
mod exchange;
mod fleet;
mod forward;
mod histogram;
mod introduction;
mod limits;
mod meter;
mod outcome;
pub mod page;
mod pipes;
mod pool;
mod probe;
mod reason;
mod reply;
mod ring;
mod secure;
mod serve;
mod stream;
mod thread;
mod tunnel;

pub use access_log::AccessLog;
pub use alarm::Alarm;
pub use codec::request::RequestHead;
pub use codec::write::{HeadEdits, Via};
pub use current::Current;
pub use exchange::{Ended, Exchange, Handler};
pub use fleet::resolve::Resolver;
pub use fleet::{Fleet, Tried};
pub use forward::error::ForwardError;
pub use forward::way::Way;
pub use forward::{Edits, Forwarded};
pub use histogram::Times;
pub use introduction::Introduction;
pub use limits::{Io, Limits, Settings, Tuning, connections_within_descriptors, raise_descriptor_limit};
pub use meter::{Meter, Metered};
pub use outcome::Cause;
pub use probe::{ProbeError, probe};
pub use secure::{Inner, Secured};
pub use serve::{Serving, Stop, serve};
