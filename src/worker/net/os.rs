//! The real net, on the ring and on epoll alike: monoio moves the bytes, libc does what monoio does not or does badly
//! (accept in batches and close-on-exec, connect with a handle from the first instant, close without a submission).

use super::driven::Driven;
use super::listen;
use super::park::{self, Known};
use super::pipe::Pipe;
use super::turns::{self, Weight};
use super::{Accepted, Handle, How, Net, Stream};
use crate::event::TurnTimes;
use crate::limits;
use crate::route::Endpoint;
use crate::worker::buffers::Buf;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

/// A TCP or Unix stream.
pub struct OsStream(Driven);

impl OsStream {
    fn new(fd: OwnedFd) -> io::Result<OsStream> {
        Ok(OsStream(Driven::new(fd)?))
    }
}

impl Stream for OsStream {
    async fn readable(&self) -> io::Result<()> {
        let result = self.0.readable().await;
        turns::room(Weight::Light).await;
        result
    }

    async fn more_readable(&self) -> io::Result<()> {
        let result = self.0.readable().await;
        turns::room(Weight::Slow).await;
        result
    }

    // These pass the inner future on: each layer of futures would copy what it passes down and up.
    fn recv(&self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Buf)> {
        assert!(buf.spare() > 0, "a receive into nothing would look like the end of the stream");
        self.0.recv(buf)
    }

    fn recv_now(&self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Buf)> {
        assert!(buf.spare() > 0, "a receive into nothing would look like the end of the stream");
        self.0.recv_now(buf)
    }

    fn mark_hard(&self, hard: bool) {
        self.0.mark_hard(hard);
    }

    fn send(&self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Buf)> {
        self.0.send(buf)
    }

    fn send_more(&self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Buf)> {
        self.0.send_more(buf)
    }

    fn splice_from(&self) -> Option<u64> {
        Some(limits::SPLICE_FROM)
    }

    async fn fill(&self, pipe: &mut Pipe, most: u64) -> io::Result<usize> {
        self.0.fill(pipe, most.min(limits::PIPE_FILL_MAX) as usize).await
    }

    async fn pour(&self, pipe: &mut Pipe) -> io::Result<usize> {
        self.0.pour(pipe).await
    }

    fn handle(&self) -> Handle {
        Handle(self.0.fd())
    }

    fn close(self) {
        drop(self);
    }

    fn reset(self) {
        // Where the option cannot be set the plain close has to do.
        let _ = SockRef::from(&self.0).set_linger(Some(std::time::Duration::ZERO));
    }
}

/// A listening socket, TCP or Unix.
pub struct OsListener {
    io: Driven,
    closing: Cell<bool>,
}

/// A core's doorbell: any thread rings it, the core hears it in [`Net::rung`]. Rings between two looks count as one.
#[derive(Clone, Debug)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    /// A new bell, an eventfd.
    pub fn new() -> io::Result<Bell> {
        // SAFETY: a plain call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        Ok(Bell(Arc::new(owned(fd)?)))
    }

    /// Rings. Never waits: a bell that cannot be rung any louder is already ringing.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. The one possible error, EAGAIN, means that the counter is full.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// The net of one core; lives on the thread of its runtime (see [`super::driver::run`]).
#[derive(Clone)]
pub struct Os(Rc<Core>);

struct Core {
    timer: Driven,
    bell: Driven,
    lot: Driven,
    began_us: u64,
    /// What the kernel tells of the core's thread.
    waits: Option<File>,
}

impl Os {
    /// Starts the core's clock; the runtime must be running.
    pub(super) fn new(bell: &Bell) -> io::Result<Os> {
        let (timer, began_us) = second_timer()?;
        let (timer, bell) = (Driven::new(timer)?, Driven::new(bell.0.try_clone()?)?);
        let waits = File::open("/proc/thread-self/schedstat").ok();
        let core = Core { timer, bell, lot: Driven::new(park::lot()?)?, began_us, waits };
        Ok(Os(Rc::new(core)))
    }

    /// Takes a bound and listening socket; makes it non-blocking.
    pub fn listener(&self, fd: OwnedFd) -> io::Result<OsListener> {
        SockRef::from(&fd).set_nonblocking(true)?;
        Ok(OsListener { io: Driven::new(fd)?, closing: Cell::new(false) })
    }

