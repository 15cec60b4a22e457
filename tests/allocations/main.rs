//! A request on warm connections costs the worker's thread no allocation: the whole of it, from `accept`'s task to the
//! line of the access log, on both drivers.
//!
//! A real worker runs on a thread of its own, which names the counter that its allocations go to; client and origin
//! run on others. The tick, once a second, may allocate, so only windows without one are judged.

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ringway::access_log::{self, Sink};
use ringway::config::{Io, LogTarget, check};
use ringway::event::{CoreStats, FromWorker, ToWorker};
use ringway::publish::Publisher;
use ringway::supervisor::{Resolutions, Supervisor};
use ringway::worker;
use ringway::worker::net::driver::{Choice, choose};
use ringway::worker::net::os::Bell;
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What one watched thread allocates.
#[derive(Default)]
struct Watch {
    allocations: AtomicU64,
    /// Whether to write down where the next allocation comes from.
    curious: AtomicBool,
    seen: Mutex<String>,
}

thread_local! {
    static WATCH: Cell<Option<&'static Watch>> = const { Cell::new(None) };
}

/// The system's allocator, watched. Its other calls come down to these two.
struct Watched;

impl Watch {
    fn note(&'static self) {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        if self.curious.swap(false, Ordering::Relaxed) {
            // What the backtrace itself needs is not the worker's.
            WATCH.set(None);
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Backtrace::force_capture().to_string();
            WATCH.set(Some(self));
        }
    }

    fn count(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }
}

// SAFETY: the system's allocator does it all; the cell needs neither an allocation nor a destructor.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(watch) = WATCH.get() {
            watch.note();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Reads a whole message: head, then a body by its framing.
fn read_message(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    bytes.clear();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&part[..n]),
            _ => return None,
        }
        let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let body = head + 4;
        let whole = match length {
            Some(length) => bytes.len() >= body + length.parse::<usize>().unwrap(),
            None if text.contains("transfer-encoding: chunked") => bytes.ends_with(b"\r\n0\r\n\r\n"),
            None => true,
        };
        if whole {
            return Some(());
        }
    }
}

/// Answers every request on every connection, `/chunked` in chunks.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                while read_message(&mut stream, &mut bytes).is_some() {
                    let answer: &[u8] = match bytes.starts_with(b"GET /chunked ") {
                        true => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
                        false => b"HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Length: 11\r\n\r\nhello world",
                    };
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A worker on its own thread, and the ends of its links that are control's.
struct Stand {
    watch: &'static Watch,
    stats: Arc<CoreStats>,
    inbox: Sender<ToWorker>,
    bell: Bell,
    from_worker: Receiver<FromWorker>,
    front: SocketAddr,
}

impl Stand {
    fn new(choice: Choice) -> Stand {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let front = listener.local_addr().unwrap();
        let origin = origin();
        let config = format!(
            r#"{{ "listeners": {{ "main": "{front}" }}, "clusters": {{ "app": {{ "backends": {{ "b1": "{origin}" }} }} }},
                "routes": {{ "*": "app" }}, "log": {{ "access": "/dev/null" }} }}"#
        );
        let plan = check::load_for(&config, "config.json", 1, 1024).unwrap();
        let supervisor = Supervisor::new(plan, 1, Resolutions::default()).unwrap();
        let id = supervisor.listeners()[0].0;

        let sink = Sink::open(&LogTarget::File(Path::new("/dev/null").into())).unwrap();
        let log = access_log::spawn(1, sink).unwrap();
        let (inbox, to_worker) = unbounded();
        inbox.send(ToWorker::Listen { id, fd: listener.into(), unix: false }).unwrap();
        let (outbox, from_worker) = bounded(64);
        let stats: Arc<CoreStats> = Arc::default();
        let bell = Bell::new().unwrap();
        let start = worker::Start {
            core: 0,
            cpu: None,
            cores: 1,
            choice,
            publisher: Publisher::new(supervisor.snapshot()),
            inbox: to_worker,
            bells: [bell.clone()].into(),
            doorsteps: [].into(),
            outbox,
            ring_control: Arc::new(|| {}),
            stats: stats.clone(),
            log: log.queue(0, stats.clone()),
        };
        let watch: &'static Watch = Box::leak(Box::default());
        std::thread::spawn(move || {
            WATCH.set(Some(watch));
            worker::start(start).unwrap();
        });
        Stand { watch, stats, inbox, bell, from_worker, front }
    }

    fn ticks(&self) -> u32 {
        self.stats.ticks.load(Ordering::Relaxed)
    }

    /// Waits until a tick has just passed: the longest time to the next.
    fn tick(&self) {
        let before = self.ticks();
        while self.ticks() == before {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(30));
    }

    fn drain(self) {
        self.inbox.send(ToWorker::Drain { seconds: 1 }).unwrap();
        self.bell.ring();
        let drained = self.from_worker.iter().any(|message| matches!(message, FromWorker::Drained { .. }));
        assert!(drained);
    }
}

