//! One core: its event loop, its connections, its pools. Everything here is `!Send` and shared by `Rc` and `Cell`.

pub mod buffers;
pub mod net;
pub mod start;

pub use start::Start;
