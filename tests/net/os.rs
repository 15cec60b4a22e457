//! What only real sockets can show: their options, the size of futures, and that waiting costs no CPU and an operation
//! no allocation.

use crate::contract::buf;
use crate::fixture::{Family, Fixture, OsFixture, on_epoll, on_ring};
use ringway::worker::buffers::{Buf, Class};
use ringway::worker::net::{Handle, Net, Stream};
use socket2::SockRef;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does it all; counting touches a cell that needs no allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Both sides of a connection on one core, with the buffer that goes to and fro.
async fn steady_operations_allocate_nothing(f: OsFixture) {
    for family in [Family::Tcp, Family::Unix] {
        let (listener, endpoint) = f.listen(family);
        let client = f.os.connect(&endpoint, |_| {}).await.unwrap();
        let mut out = Vec::new();
        f.os.accept(&listener, &mut out).await.unwrap();
        let server = out.remove(0).stream;
        let mut buffer = buf(b"ping");
        let mut before = 0;
        for round in 0..200 {
            if round == 100 {
                before = ALLOCATIONS.with(Cell::get);
            }
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (sent, back) = from.send_all(buffer).await;
                sent.unwrap();
                buffer = back;
                to.readable().await.unwrap();
                let (received, back) = to.recv(buffer).await;
                assert_eq!(received.unwrap(), 4);
                buffer = back;
            }
            assert_eq!(buffer.filled(), b"ping");
            buffer.clear();
            assert!(buffer.append(b"ping"));
        }
        assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    }
}

fn check_options(handle: Handle, tcp: bool) {
    // SAFETY: the streams asked about are open.
    let fd = unsafe { BorrowedFd::borrow_raw(handle.0) };
    let socket = SockRef::from(&fd);
    assert!(socket.nonblocking().unwrap());
    assert!(!tcp || socket.nodelay().unwrap());
    // SAFETY: a plain query of an open descriptor.
    assert_eq!(unsafe { libc::fcntl(handle.0, libc::F_GETFD) }, libc::FD_CLOEXEC);
}

async fn sockets_have_their_options(f: OsFixture) {
    for family in [Family::Tcp, Family::Unix] {
        let (listener, endpoint) = f.listen(family);
        let client = f.os.connect(&endpoint, |_| {}).await.unwrap();
        let mut out = Vec::new();
        f.os.accept(&listener, &mut out).await.unwrap();
        check_options(client.handle(), family == Family::Tcp);
        check_options(out[0].stream.handle(), family == Family::Tcp);
    }
}

async fn operations_are_small(f: OsFixture) {
    let (listener, endpoint) = f.listen(Family::Unix);
    let stream = f.os.connect(&endpoint, |_| {}).await.unwrap();
    let sizes = [
        size_of_val(&stream.readable()),
        size_of_val(&stream.recv(Buf::new(Class::Small))),
        size_of_val(&stream.send_all(buf(b"x"))),
        size_of_val(&f.os.connect(&endpoint, |_| {})),
        size_of_val(&f.os.accept(&listener, &mut Vec::new())),
    ];
    assert!(sizes.iter().all(|size| *size <= 600), "{sizes:?}");
    assert!(size_of_val(&stream) <= 16);
}

fn thread_cpu_us() -> u64 {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut used) };
    used.tv_sec as u64 * 1_000_000 + used.tv_nsec as u64 / 1000
}

/// The traps of an edge-triggered driver: a stale readiness makes a waiting task spin.
async fn waiting_costs_nothing(f: OsFixture) {
    let (listener, endpoint) = f.listen(Family::Tcp);
    let listener = Rc::new(listener);
    let mut held = Vec::new();
    for _ in 0..50 {
        let client = f.os.connect(&endpoint, |_| {}).await.unwrap();
        let mut out = Vec::new();
        f.os.accept(&listener, &mut out).await.unwrap();
        let server = out.remove(0).stream;
        // Used once in each direction, so that every cached readiness is set.
        client.send_all(buf(b"ping")).await.0.unwrap();
        server.recv(Buf::new(Class::Small)).await.0.unwrap();
        server.send_all(buf(b"pong")).await.0.unwrap();
        f.os.spawn(async move { server.readable().await.unwrap() });
        held.push(client);
    }
    let (os, same) = (f.os.clone(), listener.clone());
    f.os.spawn(async move { drop(os.accept(&same, &mut Vec::new()).await) });
    let os = f.os.clone();
    f.os.spawn(async move { os.rung().await });
    f.ring();
    let os = f.os.clone();
    f.os.spawn(async move {
        loop {
            os.tick().await;
        }
    });
    f.sleep_ms(50).await;
    let before = thread_cpu_us();
    f.sleep_ms(1000).await;
    let used = thread_cpu_us() - before;
    assert!(used < 10_000, "{used} us of CPU in one idle second");
    drop(held);
    f.os.close_listener(&listener);
    f.sleep_ms(20).await;
}