    /// Takes a connected socket; makes it non-blocking.
    pub fn stream(&self, fd: OwnedFd) -> io::Result<OsStream> {
        SockRef::from(&fd).set_nonblocking(true)?;
        OsStream::new(fd)
    }

    async fn connect_ip(&self, to: SocketAddr, started: impl FnOnce(Handle)) -> io::Result<OsStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
        socket.set_nodelay(true)?;
        listen::keep_little_unsent(&socket);
        started(Handle(socket.as_raw_fd()));
        let begun = socket.connect(&to.into());
        // Given to the driver only now: an unconnected socket is born with POLLHUP, which epoll would remember.
        let io = Driven::new(socket.into())?;
        match begun {
            Ok(()) => return Ok(OsStream(io)),
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(e) => return Err(e),
        }
        io.writable().await?;
        let socket = SockRef::from(&io);
        match socket.take_error()? {
            Some(e) => Err(e),
            None if to.ip().is_loopback() && reached_itself(&socket) => Err(io::ErrorKind::ConnectionRefused.into()),
            None => Ok(OsStream(io)),
        }
    }

    fn connect_unix(&self, to: &std::path::Path, started: impl FnOnce(Handle)) -> io::Result<OsStream> {
        let address = SockAddr::unix(to)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        started(Handle(socket.as_raw_fd()));
        // A Unix connect is done at once or not at all: with a full queue there is EAGAIN, and no event ever follows.
        socket.connect(&address).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => {
                let why = format!("{}: the queue of connections is full", to.display());
                io::Error::new(io::ErrorKind::WouldBlock, why)
            }
            _ => e,
        })?;
        OsStream::new(socket.into())
    }
}

impl Net for Os {
    type Stream = OsStream;
    type Listener = OsListener;
    type Parked = OwnedFd;

    fn adopt(&self, fd: OwnedFd) -> io::Result<OsListener> {
        self.listener(fd)
    }

    async fn accept(&self, listener: &OsListener, out: &mut Vec<Accepted<OsStream>>) -> io::Result<()> {
        let before = out.len();
        loop {
            // A listener on its way out is only emptied: its wake-up came already.
            if !listener.closing.get() {
                listener.io.readable().await?;
            }
            for _ in 0..limits::ACCEPT_BATCH {
                match accept_one(listener.io.fd()) {
                    Ok((fd, peer)) => {
                        // Nothing to wait for: a batch of them ends this listener's part of the turn.
                        turns::spend(0);
                        out.push(Accepted { stream: OsStream::new(fd)?, peer });
                    }
                    Err(e) => match e.raw_os_error() {
                        Some(libc::EAGAIN) => break,
                        // Of this one connection, not of the listener: accept(2), "Error handling".
                        Some(
                            libc::EINTR
                            | libc::ECONNABORTED
                            | libc::EPROTO
                            | libc::ENETDOWN
                            | libc::ENETUNREACH
                            | libc::EHOSTDOWN
                            | libc::EHOSTUNREACH
                            | libc::ENONET
                            | libc::ENOPROTOOPT
                            | libc::EOPNOTSUPP,
                        ) => {}
                        _ if out.len() > before && e.kind() == io::ErrorKind::InvalidInput => break,
                        _ => return Err(e),
                    },
                }
            }
            if out.len() > before {
                return Ok(());
            }
            if listener.closing.get() {
                shut(listener.io.fd(), libc::SHUT_RDWR);
                return Err(io::ErrorKind::NotConnected.into());
            }
        }
    }

    fn close_listener(&self, listener: &OsListener) {
        listener.closing.set(true);
        // shutdown(2) would reset what is queued. If something is, accept is about to wake by itself.
        if poll(listener.io.fd(), libc::POLLIN) == 0 {
            shut(listener.io.fd(), libc::SHUT_RDWR);
        }
    }

    async fn connect(&self, to: &Endpoint, started: impl FnOnce(Handle)) -> io::Result<OsStream> {
        match to {
            Endpoint::Ip(address) => self.connect_ip(*address, started).await,
            Endpoint::Unix(path) => self.connect_unix(path, started),
        }
    }

