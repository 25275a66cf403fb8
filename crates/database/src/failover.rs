//! From what one database server knows to what it does next: the state machine of failover.
//!
//! [`decide`] is a pure function from everything [`Seen`] to an [`Action`], with the sentence that says why. It
//! reads the record of the group ([`crate::group`]) as this process last heard of it; what it wants of the record
//! is itself an action, [`Action::Propose`], which the record's own rules accept or refuse. Around it a loop
//! looks, decides, says and acts, over and over; beside it one thread renews the lease ([`lease`]).
//!
//! Two fences keep two primaries apart. The first needs no clock: a replica that votes has *sealed* itself
//! before (no WAL receiver), so an old primary, whatever it does, gets no more acknowledgements. The second is
//! the lease: a primary that cannot renew is dead before anyone else may be promoted.
//!
//! PostgreSQL is always started as a sealed standby, even on the last primary, and becomes primary by promotion
//! alone: so every epoch has a timeline of its own, and one way in is enough to be right.
//!
//! Never here: a clock, a disk, a socket, a thing remembered from one decision to the next.

mod action;
mod decide;
mod electing;
pub mod lease;
mod names;
mod primary;
mod refuse;
mod rejoin;
mod replica;
mod seen;
mod standing;
pub mod synchrony;
mod view;
mod words;

pub use action::{Action, Decision};
pub use decide::decide;
pub use electing::{TURN_PATIENCE, VOTE_PATIENCE};
pub use names::Names;
pub use primary::REOPEN_PATIENCE;
pub use rejoin::{Rejoin, rejoin};
pub use replica::FOLLOW_LIMIT;
pub use seen::{
    Answer, AsPrimary, AsReplica, Data, HeldLease, Orders, Postgres, Progress, Record, Replica, Seen, Stamp,
    Trouble, Upstream,
};
pub use standing::{Standing, TABLE};
pub use words::{LOW_DISK_BYTES, bytes};
