//! The sections of a site file. Each file owns one: which keys it may hold, what is wrong with them, and
//! what they mean in the plan.

pub(crate) mod machines;

pub(crate) mod dns;
pub(crate) mod balancer;
pub(crate) mod route;
pub(crate) mod web;
pub(crate) mod app;
pub(crate) mod database;

pub(crate) mod control;
pub(crate) mod firewall;
pub(crate) mod monitor;
pub(crate) mod tls;

// What several sections share.
pub(crate) mod access_log;
pub(crate) mod error_pages;
pub(crate) mod field;
pub(crate) mod health;
pub(crate) mod limit;
pub(crate) mod network;
pub(crate) mod patience;
pub(crate) mod pool;
pub(crate) mod target;
