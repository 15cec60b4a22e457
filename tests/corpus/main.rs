//! The fuzz targets' oracles without a fuzzer: over the corpora, and over thousands of inputs made from them.

#[path = "../../fuzz/oracle/mod.rs"]
mod oracle;

mod grammar;
mod inputs;
