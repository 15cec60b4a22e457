//! The access log: lines made by workers, written by a thread of its own.
