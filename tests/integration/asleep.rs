//! A control thread that is asleep stops no deadline: a real worker, whose control side is the test itself. Its messages
//! are not read, its channel is full at once, nobody rings and nobody publishes; for ten seconds.

use crate::client::{Client, End};
use crate::harness::{Driver, millis, on_both_drivers, seconds};
use crate::origin::Origin;
use crossbeam_channel::{bounded, unbounded};
use ringway::access_log::{self, Sink};
use ringway::config::{Io, check};
use ringway::event::{CoreStats, FromWorker, ToWorker};
use ringway::publish::Publisher;
use ringway::supervisor::{Resolutions, Supervisor};
use ringway::worker::net::driver::choose;
use ringway::worker::net::os::Bell;
use ringway::worker::{self, Start};
use serde_json::json;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long control sleeps.
const ASLEEP: Duration = Duration::from_secs(10);

/// One worker, and the ends of its links that are control's.
struct Stand {
    front: SocketAddr,
    inbox: crossbeam_channel::Sender<ToWorker>,
    from_worker: crossbeam_channel::Receiver<FromWorker>,
    bell: Bell,
    /// How often the worker has rung for control.
    rings: Arc<AtomicU32>,
    stats: Arc<CoreStats>,
}

fn stand(driver: Driver, config: &serde_json::Value) -> Stand {
    let io = if driver == Driver::Epoll { Io::Epoll } else { Io::Uring };
    let (choice, _) = choose(io).unwrap_or_else(|steps| panic!("no driver: {steps:?}"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    listener.set_nonblocking(true).expect("non-blocking");
    let front = listener.local_addr().expect("an address");
    let plan = check::load_for(&config.to_string(), "config.json", 1, 1024).unwrap_or_else(|faults| panic!("{faults}"));
    let supervisor = Supervisor::new(plan, 1, Resolutions::default()).expect("a plan that can be run");
    let id = supervisor.listeners()[0].0;
    let log = access_log::spawn(1, Sink::Off).expect("a thread for the log");
    let (inbox, to_worker) = unbounded();
    inbox.send(ToWorker::Listen { id, fd: listener.into(), unix: false }).expect("room in the inbox");
    let (outbox, from_worker) = bounded(1);
    let (stats, rings) = (Arc::<CoreStats>::default(), Arc::<AtomicU32>::default());
    let (bell, rung) = (Bell::new().expect("a bell"), rings.clone());
    let start = Start {
        core: 0,
        cpu: None,
        cores: 1,
        choice,
        bells: [bell.clone()].into(),
        doorsteps: [].into(),
        publisher: Publisher::new(supervisor.snapshot()),
        inbox: to_worker,
        outbox,
        ring_control: Arc::new(move || {
            rung.fetch_add(1, Ordering::Relaxed);
        }),
        stats: stats.clone(),
        log: log.queue(0, stats.clone()),
    };
    std::thread::spawn(move || worker::start(start).expect("a runtime"));
    Stand { front, inbox, from_worker, bell, rings, stats }
}

/// A deadline of T seconds fires between T and T + 1; the rest is the machine's.
fn fired(what: &str, begin: Instant, seconds: u64) {
    let allowed: Range<u128> = (u128::from(seconds) * 1000).saturating_sub(50)..u128::from(seconds) * 1000 + 2500;
    let took = begin.elapsed().as_millis();
    assert!(allowed.contains(&took), "{what} after {took} ms of {allowed:?}");
    assert!(begin.elapsed() < ASLEEP, "{what} was not while control slept");
}

fn client(front: SocketAddr) -> Client {
    let stream = TcpStream::connect(front).expect("a connection");
    stream.set_read_timeout(Some(seconds(15))).expect("a timeout");
    Client::over(Box::new(stream))
}

/// Asks for this host and expects this answer after so many seconds.
fn times_out(front: SocketAddr, host: &str, status: u16, seconds: u64) {
    let mut client = client(front);
    let begin = Instant::now();
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert_eq!(client.response().status, status, "{host}");
    fired(host, begin, seconds);
}

fn a_head_times_out(front: SocketAddr) {
    let mut client = client(front);
    let begin = Instant::now();
    client.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(client.response().status, 408);
    fired("the head's deadline", begin, 2);
}

fn an_idle_connection_ends(front: SocketAddr) {
    let mut client = client(front);
    client.send("GET / HTTP/1.1\r\nHost: good\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let begin = Instant::now();
    assert_eq!(client.rest(ASLEEP), (Vec::new(), End::Fin));
    fired("the idle timeout", begin, 3);
}

fn requests_are_served(front: SocketAddr) {
    let (begin, mut client) = (Instant::now(), client(front));
    while begin.elapsed() < seconds(8) {
        client.send("GET / HTTP/1.1\r\nHost: good\r\n\r\n");
        assert_eq!(client.response().text(), "ok");
        std::thread::sleep(millis(50));
    }
}

on_both_drivers! {
    fn a_control_thread_that_sleeps_stops_no_deadline(driver) {
        let good = Origin::saying("ok");
        let silent = Origin::new(|c| { c.request(); c.wait_gone(seconds(20)); });
        let dead = crate::harness::free_address();
        // A listener whose queue is full answers no connect.
        let full = TcpListener::bind("127.0.0.1:0").expect("a listener");
        unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&full), 0) };
        let full_at = full.local_addr().expect("an address");
        let fillers: Vec<_> = (0..8).map(|_| TcpStream::connect_timeout(&full_at, millis(100))).collect();
        let cluster = |address: SocketAddr| json!({
            "backends": {"b": address.to_string()}, "retries": 0, "timeouts": {"connect": "2s", "head": "3s"},
        });
        let stand = stand(driver, &json!({
            "listeners": {"main": "127.0.0.1:1"},
            "client": {"head_timeout": "2s", "idle_timeout": "3s"},
            "clusters": {
                "good": cluster(good.address()), "silent": cluster(silent.address()),
                "full": cluster(full_at), "dead": cluster(dead),
            },
            "routes": {"good": "good", "silent": "silent", "full": "full", "dead": "dead"},
            "log": {"access": "off"},
        }));
        let front = stand.front;
        std::thread::scope(|scope| {
            scope.spawn(move || times_out(front, "silent", 504, 3));
            scope.spawn(move || times_out(front, "full", 504, 2));
            scope.spawn(move || a_head_times_out(front));
            scope.spawn(move || an_idle_connection_ends(front));
            scope.spawn(move || requests_are_served(front));
            scope.spawn(move || for _ in 0..4 { times_out(front, "dead", 502, 0) });
            std::thread::sleep(ASLEEP);
        });
        assert!(stand.stats.ticks.load(Ordering::Relaxed) >= 9);
        assert!(stand.rings.load(Ordering::Relaxed) > 0, "nobody wanted to tell control anything");
        // It wakes up: what it had no time for is still there to be seen.
        assert!(matches!(stand.from_worker.try_recv(), Ok(FromWorker::Report { .. })));
        stand.inbox.send(ToWorker::Drain { seconds: 2 }).expect("room in the inbox");
        stand.bell.ring();
        let until = Instant::now() + seconds(10);
        while !matches!(stand.from_worker.recv_deadline(until), Ok(FromWorker::Drained { cut: 0, .. })) {
            assert!(Instant::now() < until, "the drain does not end");
        }
        drop(fillers);
    }
}
