//! The access log: lines made by workers, written by a thread of its own.
//!
//! A worker formats a line into its [`Queue`] (`line`), which hands full batches to the one writer thread (`writer`) over
//! a bounded channel and gets the spent buffers back. A core that outruns the writer loses lines, which are counted;
//! nothing on the serving side ever waits for a file, a pipe or a terminal.

mod line;
mod queue;
mod writer;

pub use line::{Record, format, rfc3339};
pub use queue::Queue;
pub(crate) use writer::write_all;
pub use writer::{LogWriter, Sink, spawn};
