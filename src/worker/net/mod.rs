//! The IO seam: everything a worker asks of the outside world, as two traits with three implementations: the ring, epoll
//! (both through monoio, which no other room names) and a deterministic net in memory for simulations.
//!
//! Rules that every implementation keeps and `tests/net` proves:
//! * Buffers are owned by the operation while it runs and come back with its result.
//! * No operation is ever cancelled by dropping its future; [`Net::shutdown`] on the stream's [`Handle`] ends it, and what
//!   it had received or sent until then is not lost.
//! * At most one `recv` or `readable` and one `send_all` are under way per stream.
//! * All sockets are non-blocking and close-on-exec.

pub(super) mod cache;
mod driven;
pub mod driver;
pub mod listen;
pub mod machine;
pub mod mem;
pub mod os;
mod park;
pub mod pipe;
mod turns;
pub mod unix;

use super::buffers::Buf;
use crate::event::TurnTimes;
use crate::route::Endpoint;
use pipe::Pipe;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Names a stream to [`Net::shutdown`] and the like; valid until the stream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub i32);

/// Which direction [`Net::shutdown`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Wakes a waiting `recv` or `readable`; bytes already received are still delivered, then end of stream.
    Read,
    /// Sends FIN; later sends fail. Not for a `send_all` that is under way: on epoll a blocked one on a Unix socket would
    /// not notice.
    Write,
    /// Both; every waiting operation ends, a blocked `send_all` with an error.
    Both,
}

/// Whether a connect failed for a reason that lies on this side, or in a queue that is full for the moment: it says nothing
/// about the health of whom it was to.
pub fn is_local(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    error.kind() == io::ErrorKind::WouldBlock
        || errno.is_some_and(|errno| {
            [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL, libc::EAGAIN]
                .contains(&errno)
        })
}

