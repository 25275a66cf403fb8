//! Any bytes as a chunked body: see `http::chunked`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dolmen_fuzz::http::chunked(bytes));
