//! Scripted servers on raw sockets. A script runs once per connection, sees the bytes as they came and answers as badly as
//! it likes.

use crate::harness::eventually;
use crate::message::{self, Taken};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a script waits for bytes before the test is taken to have failed or ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Start line to empty line, byte for byte.
    pub head: Vec<u8>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The body as it stood on the wire.
    pub body_raw: Vec<u8>,
}

impl Recorded {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    pub fn line(&self) -> String {
        self.text().lines().next().unwrap_or_default().to_string()
    }

    pub fn target(&self) -> String {
        self.line().split(' ').nth(1).unwrap_or_default().to_string()
    }

    /// All values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<String> {
        message::fields(&self.head).into_iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v).collect()
    }

    /// The value of a field that must stand there at most once.
    pub fn one(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() < 2, "{name} stands there {} times: {}", all.len(), self.text());
        all.pop()
    }
}

struct Shared {
    requests: Mutex<Vec<Recorded>>,
    streams: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    ended: AtomicBool,
}

/// One connection, in the hands of a script.
pub struct OriginConn {
    stream: TcpStream,
    ahead: Vec<u8>,
    shared: Arc<Shared>,
}

/// A server that ends with the test.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Origin {
    /// Runs `script` for each connection.
    pub fn new(script: impl Fn(&mut OriginConn) + Send + Sync + 'static) -> Origin {
        Origin::at("127.0.0.1:0".parse().expect("an address"), script)
    }

    /// The same, at a chosen address.
    pub fn at(address: SocketAddr, script: impl Fn(&mut OriginConn) + Send + Sync + 'static) -> Origin {
        let listener = bind(address);
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            streams: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let script = Arc::new(script);
        let mine = shared.clone();
        let accept = move || {
            for stream in listener.incoming() {
                if mine.ended.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                mine.connections.fetch_add(1, Ordering::SeqCst);
                mine.open.fetch_add(1, Ordering::SeqCst);
                mine.streams.lock().expect("streams").push(stream.try_clone().expect("dup"));
                let (script, shared) = (script.clone(), mine.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.set_write_timeout(Some(PATIENCE));
                    let count = shared.clone();
                    let mut conn = OriginConn { stream, ahead: Vec::new(), shared };
                    script(&mut conn);
                    // The clone kept for the end of the test must not hold the connection open.
                    let _ = conn.stream.shutdown(Shutdown::Both);
                    count.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        };
        let acceptor = Some(std::thread::spawn(accept));
        Origin { address, shared, acceptor }
    }

    /// Answers every request with 200 and this body, keep-alive.
    pub fn saying(body: &str) -> Origin {
        let answer = ok(body);
        Origin::new(move |c| c.serve(|_| Some(answer.clone())))
    }

    /// The same at a chosen address.
    pub fn saying_at(address: SocketAddr, body: &str) -> Origin {
        let answer = ok(body);
        Origin::at(address, move |c| c.serve(|_| Some(answer.clone())))
    }

    /// Answers every request with exactly these bytes, keep-alive.
    pub fn fixed(answer: impl Into<Vec<u8>>) -> Origin {
        let answer: Vec<u8> = answer.into();
        Origin::new(move |c| c.serve(|_| Some(answer.clone())))
    }

    /// Answers the first request of each connection with exactly these bytes, then closes.
    pub fn once(answer: impl Into<Vec<u8>>) -> Origin {
        let answer: Vec<u8> = answer.into();
        Origin::new(move |c| {
            if c.request().is_some() {
                // Answer and FIN leave in one segment, so that nobody can use the connection between the two.
                c.cork();
                c.send(&answer);
                c.fin_and_wait();
            }
        })
    }

    /// Answers with the request's body, by Content-Length.
    pub fn echo() -> Origin {
        Origin::new(|c| {
            c.serve(|r| {
                let n = r.body.len();
                let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n").into_bytes();
                bytes.extend_from_slice(&r.body);
                Some(bytes)
            })
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().expect("requests").clone()
    }

    /// The latest request.
    pub fn last(&self) -> Recorded {
        self.requests().pop().expect("a request came")
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections whose script runs.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until that many requests have come.
    pub fn wait_requests(&self, n: usize) {
        eventually(Duration::from_secs(10), &format!("{n} requests at the origin"), || {
            self.shared.requests.lock().expect("requests").len() >= n
        });
    }

    /// Waits until no script runs any more: the proxy has closed its connections.
    pub fn wait_all_closed(&self, at_most: Duration) {
        eventually(at_most, "the proxy closes its connections", || self.open() == 0);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in self.shared.streams.lock().expect("streams").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A child that another test has forked but that has not yet run exec holds a copy of every descriptor, also of a listener
/// that was just closed here; so a busy address is asked for again.
fn bind(address: SocketAddr) -> TcpListener {
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(e) => assert!(Instant::now() < until, "bind an origin to {address}: {e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A complete 200 with this body.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl OriginConn {
    /// Serves requests one after the other until the peer closes or the answer is `None`.
    pub fn serve(&mut self, answer: impl Fn(&Recorded) -> Option<Vec<u8>>) {
        while let Some(request) = self.request() {
            match answer(&request) {
                Some(bytes) => {
                    if !self.send(&bytes) {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    fn more(&mut self) -> bool {
        let mut buf = [0u8; 16 * 1024];
        loop {
            match self.stream.read(&mut buf) {
                Ok(n) => {
                    self.ahead.extend_from_slice(&buf[..n]);
                    return n > 0;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Reads one head; recorded at once with an empty body. `None`: the peer is gone.
    pub fn head(&mut self) -> Option<Recorded> {
        let head = self.take_head()?;
        Some(self.record(Recorded { head, body: Vec::new(), body_raw: Vec::new() }))
    }

    /// Reads one request to the end of its body and records it. `None`: the peer is gone before that.
    pub fn request(&mut self) -> Option<Recorded> {
        let head = self.take_head()?;
        let (body, body_raw) = self.body_of(&head)?;
        Some(self.record(Recorded { head, body, body_raw }))
    }

    fn record(&self, recorded: Recorded) -> Recorded {
        self.shared.requests.lock().expect("requests").push(recorded.clone());
        recorded
    }

    fn take_head(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = message::head_end(&self.ahead) {
                return Some(self.ahead.drain(..at).collect());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads the body that belongs to this head: without its framing, and as it stood on the wire. `None`: the peer is gone
    /// before its end.
    pub fn body_of(&mut self, head: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let framing = message::request_framing(head);
        loop {
            match message::take_body(&self.ahead, framing) {
                Taken::All { body, used } => return Some((body, self.ahead.drain(..used).collect())),
                Taken::More => {
                    if !self.more() {
                        return None;
                    }
                }
                Taken::Wrong(why) => panic!("the proxy sent a wrong body: {why}"),
            }
        }
    }

    /// Reads and drops `n` bytes; false if fewer came.
    pub fn swallow(&mut self, n: usize) -> bool {
        while self.ahead.len() < n {
            if !self.more() {
                return false;
            }
        }
        self.ahead.drain(..n);
        true
    }

    /// Reads until at least one byte is there and gives all that is there; empty: the peer is gone.
    pub fn some(&mut self) -> Vec<u8> {
        if self.ahead.is_empty() {
            self.more();
        }
        std::mem::take(&mut self.ahead)
    }

    /// Sends; false if the peer is gone.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Holds back what is sent until FIN.
    pub fn cork(&mut self) {
        let on = 1i32;
        let (value, size) = ((&raw const on).cast(), size_of::<i32>() as u32);
        unsafe { libc::setsockopt(self.stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CORK, value, size) };
    }

    /// FIN, then waits until the peer has closed too.
    pub fn fin_and_wait(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        while self.more() {}
    }

    /// FIN only.
    pub fn fin(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// RST, at once.
    pub fn reset(&mut self) {
        message::reset(self.stream.as_raw_fd());
    }

    /// Waits for the peer's FIN or RST without answering; false if it did not come in time.
    pub fn wait_gone(&mut self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(50)));
        let mut buf = [0u8; 4096];
        while Instant::now() < until {
            match self.stream.read(&mut buf) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return true,
            }
        }
        false
    }

    /// Reads on until the connection ends; whether a reset ended it. `false`, too, if it does not end in time.
    pub fn wait_reset(&mut self, at_most: Duration) -> bool {
        let _ = self.stream.set_read_timeout(Some(at_most));
        let mut buf = [0u8; 4096];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => return e.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    /// Waits.
    pub fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.shared.ended.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
