//! See `fuzz/oracle/request_stream.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::request_stream::check(bytes));