/// Closing a stream leaves nothing behind: the descriptor is free at once, without a turn of the loop.
async fn a_close_is_done_at_once(f: OsFixture) {
    let (listener, endpoint) = f.listen(Family::Tcp);
    let before = f.held();
    let client = f.os.connect(&endpoint, |_| {}).await.unwrap();
    let mut out = Vec::new();
    f.os.accept(&listener, &mut out).await.unwrap();
    let server = out.remove(0).stream;
    server.send_all(buf(b"x")).await.0.unwrap();
    client.recv(Buf::new(Class::Small)).await.0.unwrap();
    client.close();
    server.close();
    assert_eq!(f.held(), before);
}

/// Behind urgent data a TCP socket is readable and gives a splice nothing: that must not become a loop.
async fn urgent_bytes_are_left_to_a_recv(f: OsFixture) {
    let (listener, endpoint) = f.listen(Family::Tcp);
    let client = f.os.connect(&endpoint, |_| {}).await.unwrap();
    let mut out = Vec::new();
    f.os.accept(&listener, &mut out).await.unwrap();
    let server = out.remove(0).stream;
    // SAFETY: the stream is open until the end of this function.
    let fd = unsafe { BorrowedFd::borrow_raw(client.handle().0) };
    SockRef::from(&fd).send_out_of_band(b"!").unwrap();
    client.send_all(buf(b"behind")).await.0.unwrap();
    f.sleep_ms(20).await;
    let mut pipe = f.os.pipe().unwrap();
    assert_eq!(server.fill(&mut pipe, 100).await.unwrap_err().kind(), ErrorKind::WouldBlock);
    let (result, got) = server.recv(Buf::new(Class::Small)).await;
    assert_eq!((result.unwrap(), got.filled()), (6, &b"behind"[..]));
    client.send_all(buf(b"more")).await.0.unwrap();
    assert_eq!(server.fill(&mut pipe, 100).await.unwrap(), 4);
}

/// Operations that never have to wait, as with epoll: whoever does one behind the other gets no further in a turn than others.
async fn nobody_has_a_turn_alone(f: OsFixture) {
    let (listener, endpoint) = f.listen(Family::Tcp);
    let client = f.os.connect(&endpoint, |_| {}).await.unwrap();
    let mut out = Vec::new();
    f.os.accept(&listener, &mut out).await.unwrap();
    let sent = Rc::new(Cell::new(0));
    let so_far = sent.clone();
    f.os.spawn(async move {
        for n in 1..=50 {
            client.send_all(buf(b"x")).await.0.unwrap();
            so_far.set(n);
        }
    });
    let mut turns = 0;
    while sent.get() < 50 {
        f.os.next_turn().await;
        turns += 1;
        assert!(sent.get() <= 2 * (turns + 1), "{} in {turns} turns", sent.get());
    }
}

/// A pipe is two descriptors that no child inherits, and gone when it is dropped.
async fn pipes_are_descriptors(f: OsFixture) {
    let before = f.held();
    let pipe = f.os.pipe().unwrap();
    assert_eq!(f.held(), before + 2);
    drop(pipe);
    assert_eq!(f.held(), before);
    f.limit(Some(1));
    let none = f.os.pipe().unwrap_err();
    f.limit(None);
    assert_eq!(none.raw_os_error(), Some(libc::EMFILE));
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod ring { $(#[test] fn $name() { crate::os::on_ring(|f| super::$name(f)); })* }
        mod epoll { $(#[test] fn $name() { crate::os::on_epoll(|f| super::$name(f)); })* }
    };
}

on_both!(
    sockets_have_their_options,
    operations_are_small,
    steady_operations_allocate_nothing,
    waiting_costs_nothing,
    a_close_is_done_at_once,
    urgent_bytes_are_left_to_a_recv,
    nobody_has_a_turn_alone,
    pipes_are_descriptors,
);
