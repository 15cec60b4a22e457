//! A descriptor of a core's driver, and the operations on it: the ring's or epoll's by way of monoio, and plain calls where
//! those keep a turn of the event loop short.
//!
//! Every descriptor, TCP, Unix, eventfd or timerfd, is driven through monoio's `UnixStream`: it wraps any descriptor, and
//! its operations never look at the family. So one type serves both families, and both drivers.

use super::park::Known;
use super::pipe::Pipe;
use super::turns::{self, Weight};
use crate::limits;
use crate::worker::buffers::{Buf, Class};
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::UnixStream;
use std::cell::{Cell, UnsafeCell};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// The spare tail of a buffer, for a receive: written by the kernel, never zeroed before.
struct Tail(Buf);

// SAFETY: pointer and length name the spare capacity of a heap block that the wrapped buffer owns and that nothing can
// reach while the operation owns the wrapper; moving the wrapper does not move the block.
unsafe impl IoBufMut for Tail {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.vec().spare_capacity_mut().as_mut_ptr().cast()
    }
    fn bytes_total(&mut self) -> usize {
        self.0.spare()
    }
    unsafe fn set_init(&mut self, n: usize) {
        let bytes = self.0.vec();
        let len = bytes.len() + n;
        // SAFETY: the kernel has written `n` bytes behind the initialised ones, into at most the spare capacity.
        unsafe { bytes.set_len(len) }
    }
}

/// The filled bytes of a buffer, for a send.
struct Filled(Buf);

// SAFETY: as for `Tail`; the filled bytes are initialised.
unsafe impl IoBuf for Filled {
    fn read_ptr(&self) -> *const u8 {
        self.0.filled().as_ptr()
    }
    fn bytes_init(&self) -> usize {
        self.0.len()
    }
}

/// A descriptor of this core's driver. Knows how many operations are under way, so that it can be closed with one plain
/// close(2) when there is none: monoio's own drop costs a Close submission, and a cancel, and a heap cell.
pub(super) struct Driven {
    io: ManuallyDrop<UnsafeCell<UnixStream>>,
    /// Operations that were begun and whose futures have not ended. One dropped half-way stays counted for ever.
    pub(super) under_way: Cell<u16>,
    /// What comes takes long to read.
    hard: Cell<bool>,
    /// A turn, as far as it fits, and how many receives and sends ended in it.
    turn: Cell<u16>,
    used: Cell<u8>,
    /// Of a stream: whether the parking lot has it in its set.
    pub(super) known: Known,
}

impl Driven {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Driven> {
        let io = UnixStream::from_std(fd.into())?;
        Ok(Driven {
            io: ManuallyDrop::new(UnsafeCell::new(io)),
            under_way: Cell::new(0),
            hard: Cell::new(false),
            turn: Cell::new(0),
            used: Cell::new(0),
            known: Known::No,
        })
    }

    fn io(&self) -> &UnixStream {
        // SAFETY: shared access; the exclusive borrows in `begin_recv` and `begin_send` last for one call that does not
        // come back here.
        unsafe { &*self.io.get() }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.io().as_raw_fd()
    }

    fn begin(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    fn end(&self) {
        self.under_way.set(self.under_way.get() - 1);
    }

    /// Takes the descriptor back from the driver. No operation may be under way.
    pub(super) fn into_fd(self) -> OwnedFd {
        let mut driven = ManuallyDrop::new(self);
        // SAFETY: as in `drop`, which does not follow.
        let io = unsafe { ManuallyDrop::take(&mut driven.io) }.into_inner();
        // SAFETY: `into_raw_fd` gives up the ownership of an open descriptor.
        unsafe { OwnedFd::from_raw_fd(io.into_raw_fd()) }
    }

    // `readable` with `false`: the epoll driver answers the relaxed one from a stale flag and would spin.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.begin();
        let result = self.io().readable(false).await;
        self.end();
        result
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.begin();
        let result = self.io().writable(false).await;
        self.end();
        result
    }

