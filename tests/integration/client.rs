//! A raw client: sends exactly the bytes it is told to, reads responses strictly, never waits for ever.

use crate::harness::{Ringway, lossy, millis, seconds};
use crate::message::{self, Framing, Taken};
use crate::toy::{self, ToyWire};
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A byte stream to the proxy. A transforming codec ([`ToyWire`]) can stand between this and the socket.
pub trait Wire: Read + Write + Send {
    fn set_wait(&self, time: Duration) -> Result<()>;
    fn end_writing(&mut self) -> Result<()>;
    fn reset(&mut self);
}

impl Wire for TcpStream {
    fn set_wait(&self, time: Duration) -> Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }

    fn end_writing(&mut self) -> Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn reset(&mut self) {
        message::reset(self.as_raw_fd());
    }
}

impl Wire for UnixStream {
    fn set_wait(&self, time: Duration) -> Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }

    fn end_writing(&mut self) -> Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn reset(&mut self) {}
}

fn connect(address: SocketAddr) -> Box<dyn Wire> {
    let stream = TcpStream::connect_timeout(&address, seconds(5)).expect("connect to the proxy");
    let _ = stream.set_nodelay(true);
    Box::new(stream)
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
    StillOpen,
}

/// A response, read strictly.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: Vec<u8>,
    pub framing: Framing,
    pub body: Vec<u8>,
    /// The body as it stood on the wire, trailers included.
    pub body_raw: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        lossy(&self.body)
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        let fields = message::fields(&self.head);
        fields.into_iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|f| f.1).collect()
    }

    pub fn one(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() < 2, "{name} more than once: {}", lossy(&self.head));
        all.pop()
    }

    /// Whether it says that the connection ends.
    pub fn says_close(&self) -> bool {
        self.all("connection").iter().any(|v| v.to_ascii_lowercase().contains("close"))
    }
}

/// One connection to the proxy.
pub struct Client {
    wire: Box<dyn Wire>,
    ahead: Vec<u8>,
}

impl Client {
    pub fn to(ringway: &Ringway) -> Client {
        Client::at(ringway.address)
    }

    pub fn at(address: SocketAddr) -> Client {
        Client::talking(connect(address))
    }

    pub fn unix(path: &Path) -> Client {
        Client::talking(Box::new(UnixStream::connect(path).expect("connect to a Unix listener")))
    }

    /// In clear text, or in the toy's records where that is switched on.
    fn talking(wire: Box<dyn Wire>) -> Client {
        Client::over(if toy::is_on() { Box::new(ToyWire::new(wire)) } else { wire })
    }

    /// Over this very wire.
    pub fn over(wire: Box<dyn Wire>) -> Client {
        wire.set_wait(seconds(15)).expect("timeouts");
        Client { wire, ahead: Vec::new() }
    }