/// Requests of three kinds over several connections, one at a time.
struct Client {
    streams: Vec<TcpStream>,
    bytes: Vec<u8>,
    sent: usize,
}

impl Client {
    fn new(front: SocketAddr) -> Client {
        let connect = |_| {
            let stream = TcpStream::connect(front).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        };
        Client { streams: (0..4).map(connect).collect(), bytes: Vec::new(), sent: 0 }
    }

    fn requests(&mut self, count: usize) {
        const KINDS: [&[u8]; 3] = [
            b"GET /some/path?q=1 HTTP/1.1\r\nHost: app.test\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n",
            b"GET /chunked HTTP/1.1\r\nHost: app.test\r\nCookie: a=b; c=d\r\n\r\n",
            b"POST /form HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\nname=some",
        ];
        for _ in 0..count {
            let at = self.sent % self.streams.len();
            let stream = &mut self.streams[at];
            stream.write_all(KINDS[self.sent % KINDS.len()]).unwrap();
            read_message(stream, &mut self.bytes).expect("an answer");
            assert!(self.bytes.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&self.bytes));
            self.sent += 1;
        }
    }
}

fn steady_requests_allocate_nothing(choice: Choice) {
    const WARM: usize = 200;
    const STEADY: usize = 500;
    let stand = Stand::new(choice);
    let mut client = Client::new(stand.front);
    client.requests(WARM);
    // A window with a tick is not judged. The log makes its few batches on first need, one perhaps within a window; what
    // a request costs is seen in every window.
    let mut judged = 0;
    for attempt in 0.. {
        stand.tick();
        let (ticks, before) = (stand.ticks(), stand.watch.count());
        stand.watch.curious.store(true, Ordering::Relaxed);
        client.requests(STEADY);
        let allocations = stand.watch.count() - before;
        stand.watch.curious.store(false, Ordering::Relaxed);
        if stand.ticks() == ticks {
            if allocations == 0 {
                break;
            }
            judged += 1;
            let seen = stand.watch.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            assert!(judged < 4, "{allocations} allocations in {STEADY} requests on {choice}; the first:\n{seen}");
        }
        assert!(attempt < 20, "{STEADY} requests take longer than a tick");
    }
    // The counter does count: a new connection is not for nothing.
    let before = stand.watch.count();
    Client::new(stand.front).requests(8);
    assert!(stand.watch.count() > before, "the worker's thread is not watched");
    drop(client);
    stand.drain();
}

#[test]
fn on_epoll() {
    steady_requests_allocate_nothing(Choice::Epoll);
}

#[test]
fn on_the_ring() {
    match choose(Io::Uring) {
        Ok((ring, _)) => steady_requests_allocate_nothing(ring),
        Err(steps) => println!("no ring here: {}", steps[0]),
    }
}
