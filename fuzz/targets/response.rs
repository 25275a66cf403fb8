//! Any bytes as an answer: see `http::response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dolmen_fuzz::http::response(bytes));
