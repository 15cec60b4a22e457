//! See `fuzz/oracle/config.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::config::check(bytes));
