//! The rules of the house as a test: who may name whom, what a pure room may not contain, how large a file may grow.
//!
//! Files are read as text. Comments, string contents and `#[cfg(test)]` items are blanked first, so that a rule speaks of
//! product code alone.

mod budget;
mod conformance;
mod layers;
mod mutants;
mod names;
mod reasons;
mod rules;
mod source;