    fn shutdown(&self, handle: Handle, how: How) {
        let how = match how {
            How::Read => libc::SHUT_RD,
            How::Write => libc::SHUT_WR,
            How::Both => libc::SHUT_RDWR,
        };
        shut(handle.0, how);
    }

    fn gone(&self, handle: Handle, fin: bool) -> bool {
        let fin = if fin { libc::POLLRDHUP } else { 0 };
        poll(handle.0, fin) != 0
    }

    fn quiet(&self, handle: Handle) -> bool {
        poll(handle.0, libc::POLLIN | libc::POLLRDHUP) == 0
    }

    fn park_from(&self) -> usize {
        limits::PARK_FROM
    }

    fn park(&self, stream: OsStream, key: u64) -> Result<OwnedFd, OsStream> {
        // An operation that was dropped half-way still has the descriptor.
        if stream.0.under_way.get() > 0 || park::watch(&self.0.lot, &stream.0, stream.0.known, key).is_err() {
            return Err(stream);
        }
        Ok(stream.0.into_fd())
    }

    async fn stirred(&self, keys: &mut Vec<u64>) {
        // Those that were told before go first, with what they have received since.
        turns::room(Weight::Light).await;
        while !park::stirred(&self.0.lot, keys) {
            // An epoll descriptor has no error to tell.
            let _ = self.0.lot.readable().await;
        }
        for _ in &*keys {
            turns::spend(0);
        }
    }

    fn unpark(&self, parked: OwnedFd) -> io::Result<OsStream> {
        let mut driven = Driven::new(parked)?;
        driven.known = Known::Yes;
        Ok(OsStream(driven))
    }

    fn detach(&self, stream: OsStream) -> Result<OwnedFd, OsStream> {
        // An operation that was dropped half-way still has the descriptor.
        if stream.0.under_way.get() > 0 {
            return Err(stream);
        }
        if stream.0.known == Known::Yes {
            park::forget(&self.0.lot, &stream.0);
        }
        Ok(stream.0.into_fd())
    }

    fn attach(&self, fd: OwnedFd) -> io::Result<OsStream> {
        OsStream::new(fd)
    }

    fn carried(&self, handle: Handle) -> Option<[u64; 2]> {
        carried(handle.0)
    }

    fn pipe(&self) -> io::Result<Pipe> {
        Pipe::in_kernel()
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(task));
    }

    async fn next_turn(&self) {
        turns::chore().await;
    }

    fn turns(&self) -> TurnTimes {
        turns::times()
    }

    async fn tick(&self) -> u32 {
        count(&self.0.timer).await;
        ((clock_us() - self.0.began_us) / (limits::TICK_MS * 1000)) as u32
    }

    async fn rung(&self) {
        count(&self.0.bell).await;
    }

    fn now_us(&self) -> u64 {
        clock_us()
    }

    fn cpu_us(&self) -> u64 {
        cpu_us()
    }

    fn waited_us(&self) -> u64 {
        // Nanoseconds on a CPU, nanoseconds of waiting for one, and how often; all 0 in a kernel that does not count.
        let mut text = [0u8; 96];
        let n = self.0.waits.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let waited = std::str::from_utf8(&text[..n]).unwrap_or("").split_ascii_whitespace().nth(1);
        waited.and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0) / 1000
    }

    fn unix_seconds(&self) -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_secs())
    }

    fn seed(&self) -> u64 {
        let mut seed = [0u8; 8];
        // SAFETY: eight writable bytes. Eight bytes are never interrupted, and where the call is forbidden the clock has
        // to do: nothing secret depends on it.
        let n = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), libc::GRND_NONBLOCK) };
        if n == 8 { u64::from_ne_bytes(seed) } else { clock_us().wrapping_mul(0x9E37_79B9_7F4A_7C15) }
    }
}

/// A descriptor from a call that returns -1 on failure.
pub(super) fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a connection ends where it began. A connect to a dead local backend whose port is in the range of outgoing
/// ports is, once in some ten thousand times, given that very port: TCP then connects the socket to itself, and requests
/// would come back as answers.
fn reached_itself(socket: &Socket) -> bool {
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(here), Ok(there)) => here == there,
        _ => false,
    }
}

