//! Several machines, each a network namespace of a bed: a site begins on the first, others join by a token, all of
//! them agree, and any one of them may be lost.
//!
//! `make drill` loses every machine in every way, and parts them in every way (DOLMEN_DRILL_ROUNDS).
#![allow(clippy::unwrap_used)] // what a test lacks may end it

#[path = "machines/certificates.rs"]
mod certificates;
#[path = "machines/changing.rs"]
mod changing;
#[path = "machines/guestbook.rs"]
mod guestbook;
#[path = "machines/hostile.rs"]
mod hostile;
#[path = "machines/joining.rs"]
mod joining;
#[path = "machines/losing.rs"]
mod losing;
#[path = "machines/package.rs"]
mod package;
#[path = "machines/partitions.rs"]
mod partitions;
#[path = "machines/secrets.rs"]
mod secrets;
#[path = "machines/stage.rs"]
mod stage;
#[path = "machines/upgrade.rs"]
mod upgrade;
