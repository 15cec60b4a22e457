//! See `fuzz/oracle/command.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::command::check(bytes));
