//! Commands that have files and sockets of their own, and no running proxy.

pub mod hipache;
mod redis;
