//! From the program to the one primary: PostgreSQL, run by a manager, and the gates that lead to it.
//!
//! `database-1` is a manager: it looks, decides by a pure function ([`failover`]) and acts ([`act`]), over and
//! over, so that it may be killed at any instruction and go on from what it finds. Who is the primary stands in a
//! record that the machines agree on ([`group`]). Below the manager is a guard ([`guard`]), which ends postgres
//! when the manager cannot, and below that PostgreSQL itself, unmodified. `gate-1` ([`gate`]) is the endpoint on an application's machine through which it reaches
//! the primary or the replicas.
//!
//! The manager never deletes a data directory that was ever in use, and never guesses: where what it finds
//! contradicts the plan it says so, touches nothing, and names the remedy.

pub mod group;

pub mod failover;

mod find;

mod settings;

mod access;

mod folder;

mod act;

mod child;
mod control_data;
mod heard;
mod holder;
mod inherit;
mod leftover;
mod log_file;
mod look;
mod manager;
mod observe;
mod record;
mod rest;
mod session;
mod setup;
mod stamp;
mod timeline;
mod tool;
mod upstream;

pub mod gate;

pub mod guard;

pub use find::{NoPsql, NotFound, Postgres, Version, find_postgres, find_psql};
pub use holder::Reach;
pub use manager::{Error, run, run_with};
pub use settings::{RefusedSetting, check_settings};
