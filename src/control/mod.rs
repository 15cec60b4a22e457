//! The control thread: one poll loop, no async.

pub mod probe;
pub mod say;
pub mod signals;
