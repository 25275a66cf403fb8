//! From the program to the one primary: PostgreSQL, run by a manager, and the gates that lead to it.
//!
//! `database-1` is a manager: it sees ([`seen`]), decides by a pure function ([`decide`]) and acts ([`act`]),
//! over and over, so that it may be killed at any instruction and go on from what it finds. PostgreSQL itself
//! is unmodified. `gate-1` ([`gate`]) is the endpoint on an application's machine through which it reaches
//! the primary or the replicas.
//!
//! The manager never deletes a data directory that was ever in use, and never guesses: where what it finds
//! contradicts the plan it says so, touches nothing, and names the remedy.

pub mod group;

pub mod failover;

mod find;

mod seen;

mod decide;

mod synchrony;

mod settings;

mod access;

mod folder;

mod act;

mod child;
mod control_data;
mod leftover;
mod log_file;
mod manager;
mod observe;
mod rest;
mod session;
mod setup;
mod tool;
mod upstream;

pub mod gate;

pub mod guard;

pub use find::{NotFound, Postgres, Version, find_postgres};
pub use manager::{Error, run};
pub use settings::{RefusedSetting, check_settings};
