//! See `fuzz/oracle/cookie.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::cookie::check(bytes));
