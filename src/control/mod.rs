//! The control thread: one poll loop, no async.
