//! The app server with real workers, each test with its own site on addresses of 127.0.42.0/24.
#![allow(clippy::unwrap_used)] // these are all tests; clippy sees that only in test functions

#[path = "all/end.rs"]
mod end;
#[path = "all/replace.rs"]
mod replace;
#[path = "all/serve.rs"]
mod serve;
#[path = "all/site.rs"]
mod site;
#[path = "all/trouble.rs"]
mod trouble;
