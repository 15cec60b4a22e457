//! Recovery probes: connect, or ask for a path by HTTP, without ever waiting.
//!
//! A probe is `Connecting`, then (if it has a path) `Talking`: the request goes out as the socket takes it and the answer
//! is read until its status is known. Its end is one [`Outcome`]. How many are under way is the supervisor's to bound.

use crate::limits;
use crate::route::{BackendId, Endpoint};
use crate::supervisor::Probe;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// How a probe ended: good, or the reason why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whom it is about.
    pub backend: BackendId,
    /// `Err` says why for people.
    pub verdict: Result<(), String>,
}

/// All probes under way.
pub struct Probes {
    registry: Registry,
    first_token: usize,
    running: Slab<Running>,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

enum Phase {
    Connecting,
    Talking { answer: Vec<u8> },
}

struct Running {
    backend: BackendId,
    socket: Socket,
    /// Unsent bytes of the request; empty from the begin for a plain connect.
    request: Vec<u8>,
    phase: Phase,
    deadline: Instant,
    timeout_ms: u64,
}

impl Probes {
    /// Its sockets get tokens from `first_token` on.
    pub fn new(registry: Registry, first_token: usize) -> Probes {
        Probes { registry, first_token, running: Slab::new() }
    }

    /// Begins a probe; the outcome is returned if it has one at once.
    pub fn start(&mut self, probe: &Probe, now: Instant) -> Option<Outcome> {
        let failed = self.open(probe, now).err()?;
        Some(Outcome { backend: probe.backend, verdict: Err(failed.to_string()) })
    }

    /// Handles an event of one of its tokens.
    pub fn event(&mut self, token: Token) -> Option<Outcome> {
        let key = token.0.checked_sub(self.first_token)?;
        let verdict = self.running.get_mut(key)?.step()?;
        Some(self.end(key, verdict))
    }

    /// Ends the probes whose time is up.
    pub fn expire(&mut self, now: Instant) -> Vec<Outcome> {
        let late: Vec<usize> = self.running.iter().filter(|(_, r)| r.deadline <= now).map(|(key, _)| key).collect();
        let expired = late.into_iter().map(|key| {
            let what = match self.running[key].phase {
                Phase::Connecting => "connection",
                Phase::Talking { .. } => "answer",
            };
            let time = self.running[key].timeout_ms;
            self.end(key, Err(format!("no {what} within {time} ms")))
        });
        expired.collect()
    }

    /// When [`Probes::expire`] has work next.
    pub fn deadline(&self) -> Option<Instant> {
        self.running.iter().map(|(_, r)| r.deadline).min()
    }

    fn open(&mut self, probe: &Probe, now: Instant) -> io::Result<()> {
        let entry = self.running.vacant_entry();
        let token = Token(self.first_token + entry.key());
        let both = Interest::READABLE | Interest::WRITABLE;
        let (socket, host) = match &probe.endpoint {
            Endpoint::Ip(address) => {
                let mut socket = TcpStream::connect(*address)?;
                self.registry.register(&mut socket, token, both)?;
                (Socket::Tcp(socket), address.to_string())
            }
            Endpoint::Unix(path) => {
                let mut socket = UnixStream::connect(path)?;
                self.registry.register(&mut socket, token, both)?;
                (Socket::Unix(socket), "localhost".to_owned())
            }
        };
        let request = probe.path.as_ref().map_or_else(Vec::new, |path| request(path, &host));
        let (timeout_ms, backend) = (probe.timeout_ms, probe.backend);
        let deadline = now + Duration::from_millis(timeout_ms);
        entry.insert(Running { backend, socket, request, phase: Phase::Connecting, deadline, timeout_ms });
        Ok(())
    }

