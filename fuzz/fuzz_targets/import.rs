//! See `fuzz/oracle/import.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::import::check(bytes));
