//! The contract, one test per promise.

use crate::fixture::{Family, Fixture};
use ringway::limits;
use ringway::route::Endpoint;
use ringway::worker::buffers::{Buf, Class};
use ringway::worker::net::{Accepted, Handle, How, Net, Stream};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::rc::Rc;

pub const BOTH: [Family; 2] = [Family::Tcp, Family::Unix];

pub type StreamOf<F> = <<F as Fixture>::Net as Net>::Stream;

pub fn buf(bytes: &[u8]) -> Buf {
    let mut buf = Buf::new(if bytes.len() > 16_000 { Class::Large } else { Class::Small });
    assert!(buf.append(bytes));
    buf
}

/// A connection: the connecting and the accepted end.
pub async fn pair<F: Fixture>(f: &F, family: Family) -> (StreamOf<F>, StreamOf<F>) {
    let (listener, endpoint) = f.listen(family);
    let client = f.net().connect(&endpoint, |_| {}).await.unwrap();
    let mut out = Vec::new();
    f.net().accept(&listener, &mut out).await.unwrap();
    (client, out.pop().unwrap().stream)
}

pub async fn send<S: Stream>(stream: &S, bytes: &[u8]) {
    let (result, left) = stream.send_all(buf(bytes)).await;
    result.unwrap();
    assert!(left.is_empty());
}

pub async fn recv<S: Stream>(stream: &S) -> io::Result<Vec<u8>> {
    let (result, buf) = stream.recv(Buf::new(Class::Small)).await;
    result.map(|n| {
        assert_eq!(n, buf.len());
        buf.filled().to_vec()
    })
}

/// At least `n` bytes, or all there are.
pub async fn recv_until<S: Stream>(stream: &S, n: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < n {
        let some = recv(stream).await.unwrap();
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    all
}

/// A task of its own and its result.
pub struct Started<T>(Rc<RefCell<Option<T>>>);

pub fn start<F: Fixture, T: 'static>(f: &F, task: impl Future<Output = T> + 'static) -> Started<T> {
    let result = Rc::new(RefCell::new(None));
    let slot = result.clone();
    f.net().spawn(async move {
        let value = task.await;
        *slot.borrow_mut() = Some(value);
    });
    Started(result)
}

impl<T> Started<T> {
    pub fn is_done(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub async fn result<F: Fixture>(self, f: &F) -> T {
        loop {
            let done = self.0.borrow_mut().take();
            match done {
                Some(value) => return value,
                None => f.sleep_ms(1).await,
            }
        }
    }
}

pub fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + (i >> 8) * 7) as u8).collect()
}

pub async fn bytes_arrive_whole_and_in_order<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        let all = pattern(200_000);
        let sender = {
            let all = all.clone();
            start(&f, async move {
                for part in all.chunks(70_001) {
                    send(&client, part).await;
                }
                client
            })
        };
        // Reads append, to a buffer that has something in it already.
        let mut got = Vec::new();
        while got.len() < all.len() {
            let (result, back) = server.recv(buf(b"before")).await;
            let n = result.unwrap();
            assert!(n > 0 && back.len() == 6 + n);
            assert_eq!(&back.filled()[..6], b"before");
            got.extend_from_slice(&back.filled()[6..]);
        }
        assert!(got == all);
        sender.result(&f).await;
    }
}

pub async fn a_close_is_the_end_after_the_last_byte<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        send(&client, b"last words").await;
        client.close();
        assert_eq!(recv_until(&server, usize::MAX).await, b"last words");
        server.readable().await.unwrap();
        assert_eq!(recv(&server).await.unwrap(), b"");
    }
}