    fn end(&mut self, key: usize, verdict: Result<(), String>) -> Outcome {
        let mut running = self.running.remove(key);
        // Closing the socket takes it out of the poll as well; a failure here changes nothing.
        let _ = match &mut running.socket {
            Socket::Tcp(socket) => self.registry.deregister(socket),
            Socket::Unix(socket) => self.registry.deregister(socket),
        };
        Outcome { backend: running.backend, verdict }
    }
}

fn request(path: &str, host: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ringway-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

impl Running {
    /// Goes as far as the socket lets it; the verdict when there is one.
    fn step(&mut self) -> Option<Result<(), String>> {
        if matches!(self.phase, Phase::Connecting) {
            match self.socket.connected() {
                Ok(true) if self.request.is_empty() => return Some(Ok(())),
                Ok(true) => self.phase = Phase::Talking { answer: Vec::new() },
                Ok(false) => return None,
                Err(e) => return Some(Err(e.to_string())),
            }
        }
        let Phase::Talking { answer } = &mut self.phase else { return None };
        while !self.request.is_empty() {
            match self.socket.write(&self.request) {
                Ok(n) => drop(self.request.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Some(Err(e.to_string())),
            }
        }
        loop {
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes) {
                Ok(0) => return Some(Err("closed before a status line".into())),
                Ok(n) => answer.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Some(Err(e.to_string())),
            }
            match status(answer) {
                Status::Final(200..=399) => return Some(Ok(())),
                Status::Final(status) => return Some(Err(format!("status {status}"))),
                Status::Garbage => return Some(Err("the answer is not HTTP/1".into())),
                Status::Unfinished if answer.len() > limits::HEAD_BYTES_MAX => {
                    return Some(Err("the answer has no end".into()));
                }
                Status::Unfinished => {}
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Status {
    Unfinished,
    Final(u16),
    Garbage,
}

/// The status of the first final response at the front of `answer`; interim ones (1xx) are passed over.
fn status(mut answer: &[u8]) -> Status {
    loop {
        let fits = b"HTTP/1.".iter().zip(answer).all(|(want, got)| want == got);
        if !fits {
            return Status::Garbage;
        }
        let Some(line) = memchr::memchr(b'\n', answer).map(|end| &answer[..end]) else { return Status::Unfinished };
        let code = match line {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', a, b, c, rest @ ..]
                if matches!(rest.first(), None | Some(b' ' | b'\r'))
                    && [a, b, c].iter().all(|d| d.is_ascii_digit()) =>
            {
                [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'))
            }
            _ => return Status::Garbage,
        };
        if code / 100 != 1 {
            return Status::Final(code);
        }
        match memchr::memmem::find(answer, b"\r\n\r\n") {
            Some(end) => answer = &answer[end + 4..],
            None => return Status::Unfinished,
        }
    }
}

impl Socket {
    /// Whether the connection is made; `Ok(false)` while it is under way.
    fn connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Socket::Tcp(s) => (s.take_error()?, s.peer_addr().map(drop)),
            Socket::Unix(s) => (s.take_error()?, s.peer_addr().map(drop)),
        };
        match (error, peer) {
            (Some(e), _) => Err(e),
            (None, Ok(())) => Ok(true),
            (None, Err(e)) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            (None, Err(e)) => Err(e),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.read(bytes),
            Socket::Unix(s) => s.read(bytes),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.write(bytes),
            Socket::Unix(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    /// Runs probes to their ends. `limit` is real time; `skip` is added to the clock that the probes see.
    fn run(probes: Vec<Probe>, skip: Duration) -> Vec<Outcome> {
        let mut poll = mio::Poll::new().expect("a poll");
        let registry = poll.registry().try_clone().expect("a registry");
        let mut all = Probes::new(registry, 100);
        let (mut ended, count): (Vec<Outcome>, usize) = (Vec::new(), probes.len());
        for probe in &probes {
            ended.extend(all.start(probe, Instant::now()));
        }
        let mut events = mio::Events::with_capacity(64);
        let begin = Instant::now();
        while ended.len() < count {
            assert!(begin.elapsed() < Duration::from_secs(10), "probes end");
            poll.poll(&mut events, Some(Duration::from_millis(100))).expect("polled");
            for event in &events {
                ended.extend(all.event(event.token()));
            }
            if events.is_empty() {
                ended.extend(all.expire(Instant::now() + skip));
            }
        }
        assert_eq!(all.deadline(), None);
        assert!(all.running.is_empty());
        ended
    }

    fn probe(endpoint: Endpoint, path: Option<&str>) -> Probe {
        Probe { backend: BackendId(7), endpoint, path: path.map(str::to_owned), timeout_ms: 5000 }
    }

    /// A server that sends each piece of `answer` after reading the request's end.
    fn server(answer: &'static [&'static str]) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut bytes = [0; 100];
                let n = stream.read(&mut bytes).expect("read");
                request.extend_from_slice(&bytes[..n]);
            }
            let want = format!("GET /up?x HTTP/1.1\r\nHost: {address}\r\n");
            assert!(request.starts_with(want.as_bytes()));
            for piece in answer {
                stream.write_all(piece.as_bytes()).expect("sent");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Endpoint::Ip(address)
    }

    fn verdict(answer: &'static [&'static str]) -> Result<(), String> {
        run(vec![probe(server(answer), Some("/up?x"))], Duration::ZERO).remove(0).verdict
    }

    #[test]
    fn statuses_2xx_and_3xx_are_good() {
        assert_eq!(verdict(&["HTTP/1.1 200 OK\r\n"]), Ok(()));
        assert_eq!(verdict(&["HT", "TP/1.0 30", "2\r\n"]), Ok(()));
        assert_eq!(verdict(&["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n"]), Ok(()));
        assert_eq!(verdict(&["HTTP/1.1 503 No\r\n"]), Err("status 503".into()));
        assert_eq!(verdict(&["SSH-2.0\r\n"]), Err("the answer is not HTTP/1".into()));
        assert_eq!(verdict(&["HTTP/1.1 20x\r\n"]), Err("the answer is not HTTP/1".into()));
        assert_eq!(verdict(&["HTTP/1.1 2"]), Err("closed before a status line".into()));
    }

    #[test]
    fn a_connect_is_enough_without_a_path() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = Endpoint::Ip(listener.local_addr().expect("an address"));
        let dir = std::env::temp_dir().join(format!("ringway-probe-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let _unix = UnixListener::bind(&dir).expect("bound");
        let ended = run(vec![probe(there, None), probe(Endpoint::Unix(dir.clone()), None)], Duration::ZERO);
        assert!(ended.iter().all(|o| o.verdict == Ok(())), "{ended:?}");
        std::fs::remove_file(&dir).expect("removed");
        let ended = run(vec![probe(Endpoint::Unix(dir), None)], Duration::ZERO);
        assert!(ended[0].verdict.is_err());
    }

    #[test]
    fn a_refused_connect_is_not_good() {
        let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let ended = run(vec![probe(Endpoint::Ip(address), None)], Duration::ZERO);
        assert!(ended[0].verdict.as_ref().is_err_and(|why| why.contains("refused")), "{ended:?}");
    }

    #[test]
    fn a_silent_server_runs_out_of_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = Endpoint::Ip(listener.local_addr().expect("an address"));
        let many = vec![probe(there, Some("/")); 20];
        let ended = run(many, Duration::from_secs(6));
        assert!(ended.iter().all(|o| o.verdict.as_ref().is_err_and(|why| why.contains("within 5000 ms"))));
    }

    #[test]
    fn the_status_is_found_at_any_split() {
        let whole = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\n";
        for end in 0..whole.len() {
            assert_eq!(status(&whole[..end]), Status::Unfinished, "{end}");
        }
        assert_eq!(status(whole), Status::Final(404));
    }
}
