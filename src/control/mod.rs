//! The control thread: one poll loop, no async.

pub mod lock;
pub mod probe;
pub mod resolve;
pub mod say;
pub mod signals;
pub mod socket;