pub async fn a_reset_is_an_error<F: Fixture>(f: F) {
    let (client, server) = pair(&f, Family::Tcp).await;
    let waiting = {
        let server = Rc::new(server);
        let standing = server.clone();
        (start(&f, async move { recv(&*standing).await }), server)
    };
    f.sleep_ms(20).await;
    f.reset(client);
    let (recv_result, server) = waiting;
    assert_eq!(recv_result.result(&f).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (result, left) = server.send_all(buf(b"nobody hears")).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(left.filled(), b"nobody hears");
}

pub async fn received_bytes_outlive_a_reset<F: Fixture>(f: F) {
    let (client, server) = pair(&f, Family::Tcp).await;
    send(&client, b"arrived").await;
    f.sleep_ms(20).await;
    f.reset(client);
    f.sleep_ms(20).await;
    server.readable().await.unwrap();
    assert_eq!(recv_until(&server, 7).await, b"arrived");
    assert_eq!(recv(&server).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

pub async fn a_half_closed_stream_still_sends<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        send(&client, b"question").await;
        f.net().shutdown(client.handle(), How::Write);
        assert_eq!(recv_until(&server, usize::MAX).await, b"question");
        assert!(!f.net().gone(server.handle(), false) && f.net().gone(server.handle(), true));
        send(&server, b"answer").await;
        server.close();
        assert_eq!(recv_until(&client, usize::MAX).await, b"answer");
    }
}

pub async fn shutdown_wakes_a_recv<F: Fixture>(f: F) {
    for family in BOTH {
        for how in [How::Read, How::Both] {
            let (client, server) = pair(&f, family).await;
            let handle = server.handle();
            let waiting = start(&f, async move { (server.recv(buf(b"kept")).await, server) });
            f.sleep_ms(20).await;
            assert!(!waiting.is_done());
            f.net().shutdown(handle, how);
            let ((result, back), _server) = waiting.result(&f).await;
            assert_eq!((result.unwrap(), back.filled()), (0, &b"kept"[..]));
            drop(client);
        }
    }
}

pub async fn shutdown_wakes_a_readable<F: Fixture>(f: F) {
    for family in BOTH {
        for how in [How::Read, How::Both] {
            let (client, server) = pair(&f, family).await;
            let handle = server.handle();
            let waiting = start(&f, async move { (server.readable().await, server) });
            f.sleep_ms(20).await;
            assert!(!waiting.is_done());
            f.net().shutdown(handle, how);
            let (result, server) = waiting.result(&f).await;
            result.unwrap();
            assert_eq!(recv(&server).await.unwrap(), b"");
            drop(client);
        }
    }
}

pub async fn shutdown_read_loses_nothing_received<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        send(&client, b"in time").await;
        f.sleep_ms(20).await;
        f.net().shutdown(server.handle(), How::Read);
        assert_eq!(recv_until(&server, usize::MAX).await, b"in time");
        // The other direction is as it was.
        send(&server, b"408").await;
        assert_eq!(recv_until(&client, 3).await, b"408");
    }
}

pub async fn recv_now_waits_for_nothing<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        let (result, room) = server.recv_now(Buf::new(Class::Small)).await;
        assert_eq!((result.unwrap_err().kind(), room.len()), (ErrorKind::WouldBlock, 0));
        send(&client, b"here").await;
        server.readable().await.unwrap();
        let (result, mut got) = server.recv_now(room).await;
        let first = result.unwrap();
        while got.len() < 4 {
            (_, got) = server.recv(got).await;
        }
        assert_eq!((first > 0, got.filled()), (true, &b"here"[..]));
        f.net().shutdown(client.handle(), How::Write);
        server.readable().await.unwrap();
        let (result, _) = server.recv_now(got).await;
        assert_eq!(result.unwrap(), 0);
    }
}

pub async fn what_more_should_have_followed_goes_out_with_the_end<F: Fixture>(f: F) {
    for family in BOTH {
        for close in [true, false] {
            let (client, server) = pair(&f, family).await;
            let mut last = buf(b"the last words");
            while !last.is_empty() {
                let sent;
                (sent, last) = server.send_more(last).await;
                assert!(sent.unwrap() > 0);
            }
            let held = if close {
                server.close();
                None
            } else {
                f.net().shutdown(server.handle(), How::Write);
                Some(server)
            };
            let since = f.net().now_us();
            assert_eq!(recv_until(&client, usize::MAX).await, b"the last words");
            assert!(f.net().now_us() - since < 150_000, "the kernel waited for more");
            drop(held);
        }
    }
}

pub async fn shutdown_write_sends_the_end<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        f.net().shutdown(server.handle(), How::Write);
        assert_eq!(recv(&client).await.unwrap(), b"");
        let (result, left) = server.send_all(buf(b"late")).await;
        assert_eq!((result.unwrap_err().kind(), left.len()), (ErrorKind::BrokenPipe, 4));
        send(&client, b"more").await;
        assert_eq!(recv_until(&server, 4).await, b"more");
    }
}

/// Sends until the pipe is full; the result is of the send that did not end by itself.
fn fill<F: Fixture>(f: &F, stream: Rc<StreamOf<F>>) -> Started<(io::Result<()>, usize, usize)> {
    let part = pattern(200_000);
    start(f, async move {
        let mut sent = 0;
        loop {
            let (result, left) = stream.send_all(buf(&part)).await;
            sent += part.len() - left.len();
            if result.is_err() || sent >= 64 << 20 {
                return (result, left.len(), sent);
            }
        }
    })
}

