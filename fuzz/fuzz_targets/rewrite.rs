//! See `fuzz/oracle/rewrite.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::rewrite::check(bytes));
