//! See `fuzz/oracle/chunked.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::chunked::check(bytes));