pub async fn a_blocked_send_is_ended_by_shutdown<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        let server = Rc::new(server);
        let sending = fill(&f, server.clone());
        f.sleep_ms(100).await;
        assert!(!sending.is_done());
        f.net().shutdown(server.handle(), How::Both);
        let (result, left, sent) = sending.result(&f).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
        // What the buffer no longer holds went to the kernel, and from there to the client.
        assert!(left > 0);
        assert_eq!(recv_until(&client, usize::MAX).await.len(), sent);
    }
}

pub async fn a_blocked_send_goes_on_when_there_is_room<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        let all = pattern(limits::BUFFER_LARGE_BYTES - limits::BUFFER_HEADROOM);
        let (times, expected) = (24, all.len() * 24);
        let sender = start(&f, async move {
            for _ in 0..times {
                send(&server, &all).await;
            }
        });
        f.sleep_ms(30).await;
        assert_eq!(recv_until(&client, usize::MAX).await.len(), expected);
        assert!(sender.is_done());
    }
}

pub async fn a_send_to_a_closed_peer_fails_in_the_end<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        client.close();
        f.sleep_ms(20).await;
        // TCP takes the first bytes and learns from their answer.
        let (first, _) = server.send_all(buf(b"?")).await;
        assert_eq!(first.is_ok(), family == Family::Tcp);
        f.sleep_ms(20).await;
        let (result, left) = server.send_all(buf(b"hello?")).await;
        assert_eq!((result.unwrap_err().kind(), left.len()), (ErrorKind::BrokenPipe, 6));
        assert!(f.net().gone(server.handle(), false));
    }
}

pub async fn recv_and_send_run_at_once<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        let server = Rc::new(server);
        let standing = server.clone();
        let waiting = start(&f, async move { recv(&*standing).await });
        f.sleep_ms(20).await;
        send(&*server, b"one way").await;
        assert_eq!(recv_until(&client, 7).await, b"one way");
        assert!(!waiting.is_done());
        send(&client, b"?").await;
        assert_eq!(waiting.result(&f).await.unwrap(), b"?");
    }
}

pub async fn a_refused_connect_is_an_error<F: Fixture>(f: F) {
    let told = Cell::new(None);
    let result = f.net().connect(&f.nobody(Family::Tcp), |handle| told.set(Some(handle))).await;
    assert_eq!(result.err().unwrap().kind(), ErrorKind::ConnectionRefused);
    assert!(told.get().is_some());
}

pub async fn an_unanswered_connect_is_ended_by_shutdown<F: Fixture>(f: F) {
    let (guard, endpoint) = f.silent();
    let before = f.held();
    let told: Rc<Cell<Option<Handle>>> = Rc::default();
    let (net, slot) = (f.net().clone(), told.clone());
    let connecting = start(&f, async move {
        let result = net.connect(&endpoint, |handle| slot.set(Some(handle))).await;
        result.map(drop).map_err(|e| e.kind())
    });
    f.sleep_ms(50).await;
    assert!(!connecting.is_done());
    f.net().shutdown(told.get().expect("told before waiting"), How::Both);
    assert_eq!(connecting.result(&f).await, Err(ErrorKind::ConnectionReset));
    f.sleep_ms(20).await;
    assert_eq!(f.held(), before);
    drop(guard);
}

pub async fn a_unix_connect_needs_a_listener<F: Fixture>(f: F) {
    let result = f.net().connect(&f.nobody(Family::Unix), |_| {}).await;
    assert_eq!(result.err().unwrap().kind(), ErrorKind::ConnectionRefused);
    let (client, server) = pair(&f, Family::Unix).await;
    send(&client, b"x").await;
    assert_eq!(recv(&server).await.unwrap(), b"x");
}

pub async fn a_full_unix_queue_says_would_block<F: Fixture>(f: F) {
    let (guard, endpoint) = f.full_unix();
    f.sleep_ms(50).await;
    let result = f.net().connect(&endpoint, |_| {}).await;
    assert_eq!(result.err().unwrap().kind(), ErrorKind::WouldBlock);
    drop(guard);
}

