//! What the command line is, and what it tells of itself: help, completions and manual pages, all from the definitions in
//! `arguments`; and `import hipache`, which has files and sockets of its own.

pub mod arguments;
pub mod completions;
pub mod help;
pub mod hipache;
pub mod man;
mod redis;