    pub(super) async fn recv(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        let (result, buf) = match buf.class() {
            Class::Small => {
                let (result, Tail(buf)) = self.begin_recv(buf).await;
                self.end();
                (result, buf)
            }
            Class::Large => self.recv_in_turn(buf).await,
        };
        if let Some(weight) = self.received(&result) {
            turns::next(weight).await;
        }
        (result, buf)
    }

    // A receive that waits in the ring is carried out as soon as there are bytes, for however many have become ready: with large
    // buffers that is a quarter of a megabyte each. So readiness is waited for, and the receive is a call within a turn that
    // has room for it.
    async fn recv_in_turn(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        let mut tail = Tail(buf);
        let mut result = recv_now(self.fd(), &mut tail);
        if would_block(&result) {
            if let Err(error) = self.readable().await {
                return (Err(error), tail.0);
            }
            turns::room(Weight::Heavy).await;
            result = recv_now(self.fd(), &mut tail);
        }
        if would_block(&result) {
            (result, tail) = self.begin_recv(tail.0).await;
            self.end();
        }
        (result, tail.0)
    }

    // By a call also what is small: the ring would do no more for it, and only when this turn has ended.
    pub(super) async fn recv_now(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        let mut tail = Tail(buf);
        let result = recv_now(self.fd(), &mut tail);
        if !would_block(&result)
            && let Some(weight) = self.received(&result)
        {
            turns::next(weight).await;
        }
        (result, tail.0)
    }

    /// Begins a receive, which counts as under way until [`Driven::end`].
    fn begin_recv(&self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Tail)> {
        self.begin();
        // SAFETY: monoio asks for `&mut` only to keep two readers apart. The call clones the descriptor's count into the
        // operation and the future it returns touches nothing of `self`; a send under way is in the same position.
        unsafe { &mut *self.io.get() }.read(Tail(buf))
    }

    /// How much is behind a receive that has ended, if that has to wait for another turn: what is hard to read always, since
    /// it would make this one long however young it is.
    #[inline]
    fn received(&self, result: &io::Result<usize>) -> Option<Weight> {
        let n = *result.as_ref().unwrap_or(&0);
        let over = turns::spend(n) | (self.used() >= limits::TURN_SHARE);
        match self.hard.get() {
            true => Some(Weight::Heavy),
            false => over.then(|| Weight::of(n)),
        }
    }

    /// See [`super::Stream::mark_hard`].
    pub(super) fn mark_hard(&self, hard: bool) {
        self.hard.set(hard);
        if hard {
            turns::look();
        }
    }