    /// Sends all of it; a proxy that closes meanwhile is a fault.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.try_send(bytes).expect("send to the proxy");
        self
    }

    /// Sends all of it, if the proxy lets us.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.wire.write_all(bytes.as_ref())
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        self.response()
    }

    pub fn post(&mut self, path: &str, body: &str) -> Response {
        let n = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {n}\r\n\r\n");
        self.send(head + body);
        self.response()
    }

    /// The next final response to a GET or POST.
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// The next final response; interim ones are a fault.
    pub fn response_to(&mut self, method: &str) -> Response {
        let response = self.any_response(method);
        assert!(response.status >= 200, "an interim response: {}", lossy(&response.head));
        response
    }

    /// The next response, also an interim one.
    pub fn any_response(&mut self, method: &str) -> Response {
        let head = self.head_of(method);
        self.body_behind(head)
    }

    /// The response of which the head was read, with its body.
    pub fn body_behind(&mut self, mut response: Response) -> Response {
        loop {
            match message::take_body(&self.ahead, response.framing) {
                Taken::All { body, used } => {
                    response.body_raw = self.ahead.drain(..used).collect();
                    response.body = body;
                    return response;
                }
                Taken::Wrong(why) => panic!("{why} in a response: {}", lossy(&self.ahead)),
                Taken::More => match self.more() {
                    Ok(0) if response.framing == Framing::UntilClose => {
                        response.body = std::mem::take(&mut self.ahead);
                        response.body_raw = response.body.clone();
                        return response;
                    }
                    Ok(0) => panic!("the response ends too early: {}", lossy(&response.head)),
                    Ok(_) => {}
                    Err(e) => panic!("{e} in a response body, {} bytes so far", self.ahead.len()),
                },
            }
        }
    }

    /// The head of the next response; its body stays to be read.
    pub fn head_of(&mut self, method: &str) -> Response {
        let at = loop {
            if let Some(at) = message::head_end(&self.ahead) {
                break at;
            }
            match self.more() {
                Ok(0) => panic!("closed before a response, after {:?}", lossy(&self.ahead)),
                Ok(_) => {}
                Err(e) => panic!("{e} before a response, after {:?}", lossy(&self.ahead)),
            }
        };
        let head: Vec<u8> = self.ahead.drain(..at).collect();
        let line = lossy(&head).lines().next().unwrap_or_default().to_string();
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .filter(|rest| rest.as_bytes().get(3) == Some(&b' '))
            .and_then(|rest| rest[..3].parse().ok())
            .unwrap_or_else(|| panic!("no status line: {line:?}"));
        let framing = message::response_framing(&head, method, status);
        Response { status, head, framing, body: Vec::new(), body_raw: Vec::new() }
    }

    fn more(&mut self) -> Result<usize> {
        let mut buf = vec![0u8; 64 * 1024];
        let n = loop {
            match self.wire.read(&mut buf) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.ahead.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    /// Receives until these bytes are there, and leaves them to be read; false if the connection ends before that.
    pub fn wait_for(&mut self, bytes: &[u8]) -> bool {
        while !self.ahead.windows(bytes.len()).any(|at| at == bytes) {
            if !matches!(self.more(), Ok(n) if n > 0) {
                return false;
            }
        }
        true
    }

    /// At least `n` raw bytes from the stream.
    pub fn raw(&mut self, n: usize) -> Vec<u8> {
        while self.ahead.len() < n {
            assert!(self.more().expect("raw bytes") > 0, "closed after {:?}", lossy(&self.ahead));
        }
        self.ahead.drain(..n).collect()
    }

    /// Everything until the end of the connection, and how it ended.
    pub fn rest(&mut self, at_most: Duration) -> (Vec<u8>, End) {
        let until = Instant::now() + at_most;
        let end = loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break End::StillOpen;
            }
            self.wire.set_wait(left.max(millis(1))).expect("a timeout");
            match self.more() {
                Ok(0) => break End::Fin,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break End::Reset,
            }
        };
        self.wire.set_wait(seconds(15)).expect("a timeout");
        (std::mem::take(&mut self.ahead), end)
    }

    /// The connection is closed in order, and nothing comes before that.
    pub fn closed(&mut self) {
        let (bytes, end) = self.rest(seconds(8));
        assert_eq!((lossy(&bytes), end), (String::new(), End::Fin));
    }

    /// Nothing comes, and the connection stays open.
    pub fn silent(&mut self, time: Duration) {
        let (bytes, end) = self.rest(time);
        assert_eq!((lossy(&bytes), end), (String::new(), End::StillOpen));
    }

    pub fn fin(&mut self) {
        self.wire.end_writing().expect("FIN");
    }

    pub fn reset(mut self) {
        self.wire.reset();
    }
}

/// One GET on a connection of its own.
pub fn get(ringway: &Ringway, path: &str) -> Response {
    Client::to(ringway).get(path)
}

/// One GET for a host on a connection of its own.
pub fn get_host(ringway: &Ringway, host: &str, path: &str) -> Response {
    let mut client = Client::to(ringway);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.response()
}

/// One request as raw bytes on a connection of its own; its response.
pub fn ask(ringway: &Ringway, request: impl AsRef<[u8]>) -> Response {
    let mut client = Client::to(ringway);
    client.send(request);
    client.response()
}