/// One connected byte stream.
#[allow(async_fn_in_trait)]
pub trait Stream: 'static {
    /// Waits, holding no buffer, until a `recv` would not wait: bytes, end of stream, or an error.
    async fn readable(&self) -> io::Result<()>;
    /// The same for more of what came in part: where many can go on, those who said all at once go first.
    async fn more_readable(&self) -> io::Result<()>;
    /// Receives into the spare tail of `buf` (which must have room); appends. `Ok(0)` is the end of the stream.
    async fn recv(&self, buf: Buf) -> (io::Result<usize>, Buf);
    /// The same of what is there now.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is.
    async fn recv_now(&self, buf: Buf) -> (io::Result<usize>, Buf);
    /// Says whether it took long to read what came last. Then more of it will: where many can go on, the next receive waits
    /// with those that have much to do.
    fn mark_hard(&self, hard: bool);
    /// Sends all filled bytes. The sent ones are consumed from `buf` also when it fails: a full `buf.len()` with an error
    /// means that not one byte was handed to the kernel.
    async fn send_all(&self, mut buf: Buf) -> (io::Result<()>, Buf) {
        while !buf.is_empty() {
            let sent;
            (sent, buf) = self.send(buf).await;
            match sent {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(_) => {}
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }
    /// Sends some of the filled bytes, waiting until at least one can be sent. The sent ones are consumed from `buf`.
    async fn send(&self, buf: Buf) -> (io::Result<usize>, Buf);
    /// A [`Stream::send`] that more, or the end of the stream, is about to follow: the kernel may hold the bytes back for a
    /// moment, to send them together.
    async fn send_more(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        self.send(buf).await
    }
    /// Whether its bytes are those that its peer gets and sends, so that [`Stream::fill`] and [`Stream::pour`] can move them
    /// past this process; then from how many bytes on that is worth it. `None` (as here) for a stream that transforms.
    fn splice_from(&self) -> Option<u64> {
        None
    }
    /// Moves up to `most` (at least 1) received bytes into an empty pipe, waiting until there are some. `Ok(0)` is the end of
    /// the stream. Counts as a `recv`.
    ///
    /// # Errors
    /// `WouldBlock`: nothing was moved; bytes may wait that only a `recv` can take.
    async fn fill(&self, _pipe: &mut Pipe, _most: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Sends some of what stands in the pipe (which is not empty), waiting until at least one byte can be sent. Counts as a
    /// `send`. What was not sent stays in the pipe.
    ///
    /// # Errors
    /// `WouldBlock`: the stream said that it had room, and took nothing; to be tried again later.
    async fn pour(&self, _pipe: &mut Pipe) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Its name.
    fn handle(&self) -> Handle;
    /// Closes it now. No operation may be under way.
    fn close(self);
    /// Closes it with a reset: the peer cannot take what it has for a whole. No operation may be under way.
    fn reset(self);
}

/// A connection as accepted.
pub struct Accepted<S> {
    /// The stream.
    pub stream: S,
    /// Address of the peer; `None` on Unix listeners.
    pub peer: Option<SocketAddr>,
}

/// What a worker asks of the outside world.
#[allow(async_fn_in_trait)]
pub trait Net: Clone + 'static {
    /// Its streams.
    type Stream: Stream;
    /// Its listeners.
    type Listener: 'static;
    /// What a parked stream is kept as; dropping it closes the stream.
    type Parked: 'static;

    /// Takes a bound and listening socket from control.
    fn adopt(&self, fd: OwnedFd) -> io::Result<Self::Listener>;
    /// Waits for connections and takes up to `limits::ACCEPT_BATCH` of them. Returns at once with an error if the listener
    /// was shut down (`ErrorKind::NotConnected` or `InvalidInput`) or if descriptors ran out (EMFILE, ENFILE: then what
    /// was accepted before stands in `out`).
    async fn accept(&self, listener: &Self::Listener, out: &mut Vec<Accepted<Self::Stream>>) -> io::Result<()>;
    /// Makes accept end with an error once the queue of completed handshakes is empty, then closes.
    fn close_listener(&self, listener: &Self::Listener);
    /// Connects. `started` gets the handle before any waiting, so that a deadline can shut it down.
    async fn connect(&self, to: &Endpoint, started: impl FnOnce(Handle)) -> io::Result<Self::Stream>;
    /// Ends operations on a stream, see [`How`]. Unknown to the kernel or already shut down: no effect.
    fn shutdown(&self, handle: Handle, how: How);
    /// Whether no answer can reach the peer any more (POLLHUP or POLLERR); with `fin`, also whether it has sent FIN.
    fn gone(&self, handle: Handle, fin: bool) -> bool;
    /// Whether an idle stream has neither bytes nor end nor error waiting: proof that it was alive a moment ago.
    fn quiet(&self, handle: Handle) -> bool;
    /// The number of connections of a core from which on its idle ones are to be parked.
    fn park_from(&self) -> usize;
    /// Parks an idle stream, on which no operation is under way: it costs neither a task nor an operation until
    /// [`Net::stirred`] tells its key, once, because a `recv` would not wait. One that cannot be parked comes back.
    fn park(&self, stream: Self::Stream, key: u64) -> Result<Self::Parked, Self::Stream>;
    /// Waits until parked streams have stirred and appends their keys. One that has been closed meanwhile may be among them.
    async fn stirred(&self, keys: &mut Vec<u64>);
    /// Makes a parked stream a stream again; it need not have stirred.
    ///
    /// # Errors
    /// The driver cannot take it; it is closed then.
    fn unpark(&self, parked: Self::Parked) -> io::Result<Self::Stream>;
    /// Takes an idle stream, on which no operation is under way, from this core, to be given to another one. One that cannot
    /// leave, as none can of a net that has one core only, comes back.
    fn detach(&self, stream: Self::Stream) -> Result<OwnedFd, Self::Stream> {
        Err(stream)
    }
    /// Takes over what another core has detached.
    ///
    /// # Errors
    /// The driver cannot take it; it is closed then.
    fn attach(&self, _fd: OwnedFd) -> io::Result<Self::Stream> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Bytes that a stream's peer has sent and acknowledged, if the kernel counts them; a system call.
    fn carried(&self, _handle: Handle) -> Option<[u64; 2]> {
        None
    }
    /// A new pipe for [`Stream::fill`] and [`Stream::pour`], if one can be had.
    fn pipe(&self) -> io::Result<Pipe>;
    /// Runs a task on this core.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
    /// Waits until the event loop has looked for completed operations again: between the parts of a long piece of work.
    async fn next_turn(&self);
    /// How long the turns of the event loop were so far; a net without one has none.
    fn turns(&self) -> TurnTimes {
        TurnTimes::default()
    }
    /// Waits for the next tick of this core's own clock (`limits::TICK_MS`); returns how many ticks have passed since the
    /// core began. Not late after a stall: the count is of time, not of calls.
    async fn tick(&self) -> u32;
    /// Waits until another thread has rung this core's doorbell since the last call.
    async fn rung(&self);
    /// Microseconds since some fixed point; a clock call. Monotonic.
    fn now_us(&self) -> u64;
    /// Microseconds that this core's thread has had a CPU; a system call.
    fn cpu_us(&self) -> u64;
    /// Microseconds that this core's thread has waited for a CPU while it could run, as far as the system tells; a system
    /// call.
    fn waited_us(&self) -> u64 {
        0
    }
    /// Wall clock, seconds since 1970.
    fn unix_seconds(&self) -> u64;
    /// A seed for this core's random choices.
    fn seed(&self) -> u64;
}