    pub(super) async fn send(&self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        let weight = Weight::of(buf.len());
        loop {
            let result;
            (result, buf) = match buf.class() {
                Class::Small => {
                    let (result, Filled(buf)) = self.begin_send(buf).await;
                    self.end();
                    (result, buf)
                }
                Class::Large => self.send_in_turn(buf).await,
            };
            if self.sent(&result) {
                turns::next(weight).await;
            }
            match result {
                Ok(n) => buf.consume(n),
                Err(ref error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {}
            }
            return (result, buf);
        }
    }

    /// Counts a send that has ended; `true`: whatever comes next should wait for another turn.
    #[inline]
    fn sent(&self, result: &io::Result<usize>) -> bool {
        turns::spend(*result.as_ref().unwrap_or(&0)) | (self.used() >= limits::TURN_SHARE)
    }

    /// A receive or send has ended: how many this turn has seen. What does not have to wait, as most does not with epoll, could
    /// go on until nobody else gets on in this turn.
    #[inline]
    fn used(&self) -> u8 {
        let now = turns::number() as u16;
        let used = if self.turn.replace(now) == now { self.used.get().saturating_add(1) } else { 1 };
        self.used.set(used);
        used
    }

    // The ring would carry out what it was given when this turn has ended, and what waited for room in hundreds of sockets
    // all at once. What is large is sent within a turn that has room for it.
    async fn send_in_turn(&self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        let mut result = send_now(self.fd(), buf.filled(), 0);
        if would_block(&result) {
            if let Err(error) = self.writable().await {
                return (Err(error), buf);
            }
            turns::room(Weight::Heavy).await;
            result = send_now(self.fd(), buf.filled(), 0);
        }
        if would_block(&result) {
            (result, Filled(buf)) = self.begin_send(buf).await;
            self.end();
        }
        (result, buf)
    }

    /// As [`Driven::begin_recv`]. monoio sends with MSG_NOSIGNAL.
    fn begin_send(&self, buf: Buf) -> impl Future<Output = (io::Result<usize>, Filled)> {
        self.begin();
        // SAFETY: as there.
        unsafe { &mut *self.io.get() }.write(Filled(buf))
    }

    // Always a call: the driver has no flag for it.
    pub(super) async fn send_more(&self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        let result = send_now(self.fd(), buf.filled(), libc::MSG_MORE);
        if would_block(&result) {
            return self.send(buf).await;
        }
        let n = *result.as_ref().unwrap_or(&0);
        turns::spend(n);
        buf.consume(n);
        (result, buf)
    }

    async fn spliced(&self, result: &io::Result<usize>) {
        let n = *result.as_ref().unwrap_or(&0);
        if turns::spend(n / limits::SPLICE_CHEAPER) | (self.used() >= limits::TURN_SHARE_SPLICED) {
            turns::next(Weight::Heavy).await;
        }
    }

    // Tries before it waits, as a body's bytes mostly are there. It waits once: a socket that is readable and still gives
    // nothing has bytes that are not spliced (TCP urgent data), and would be readable for ever.
    pub(super) async fn fill(&self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let mut result = pipe.fill_from(self.fd(), most);
        if would_block(&result) {
            self.readable().await?;
            turns::room(Weight::Heavy).await;
            result = pipe.fill_from(self.fd(), most);
        }
        self.spliced(&result).await;
        result
    }

    // Waits once, too: where the kernel lacks memory, a socket says that it has room and takes nothing.
    pub(super) async fn pour(&self, pipe: &mut Pipe) -> io::Result<usize> {
        let mut result = pipe.pour_into(self.fd());
        if would_block(&result) {
            self.writable().await?;
            turns::room(Weight::Heavy).await;
            result = pipe.pour_into(self.fd());
        }
        self.spliced(&result).await;
        result
    }
}

/// Receives what is there, if anything is.
fn recv_now(fd: RawFd, tail: &mut Tail) -> io::Result<usize> {
    let (to, most) = (tail.write_ptr(), tail.bytes_total());
    loop {
        // SAFETY: pointer and length name the spare capacity of a buffer that is borrowed here.
        let n = unsafe { libc::recv(fd, to.cast(), most, libc::MSG_DONTWAIT) };
        if n >= 0 {
            // SAFETY: so many bytes were written there.
            unsafe { tail.set_init(n as usize) };
            return Ok(n as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Sends what there is room for, if there is any.
fn send_now(fd: RawFd, bytes: &[u8], flags: libc::c_int) -> io::Result<usize> {
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length are those of a slice.
    let n = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    if n >= 0 { Ok(n as usize) } else { Err(io::Error::last_os_error()) }
}

fn would_block(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl AsFd for Driven {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.fd()) }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // SAFETY: taken once, here or in `into_fd` after which there is no drop, and not touched afterwards.
        let io = unsafe { ManuallyDrop::take(&mut self.io) }.into_inner();
        // `into_raw_fd` panics while an operation shares the descriptor, which only one dropped half-way can do: then
        // monoio cancels it and closes when the kernel is done with it.
        if self.under_way.get() == 0 {
            // SAFETY: `into_raw_fd` gives up the ownership of an open descriptor.
            drop(unsafe { OwnedFd::from_raw_fd(io.into_raw_fd()) });
        }
        // A close frees what was not read here and, on this machine, what the peer could not send: 0.2 ms for 4 MiB.
        turns::look();
    }
}
