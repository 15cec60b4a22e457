//! The access log: lines made by workers, written by a thread of its own.
//!
//! A worker takes the times of an exchange with [`Phases`] and formats a line (`line`, `escape`) into its [`Queue`], which
//! hands full batches to the one writer thread (`writer`) over a bounded channel and gets the spent buffers back. A core
//! that outruns the writer loses lines, which are counted; nothing on the serving side ever waits for a file, a pipe or a
//! terminal.

mod escape;
mod line;
mod phases;
mod queue;
mod writer;

pub use escape::rfc3339;
pub use line::{More, NOTHING, Record, RequestId};
pub use phases::{Phase, Phases};
pub use queue::Queue;
pub(crate) use writer::write_all;
pub use writer::{LogWriter, Sink, spawn};
