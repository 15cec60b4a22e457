//! What a test of the contract needs beside the net itself: listeners, peers that misbehave, and time.

use ringway::config::Io;
use ringway::limits;
use ringway::route::Endpoint;
use ringway::worker::net::driver;
use ringway::worker::net::mem::{Counts, Fault, Mem, MemListener, MemStream, Weather};
use ringway::worker::net::os::{Bell, Os, OsListener, OsStream};
use ringway::worker::net::{Net, Stream, listen};
use socket2::{Domain, SockRef, Socket, Type};
use std::cell::Cell;
use std::future::Future;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

/// Which address family a test uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Tcp,
    Unix,
}

/// One implementation, set up for one test.
pub trait Fixture: Clone + 'static {
    type Net: Net;
    /// The net under test.
    fn net(&self) -> &Self::Net;
    /// A listener with room for many connections, and where it is.
    fn listen(&self, family: Family) -> (<Self::Net as Net>::Listener, Endpoint);
    /// A Unix listener whose queue is full.
    fn full_unix(&self) -> (Box<dyn std::any::Any>, Endpoint);
    /// An address where nobody listens.
    fn nobody(&self, family: Family) -> Endpoint;
    /// An address that answers no connect, as long as the guard lives.
    fn silent(&self) -> (Box<dyn std::any::Any>, Endpoint);
    /// Closes with a reset.
    fn reset(&self, stream: <Self::Net as Net>::Stream);
    /// Lets time pass.
    async fn sleep_ms(&self, ms: u64);
    /// Stops the core for a while.
    fn stall_ms(&self, ms: u64);
    /// Rings the core's doorbell, from another thread where there is one.
    fn ring(&self);
    /// Descriptors (or simulated streams) that are open.
    fn held(&self) -> usize;
    /// Leaves room for this many more descriptors; none to take the limit away.
    fn limit(&self, more: Option<usize>);
}

/// The real net.
#[derive(Clone)]
pub struct OsFixture {
    pub os: Os,
    bell: Bell,
    began: std::rc::Rc<Began>,
}

struct Began {
    sockets: Cell<u32>,
    hoard: std::cell::RefCell<Vec<OwnedFd>>,
    nofile: Cell<Option<libc::rlimit>>,
}

impl Began {
    fn path(n: u32) -> PathBuf {
        std::env::temp_dir().join(format!("ringway-net-{}-{n}.sock", std::process::id()))
    }
}

impl Drop for Began {
    fn drop(&mut self) {
        for n in 0..self.sockets.get() {
            let _ = std::fs::remove_file(Began::path(n));
        }
    }
}

impl OsFixture {
    fn path(&self) -> PathBuf {
        let n = self.began.sockets.get();
        self.began.sockets.set(n + 1);
        Began::path(n)
    }
}

fn open_descriptors() -> Vec<i32> {
    let names = std::fs::read_dir("/proc/self/fd").unwrap();
    names.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect()
}

impl Fixture for OsFixture {
    type Net = Os;

    fn net(&self) -> &Os {
        &self.os
    }

    fn listen(&self, family: Family) -> (OsListener, Endpoint) {
        let (fd, endpoint) = match family {
            Family::Tcp => {
                let fd = listen::tcp("127.0.0.1:0".parse().unwrap(), true).unwrap();
                let address = listen::address_of(&fd).unwrap();
                (fd, Endpoint::Ip(address))
            }
            Family::Unix => {
                let path = self.path();
                let _ = std::fs::remove_file(&path);
                (listen::unix(&path).unwrap(), Endpoint::Unix(path))
            }
        };
        (self.os.listener(fd).unwrap(), endpoint)
    }

    fn full_unix(&self) -> (Box<dyn std::any::Any>, Endpoint) {
        let path = self.path();
        let _ = std::fs::remove_file(&path);
        let address = socket2::SockAddr::unix(&path).unwrap();
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&address).unwrap();
        listener.listen(0).unwrap();
        let client = || Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
        let mut clients = vec![client()];
        while clients.last().unwrap().connect(&address).is_ok() {
            clients.push(client());
        }
        (Box::new((listener, clients)), Endpoint::Unix(path))
    }

    fn nobody(&self, family: Family) -> Endpoint {
        // Bound and let go: the port stays free for a while.
        self.listen(family).1
    }

    fn silent(&self) -> (Box<dyn std::any::Any>, Endpoint) {
        // A full queue drops every further handshake.
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queued.push(stream);
        }
        (Box::new((listener, queued)), Endpoint::Ip(address))
    }

    fn reset(&self, stream: OsStream) {
        // SAFETY: the stream is open until the next line.
        let fd = unsafe { BorrowedFd::borrow_raw(stream.handle().0) };
        SockRef::from(&fd).set_linger(Some(Duration::ZERO)).unwrap();
        stream.close();
    }

    async fn sleep_ms(&self, ms: u64) {
        let (mut there, here) = UnixStream::pair().unwrap();
        let sleeper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(ms));
            there.write_all(b".").unwrap();
        });
        self.os.stream(here.into()).unwrap().readable().await.unwrap();
        sleeper.join().unwrap();
    }

    fn stall_ms(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn ring(&self) {
        let bell = self.bell.clone();
        std::thread::spawn(move || bell.ring()).join().unwrap();
    }

    fn held(&self) -> usize {
        open_descriptors().len()
    }

    fn limit(&self, more: Option<usize>) {
        let set = |limit: &libc::rlimit| {
            // SAFETY: a valid rlimit.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) }, 0);
        };
        let Some(more) = more else {
            self.began.hoard.borrow_mut().clear();
            set(&self.began.nofile.take().expect("a limit was set"));
            return;
        };
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a valid rlimit.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut now) };
        self.began.nofile.set(Some(now));
        let one = std::fs::File::open("/dev/null").unwrap();
        let highest = open_descriptors().into_iter().max().unwrap().max(one.as_raw_fd());
        set(&libc::rlimit { rlim_cur: highest as u64 + 1 + more as u64, ..now });
        // The holes below the highest one are filled.
        let mut hoard = self.began.hoard.borrow_mut();
        while let Ok(copy) = one.try_clone() {
            hoard.push(copy.into());
        }
        drop(one);
        let left = hoard.len() + 1 - more;
        hoard.truncate(left);
    }
}

