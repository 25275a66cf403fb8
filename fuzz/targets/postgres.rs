//! Any bytes as PostgreSQL's protocol: see `postgres::all`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dolmen_fuzz::postgres::all(bytes));
