//! Probes: connect, or ask by HTTP, without ever waiting.
//!
//! A probe is `Connecting`, then (if it has a request) `Talking`: the request goes out as the socket takes it and the answer
//! is read until it is known to be good or bad (`probe_answer`). Its end is one [`Outcome`]. How many are under way is the
//! supervisor's to bound.

use super::probe_answer::Reading;
use crate::route::Endpoint;
use crate::route::health_policy::ProbeRequest;
use crate::supervisor::{Probe, ProbeId};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whose verdict it is.
    pub id: ProbeId,
    /// Good or bad, and what was found, for people.
    pub verdict: Result<String, String>,
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

struct Running {
    id: ProbeId,
    socket: Socket,
    /// Unsent bytes of the request; empty from the begin for a plain connect.
    request: Vec<u8>,
    connected: bool,
    /// `None`: a connection is enough.
    answer: Option<Reading>,
    deadline: Instant,
    timeout_s: u32,
}

impl Probes {
    /// Its sockets get tokens from `first_token` on.
    pub fn new(registry: Registry, first_token: usize) -> Probes {
        Probes { registry, first_token, running: Slab::new() }
    }

    /// Begins a probe; the outcome is returned if it has one at once.
    pub fn start(&mut self, probe: &Probe, now: Instant) -> Option<Outcome> {
        let failed = self.open(probe, now).err()?;
        Some(Outcome { id: probe.id, verdict: Err(failed.to_string()) })
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
            let running = &self.running[key];
            let what = if running.connected { "answer" } else { "connection" };
            let why = format!("no {what} within {} s", running.timeout_s);
            self.end(key, Err(why))
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
        let request = probe.spec.request.as_ref();
        entry.insert(Running {
            id: probe.id,
            socket,
            request: request.map_or_else(Vec::new, |request| bytes_of(request, &host)),
            connected: false,
            answer: request.map(Reading::new),
            deadline: now + Duration::from_secs(probe.spec.timeout.into()),
            timeout_s: probe.spec.timeout,
        });
        Ok(())
    }

    fn end(&mut self, key: usize, verdict: Result<String, String>) -> Outcome {
        let mut running = self.running.remove(key);
        // Closing the socket takes it out of the poll as well; a failure here changes nothing.
        let _ = match &mut running.socket {
            Socket::Tcp(socket) => self.registry.deregister(socket),
            Socket::Unix(socket) => self.registry.deregister(socket),
        };
        Outcome { id: running.id, verdict }
    }
}

/// The request as it goes out: it says who asks, and that nothing follows.
fn bytes_of(request: &ProbeRequest, address: &str) -> Vec<u8> {
    let ProbeRequest { method, path, host, headers, .. } = request;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", host.as_deref().unwrap_or(address));
    let given = |name: &str| headers.keys().any(|n| n.eq_ignore_ascii_case(name));
    let own = [("User-Agent", concat!("ringway/", env!("CARGO_PKG_VERSION"), " probe")), ("Accept", "*/*")];
    let own = own.into_iter().filter(|(name, _)| !given(name));
    for (name, value) in own.chain(headers.iter().map(|(n, v)| (n.as_str(), v.as_str()))) {
        text += &format!("{name}: {value}\r\n");
    }
    text += "Connection: close\r\n\r\n";
    text.into_bytes()
}

impl Running {
    /// Goes as far as the socket lets it; the verdict when there is one.
    fn step(&mut self) -> Option<Result<String, String>> {
        if !self.connected {
            match self.socket.connected() {
                Ok(connected) => self.connected = connected,
                Err(e) => return Some(Err(e.to_string())),
            }
        }
        if !self.connected {
            return None;
        }
        let Some(answer) = &mut self.answer else { return Some(Ok("connected".to_owned())) };
        while !self.request.is_empty() {
            match self.socket.write(&self.request) {
                Ok(n) => drop(self.request.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // What it has said before it closed may be an answer.
                Err(_) => self.request.clear(),
            }
        }
        loop {
            let mut bytes = [0; 4096];
            let verdict = match self.socket.read(&mut bytes) {
                Ok(0) => Some(answer.ended()),
                Ok(n) => answer.take(&bytes[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Some(Err(e.to_string())),
            };
            if verdict.is_some() {
                return verdict;
            }
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
    use crate::route::health_policy::ProbeSpec;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

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
        let spec = ProbeSpec { timeout: 5, request: path.map(ProbeRequest::get) };
        Probe { id: ProbeId(7), endpoint, spec: Arc::new(spec) }
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
            let version = env!("CARGO_PKG_VERSION");
            let want = format!(
                "GET /up?x HTTP/1.1\r\nHost: {address}\r\nUser-Agent: ringway/{version} probe\r\nAccept: */*\r\n\
                 Connection: close\r\n\r\n"
            );
            assert_eq!(String::from_utf8_lossy(&request), want);
            for piece in answer {
                stream.write_all(piece.as_bytes()).expect("sent");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Endpoint::Ip(address)
    }

    #[test]
    fn the_answer_decides_however_it_comes() {
        let verdict = |answer| run(vec![probe(server(answer), Some("/up?x"))], Duration::ZERO).remove(0).verdict;
        assert_eq!(verdict(&["HT", "TP/1.0 30", "2\r\n"]), Ok("status 302".into()));
        assert_eq!(verdict(&["HTTP/1.1 503 No\r\n"]), Err("status 503".into()));
        assert_eq!(verdict(&["HTTP/1.1 2"]), Err("closed before a status line".into()));
    }

    #[test]
    fn the_operators_fields_go_out_and_replace_ringways() {
        let request = ProbeRequest {
            method: "HEAD".into(),
            host: Some("app.io".into()),
            headers: [("X-A".into(), "1".into()), ("user-agent".into(), "me".into())].into(),
            ..ProbeRequest::get("/")
        };
        let text = String::from_utf8(bytes_of(&request, "10.0.0.1:80")).expect("text");
        let want =
            "HEAD / HTTP/1.1\r\nHost: app.io\r\nAccept: */*\r\nX-A: 1\r\nuser-agent: me\r\nConnection: close\r\n\r\n";
        assert_eq!(text, want);
    }

    #[test]
    fn a_connect_is_enough_without_a_path() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = Endpoint::Ip(listener.local_addr().expect("an address"));
        let dir = std::env::temp_dir().join(format!("ringway-probe-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let _unix = UnixListener::bind(&dir).expect("bound");
        let ended = run(vec![probe(there, None), probe(Endpoint::Unix(dir.clone()), None)], Duration::ZERO);
        assert!(ended.iter().all(|o| o.verdict == Ok("connected".into())), "{ended:?}");
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
        assert!(ended.iter().all(|o| o.verdict.as_ref().is_err_and(|why| why.contains("within 5 s"))));
    }
}
