//! Any bytes as a request and its body: see `http::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dolmen_fuzz::http::request(bytes));
