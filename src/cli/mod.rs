//! What the command line is, and what it tells of itself: help, completions and manual pages, all from the definitions in
//! `arguments`.

pub mod arguments;
pub mod completions;
pub mod help;
pub mod man;