fn accept_one(listener: RawFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: storage and length come from socket2, and the kernel fills them as accept4(2) says.
    let accepted =
        unsafe { SockAddr::try_init(|storage, len| owned(libc::accept4(listener, storage.cast(), len, flags))) };
    accepted.map(|(fd, address)| (fd, address.as_socket()))
}

fn shut(fd: RawFd, how: libc::c_int) {
    // SAFETY: a plain call. An unconnected or already shut down socket is no matter.
    unsafe { libc::shutdown(fd, how) };
}

/// What of `events` (and POLLHUP, POLLERR) is true now; 0 also if the kernel refuses to say.
fn poll(fd: RawFd, events: libc::c_short) -> libc::c_short {
    let mut one = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one valid pollfd.
    let n = unsafe { libc::poll(&mut one, 1, 0) };
    if n == 1 { one.revents } else { 0 }
}

/// What TCP has counted of a connection: bytes received, and bytes sent that were acknowledged.
fn carried(fd: RawFd) -> Option<[u64; 2]> {
    // Where the two stand in struct tcp_info: linux/tcp.h, since Linux 4.1.
    const ACKED: usize = 120;
    const RECEIVED: usize = 128;
    let mut info = [0u8; 256];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: as many writable bytes as the call is told, of which it says how many it has written.
    let done = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len) };
    let count = |at: usize| info[at..at + 8].try_into().map(u64::from_ne_bytes).ok();
    if done != 0 || (len as usize) < RECEIVED + 8 {
        return None;
    }
    Some([count(RECEIVED)?, count(ACKED)?])
}

/// Waits until the counter of an eventfd or timerfd is not 0, and takes it.
async fn count(counter: &Driven) {
    loop {
        // An error here can only be a passing want of memory in the kernel; the read below tells.
        let _ = counter.readable().await;
        // Whoever stands in line can rely on the clock, too, to end a turn.
        turns::spend(0);
        let mut taken = [0u8; 8];
        // SAFETY: eight writable bytes.
        if unsafe { libc::read(counter.fd(), taken.as_mut_ptr().cast(), taken.len()) } == 8 {
            return;
        }
    }
}

/// Microseconds of the monotonic clock, the same in all threads.
pub fn clock_us() -> u64 {
    micros(libc::CLOCK_MONOTONIC)
}

/// Microseconds that this thread has had a CPU. A system call, where the clock of time is none.
pub(super) fn cpu_us() -> u64 {
    micros(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// What one of the clocks that always exist says.
fn micros(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// A timer that fires each `limits::TICK_MS` from now on, and the microsecond at which it began. Absolute times, so that
/// the k-th expiry never comes before k ticks by the same clock.
fn second_timer() -> io::Result<(OwnedFd, u64)> {
    // SAFETY: a plain call.
    let fd = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) })?;
    let began_us = clock_us();
    let every_us = limits::TICK_MS * 1000;
    let spec = |us: u64| libc::timespec { tv_sec: (us / 1_000_000) as _, tv_nsec: (us % 1_000_000 * 1000) as _ };
    let timer = libc::itimerspec { it_interval: spec(every_us), it_value: spec(began_us + every_us) };
    // SAFETY: a valid itimerspec; no old value is asked for.
    let set = unsafe { libc::timerfd_settime(fd.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &timer, std::ptr::null_mut()) };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((fd, began_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_itself_is_seen() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&any.into()).unwrap();
        assert!(!reached_itself(&socket));
        socket.connect(&socket.local_addr().unwrap()).unwrap();
        assert!(reached_itself(&socket));
        let listener = std::net::TcpListener::bind(any).unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!reached_itself(&SockRef::from(&stream)));
    }

    #[test]
    fn a_bell_never_waits() {
        let bell = Bell::new().unwrap();
        // The counter is one short of full.
        let most = (u64::MAX - 1).to_ne_bytes();
        // SAFETY: eight readable bytes.
        assert_eq!(unsafe { libc::write(bell.0.as_raw_fd(), most.as_ptr().cast(), 8) }, 8);
        bell.ring();
        assert_ne!(poll(bell.0.as_raw_fd(), libc::POLLIN), 0);
        fn is_shared<T: Send + Sync + Clone>(_: &T) {}
        is_shared(&bell);
    }
}