pub async fn a_storm_of_connections_is_accepted<F: Fixture>(f: F) {
    for family in BOTH {
        let before = f.held();
        let (listener, endpoint) = f.listen(family);
        let all = 300;
        let clients = Rc::new(RefCell::new(Vec::new()));
        for n in 0..all {
            let (net, to, clients) = (f.net().clone(), endpoint.clone(), clients.clone());
            f.net().spawn(async move {
                let client = net.connect(&to, |_| {}).await.unwrap();
                send(&client, &[n as u8]).await;
                clients.borrow_mut().push(client);
            });
        }
        let mut accepted: Vec<Accepted<_>> = Vec::new();
        while accepted.len() < all {
            let had = accepted.len();
            f.net().accept(&listener, &mut accepted).await.unwrap();
            let batch = accepted.len() - had;
            assert!((1..=limits::ACCEPT_BATCH).contains(&batch));
        }
        let mut sum = 0u64;
        for connection in &accepted {
            assert_eq!(connection.peer.is_some(), family == Family::Tcp);
            sum += u64::from(recv(&connection.stream).await.unwrap()[0]);
        }
        assert_eq!(sum, (0..all).map(|n| n as u8 as u64).sum::<u64>());
        let peers: std::collections::HashSet<_> = accepted.iter().filter_map(|a| a.peer).collect();
        assert_eq!(peers.len(), if family == Family::Tcp { all } else { 0 });
        while clients.borrow().len() < all {
            f.sleep_ms(1).await;
        }
        drop((accepted, listener));
        clients.borrow_mut().clear();
        f.sleep_ms(20).await;
        assert_eq!(f.held(), before);
    }
}

pub async fn a_closed_listener_gives_what_is_queued<F: Fixture>(f: F) {
    for family in BOTH {
        let (listener, endpoint) = f.listen(family);
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(f.net().connect(&endpoint, |_| {}).await.unwrap());
        }
        f.sleep_ms(20).await;
        f.net().close_listener(&listener);
        let mut out = Vec::new();
        let end = loop {
            if let Err(e) = f.net().accept(&listener, &mut out).await {
                break e;
            }
        };
        assert!(matches!(end.kind(), ErrorKind::NotConnected | ErrorKind::InvalidInput), "{end}");
        assert_eq!(out.len(), 3);
        for (client, server) in clients.iter().zip(&out) {
            send(client, b"served").await;
            assert_eq!(recv_until(&server.stream, 6).await, b"served");
        }
        drop(listener);
        f.sleep_ms(20).await;
        assert_eq!(refusal(&f, &endpoint).await, ErrorKind::ConnectionRefused);
    }
}

async fn refusal<F: Fixture>(f: &F, endpoint: &Endpoint) -> ErrorKind {
    f.net().connect(endpoint, |_| {}).await.err().expect("nobody listens").kind()
}

pub async fn closing_a_listener_wakes_its_accept<F: Fixture>(f: F) {
    for family in BOTH {
        let (listener, endpoint) = f.listen(family);
        let listener = Rc::new(listener);
        let (net, same) = (f.net().clone(), listener.clone());
        let waiting = start(&f, async move { net.accept(&same, &mut Vec::new()).await.unwrap_err().kind() });
        f.sleep_ms(20).await;
        assert!(!waiting.is_done());
        f.net().close_listener(&listener);
        let kind = waiting.result(&f).await;
        assert!(matches!(kind, ErrorKind::NotConnected | ErrorKind::InvalidInput), "{kind}");
        drop(listener);
        f.sleep_ms(20).await;
        assert_eq!(refusal(&f, &endpoint).await, ErrorKind::ConnectionRefused);
    }
}

pub async fn accept_without_descriptors_gives_what_it_got<F: Fixture>(f: F) {
    let (listener, endpoint) = f.listen(Family::Tcp);
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(f.net().connect(&endpoint, |_| {}).await.unwrap());
    }
    f.sleep_ms(20).await;
    f.limit(Some(3));
    let mut out = Vec::new();
    let short = loop {
        if let Err(e) = f.net().accept(&listener, &mut out).await {
            break e;
        }
    };
    let none = f.net().connect(&endpoint, |_| {}).await.err().unwrap();
    f.limit(None);
    assert_eq!((short.raw_os_error(), none.raw_os_error()), (Some(libc::EMFILE), Some(libc::EMFILE)));
    assert_eq!(out.len(), 3);
    while out.len() < 5 {
        f.net().accept(&listener, &mut out).await.unwrap();
    }
}