/// Real descriptors are counted and limited in these tests, so one runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn on_os<F: Future<Output = ()> + 'static>(io: Io, test: impl FnOnce(OsFixture) -> F + Send + 'static) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let choice = match driver::choose(io) {
        Ok((choice, _)) => choice,
        Err(steps) => return eprintln!("no ring on this machine: {}", steps[0]),
    };
    let (done, wait) = mpsc::channel();
    let core = std::thread::spawn(move || {
        let bell = Bell::new().unwrap();
        let ran = driver::run(choice, bell.clone(), move |os| {
            let began = Began { sockets: Cell::new(0), hoard: Default::default(), nofile: Cell::new(None) };
            test(OsFixture { os, bell, began: began.into() })
        });
        ran.unwrap();
        let _ = done.send(());
    });
    // A test that hangs fails: its thread is left behind.
    match wait.recv_timeout(Duration::from_secs(20)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs"),
        _ => {
            if let Err(panic) = core.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Runs a test on the ring; where the machine has none there is nothing to test.
pub fn on_ring<F: Future<Output = ()> + 'static>(test: impl FnOnce(OsFixture) -> F + Send + 'static) {
    on_os(Io::Uring, test);
}

/// Runs a test on epoll.
pub fn on_epoll<F: Future<Output = ()> + 'static>(test: impl FnOnce(OsFixture) -> F + Send + 'static) {
    on_os(Io::Epoll, test);
}

/// The net in memory.
#[derive(Clone)]
pub struct MemFixture(pub Mem);

impl MemFixture {
    fn endpoint(&self, family: Family) -> Endpoint {
        let n = self.0.seed();
        match family {
            Family::Tcp => Endpoint::Ip(([127, 0, (n >> 8) as u8, n as u8], (n >> 16) as u16).into()),
            Family::Unix => Endpoint::Unix(format!("/{n}").into()),
        }
    }
}

impl Fixture for MemFixture {
    type Net = Mem;

    fn net(&self) -> &Mem {
        &self.0
    }

    fn listen(&self, family: Family) -> (MemListener, Endpoint) {
        let endpoint = self.endpoint(family);
        (self.0.listen(&endpoint), endpoint)
    }

    fn full_unix(&self) -> (Box<dyn std::any::Any>, Endpoint) {
        // Another simulation's listener would do nothing here, so the queue is filled by connections that nobody takes.
        let (listener, endpoint) = self.listen(Family::Unix);
        for _ in 0..limits::LISTEN_BACKLOG {
            let (mem, to) = (self.0.clone(), endpoint.clone());
            self.0.spawn(async move {
                let stream = mem.connect(&to, |_| {}).await;
                mem.sleep_us(60_000_000).await;
                drop(stream);
            });
        }
        (Box::new(listener), endpoint)
    }

    fn nobody(&self, family: Family) -> Endpoint {
        self.endpoint(family)
    }

    fn silent(&self) -> (Box<dyn std::any::Any>, Endpoint) {
        let (listener, endpoint) = self.listen(Family::Tcp);
        self.0.fault(&endpoint, Fault { blackhole: true, ..Fault::default() });
        (Box::new(listener), endpoint)
    }

    fn reset(&self, stream: MemStream) {
        self.0.reset(stream);
    }

    async fn sleep_ms(&self, ms: u64) {
        self.0.sleep_us(ms * 1000).await;
    }

    fn stall_ms(&self, ms: u64) {
        self.0.stall_us(ms * 1000);
    }

    fn ring(&self) {
        self.0.ring();
    }

    fn held(&self) -> usize {
        self.0.counts().streams
    }

    fn limit(&self, more: Option<usize>) {
        self.0.limit_streams(more.map_or(usize::MAX, |more| self.held() + more));
    }
}

/// Runs a test in memory: with many seeds, in fair weather and foul, each twice, which must not differ. Nothing may be
/// left and no stale handle used.
pub fn on_mem<F: Future<Output = ()> + 'static>(test: impl Fn(MemFixture) -> F) {
    let foul = Weather { late_once_in: 2, late_us: 10_000, latency_us: 3000, pipe_bytes: 700, ..Weather::default() };
    let fair = Weather { short: false, late_once_in: 0, pipe_bytes: 1 << 20, ..Weather::default() };
    for seed in 0..12 {
        for weather in [Weather::default(), foul.clone(), fair.clone()] {
            let run = || {
                let mem = Mem::with(seed, weather.clone());
                mem.run(test(MemFixture(mem.clone())));
                mem.run(mem.sleep_us(100_000_000));
                let left = Counts { bytes_lost: 0, ..mem.finish() };
                assert_eq!(left, Counts::default(), "seed {seed}");
                mem.trace()
            };
            assert_eq!(run(), run(), "seed {seed}");
        }
    }
}
