//! See `fuzz/oracle/response_stream.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::response_stream::check(bytes));