/// What the peer did, and then: quiet, gone, gone or has sent FIN.
pub async fn quiet_and_gone_tell_what_the_peer_did<F: Fixture>(f: F) {
    for family in BOTH {
        let tcp = family == Family::Tcp;
        let state = |stream: &StreamOf<F>| {
            let (net, handle) = (f.net(), stream.handle());
            (net.quiet(handle), net.gone(handle, false), net.gone(handle, true))
        };
        // Nothing; then more data.
        let (client, server) = pair(&f, family).await;
        assert_eq!(state(&server), (true, false, false));
        send(&client, b"x").await;
        f.sleep_ms(20).await;
        assert_eq!(state(&server), (false, false, false));
        recv(&server).await.unwrap();
        assert_eq!(state(&server), (true, false, false));
        // Half-close.
        f.net().shutdown(client.handle(), How::Write);
        f.sleep_ms(20).await;
        assert_eq!(state(&server), (false, false, true));
        // Close: on TCP the same as the half-close.
        let (client, server) = pair(&f, family).await;
        client.close();
        f.sleep_ms(20).await;
        assert_eq!(state(&server), (false, !tcp, true));
        if tcp {
            // Until something was sent.
            send(&server, b"x").await;
            f.sleep_ms(20).await;
            assert_eq!(state(&server), (false, true, true));
        }
        // Close with unread data.
        let (client, server) = pair(&f, family).await;
        send(&server, b"never read").await;
        f.sleep_ms(20).await;
        client.close();
        f.sleep_ms(20).await;
        assert_eq!(state(&server), (false, true, true));
        assert_eq!(recv(&server).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(state(&server), (false, true, true));
        // Our own shutdown of both sides.
        let (_client, server) = pair(&f, family).await;
        f.net().shutdown(server.handle(), How::Both);
        assert_eq!(state(&server), (false, true, true));
    }
    // Reset, with and without data.
    for data in [&b""[..], b"x"] {
        let (client, server) = pair(&f, Family::Tcp).await;
        send(&client, data).await;
        f.sleep_ms(20).await;
        f.reset(client);
        f.sleep_ms(20).await;
        let handle = server.handle();
        assert!(!f.net().quiet(handle) && f.net().gone(handle, false));
    }
}

pub async fn the_doorbell_is_heard<F: Fixture>(f: F) {
    let heard: Rc<Cell<u32>> = Rc::default();
    let (net, count) = (f.net().clone(), heard.clone());
    f.net().spawn(async move {
        for _ in 0..3 {
            net.rung().await;
            count.set(count.get() + 1);
        }
    });
    for n in 0..3 {
        f.sleep_ms(20).await;
        assert_eq!(heard.get(), n);
        f.ring();
    }
    f.sleep_ms(20).await;
    assert_eq!(heard.get(), 3);
    // Rings while nobody listens are one, and not lost.
    f.ring();
    f.ring();
    f.net().rung().await;
    let (net, count) = (f.net().clone(), heard.clone());
    f.net().spawn(async move {
        net.rung().await;
        count.set(9);
    });
    f.sleep_ms(20).await;
    assert_eq!(heard.get(), 3);
    f.ring();
    f.sleep_ms(20).await;
    assert_eq!(heard.get(), 9);
}

pub async fn ticks_are_of_time_and_not_of_calls<F: Fixture>(f: F) {
    let net = f.net();
    let began = net.now_us();
    assert_eq!(net.tick().await, 1);
    let waited = net.now_us() - began;
    assert!((900_000..1_400_000).contains(&waited), "{waited}");
    // Two ticks are missed: the third comes at once, and the next one in its time.
    f.stall_ms(2300);
    let stalled = net.now_us();
    assert_eq!(net.tick().await, 3);
    assert!(net.now_us() - stalled < 200_000);
    assert_eq!(net.tick().await, 4);
    assert!((3_900_000..4_500_000).contains(&(net.now_us() - began)));
    assert!(net.unix_seconds() > 1_600_000_000);
}

/// Polls a future once.
async fn poll_once<T>(future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

pub async fn a_dropped_operation_leaks_no_stream<F: Fixture>(f: F) {
    for family in BOTH {
        let before = f.held();
        let (client, server) = pair(&f, family).await;
        assert!(!poll_once(server.recv(Buf::new(Class::Small))).await);
        drop(server);
        f.sleep_ms(20).await;
        assert_eq!(recv(&client).await.unwrap(), b"");
        client.close();
        let (client, server) = pair(&f, family).await;
        assert!(!poll_once(client.readable()).await);
        drop((client, server));
        let (listener, _) = f.listen(family);
        assert!(!poll_once(f.net().accept(&listener, &mut Vec::new())).await);
        drop(listener);
        f.sleep_ms(50).await;
        assert_eq!(f.held(), before);
    }
}

pub async fn spawned_tasks_run<F: Fixture>(f: F) {
    let sum: Rc<Cell<u64>> = Rc::default();
    for n in 0..100 {
        let (sum, inner, net) = (sum.clone(), sum.clone(), f.net().clone());
        f.net().spawn(async move {
            sum.set(sum.get() + n);
            net.spawn(async move { inner.set(inner.get() + 1) });
        });
    }
    f.sleep_ms(20).await;
    assert_eq!(sum.get(), 99 * 100 / 2 + 100);
    assert_ne!(f.net().seed(), f.net().seed());
}
