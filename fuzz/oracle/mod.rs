//! What must be true of any input, one oracle per fuzz target of the same name. libFuzzer runs them on what it finds
//! (fuzz/fuzz_targets), `cargo test --test corpus` on the corpora and on generated inputs.

pub mod chunked;
pub mod command;
pub mod config;
pub mod cookie;
pub mod framing;
pub mod grammar;
pub mod head;
pub mod import;
mod pieces;
pub mod policy;
pub mod request_stream;
pub mod response_stream;
pub mod rewrite;
mod stream;
mod wire;
