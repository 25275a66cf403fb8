//! Several machines: how a site begins on the first one, how others join it, and what all of them agree on.
//!
//! * `agreed`: the records in control, and who may read the secrets among them.
//! * `found`: the first machine makes the authority, the secrets and the plan.
//! * `tokens`, `desk`: an agent that gives tokens and certificates.
//! * `join`: a machine that has nothing but a token.
//! * `follow`: an agent that goes by what was agreed.
//! * `publish`: a command that changes the site for all of them.
//! * `transfer`: application files on their way from one machine to another.

pub mod agreed;
pub mod desk;
pub mod follow;
pub mod found;
pub mod join;
pub mod publish;
mod tokens;
pub mod transfer;
