//! What is checked on any bytes. Each check ends in a panic when something does not hold.

pub mod http;
pub mod postgres;
