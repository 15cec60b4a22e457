//! What the command line is, before anything is done.

pub mod arguments;
