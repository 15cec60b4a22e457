//! See `fuzz/oracle/head.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::head::check(bytes));
