//! Any bytes as the PROXY protocol: see `http::proxy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dolmen_fuzz::http::proxy(bytes));
