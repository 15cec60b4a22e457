//! See `fuzz/oracle/framing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::framing::check(bytes));
