//! A toy transport that changes every byte: sealed records in place of clear text. It shows that nothing in a session
//! depends on the socket's own bytes: the stream may be one that transforms, cannot splice, and reads ahead.
//!
//! A record is a length of two bytes (big-endian) and as many bytes, at most 16 KiB, each XORed with a key stream that
//! runs on from record to record, so that a lost or repeated byte garbles all that follows. The end of the stream is the
//! transport's end between two records; inside a record it is a fault.

use crate::client::{Client, End, Wire};
use crate::harness::{Driver, Ringway, lossy, millis, on_both_drivers, seconds};
use crate::origin::Origin;
use crate::upgrade;
use std::io::{self, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// Set to 1, it makes every proxy and every client of this binary's tests speak in records.
const SWITCH: &str = "RINGWAY_TOY";

/// Bytes of a record before its payload.
pub const HEAD: usize = 2;
/// Most bytes of payload in a record.
pub const PAYLOAD_MAX: usize = 16 * 1024;

const KEY: [u8; 11] = [0x5A, 0xC3, 0x0F, 0x91, 0x77, 0xE8, 0x2D, 0xB4, 0x66, 0x1B, 0xD0];

/// Whether the proxies and clients of this process speak in records.
pub fn is_on() -> bool {
    std::env::var_os(SWITCH).is_some_and(|value| value == "1")
}

/// The key stream of one direction.
#[derive(Default)]
struct Key(usize);

impl Key {
    fn apply(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= KEY[self.0];
            self.0 = (self.0 + 1) % KEY.len();
        }
    }
}

/// Makes records of one direction.
#[derive(Default)]
pub struct Sealer(Key);

impl Sealer {
    /// Appends the record of a payload.
    pub fn seal(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        assert!((1..=PAYLOAD_MAX).contains(&payload.len()));
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        let at = out.len();
        out.extend_from_slice(payload);
        self.0.apply(&mut out[at..]);
    }

    fn record(&mut self, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        self.seal(payload.as_ref(), &mut out);
        out
    }
}

/// Opens records of one direction: one at a time and only whole ones; what has come behind it stays sealed.
#[derive(Default)]
pub struct Opener {
    key: Key,
    sealed: Vec<u8>,
    /// The payload of one record, and how much of it was taken.
    open: Vec<u8>,
    taken: usize,
}

impl Opener {
    /// Takes what has come.
    pub fn feed(&mut self, sealed: &[u8]) {
        self.sealed.extend_from_slice(sealed);
    }

    /// Whether there is payload to take; opens the next record if it is whole.
    pub fn is_ready(&mut self) -> Result<bool> {
        if self.taken < self.open.len() {
            return Ok(true);
        }
        let Some(head) = self.sealed.first_chunk::<HEAD>() else { return Ok(false) };
        let len = usize::from(u16::from_be_bytes(*head));
        if !(1..=PAYLOAD_MAX).contains(&len) {
            return Err(ErrorKind::InvalidData.into());
        }
        if self.sealed.len() < HEAD + len {
            return Ok(false);
        }
        self.open.clear();
        self.taken = 0;
        self.open.extend_from_slice(&self.sealed[HEAD..HEAD + len]);
        self.sealed.drain(..HEAD + len);
        self.key.apply(&mut self.open);
        Ok(true)
    }

    /// Takes at most so many bytes of payload.
    pub fn take(&mut self, most: usize) -> &[u8] {
        let from = self.taken;
        self.taken += most.min(self.open.len() - from);
        &self.open[from..self.taken]
    }

    /// What an end of the transport means now.
    pub fn end(&self) -> std::result::Result<(), ErrorKind> {
        if self.sealed.is_empty() { Ok(()) } else { Err(ErrorKind::UnexpectedEof) }
    }
}

/// The client's side: records over any wire.
pub struct ToyWire {
    inner: Box<dyn Wire>,
    opener: Opener,
    sealer: Sealer,
}

impl ToyWire {
    pub fn new(inner: Box<dyn Wire>) -> ToyWire {
        ToyWire { inner, opener: Opener::default(), sealer: Sealer::default() }
    }
}

impl Read for ToyWire {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        while !self.opener.is_ready()? {
            let mut sealed = [0; 8 * 1024];
            match self.inner.read(&mut sealed)? {
                0 => return self.opener.end().map(|()| 0).map_err(io::Error::from),
                n => self.opener.feed(&sealed[..n]),
            }
        }
        let payload = self.opener.take(out.len());
        out[..payload.len()].copy_from_slice(payload);
        Ok(payload.len())
    }
}

impl Write for ToyWire {
    fn write(&mut self, payload: &[u8]) -> Result<usize> {
        let n = payload.len().min(PAYLOAD_MAX);
        if n == 0 {
            return Ok(0);
        }
        let record = self.sealer.record(&payload[..n]);
        // In two pieces, the first of which is not even the whole length.
        self.inner.write_all(&record[..1])?;
        self.inner.write_all(&record[1..])?;
        Ok(n)
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}

impl Wire for ToyWire {
    fn set_wait(&self, time: Duration) -> Result<()> {
        self.inner.set_wait(time)
    }

    fn end_writing(&mut self) -> Result<()> {
        self.inner.end_writing()
    }

    fn reset(&mut self) {
        self.inner.reset();
    }
}

/// A socket to send records as one likes, and a client on the same socket that reads answers.
fn by_hand(ringway: &Ringway) -> (TcpStream, Client) {
    let socket = TcpStream::connect(ringway.address).expect("connect to the proxy");
    socket.set_nodelay(true).expect("no delay");
    let same = socket.try_clone().expect("a second descriptor");
    (socket, Client::over(Box::new(ToyWire::new(Box::new(same)))))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

on_both_drivers! {
    fn requests_that_were_read_ahead_are_served(driver) {
        // Both records come with one receive. Behind the first request the connection goes idle, nothing is left in the
        // socket, and only the stream itself can tell that it is readable.
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        let (mut socket, mut client) = by_hand(&ringway);
        let mut sealer = Sealer::default();
        for _ in 0..20 {
            let both = [sealer.record(get("/1")), sealer.record(get("/2"))].concat();
            socket.write_all(&both).expect("sent");
            assert_eq!((client.response().status, client.response().status), (200, 200));
        }
        assert_eq!(origin.requests().len(), 40);
    }

    fn a_record_comes_in_pieces_and_ends_anywhere_in_a_message(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        let (mut socket, mut client) = by_hand(&ringway);
        let mut sealer = Sealer::default();
        let body = "0123456789".repeat(3000);
        let message = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        for (payload, piece) in [(50, 9), (1000, 333), (PAYLOAD_MAX, 5000), (PAYLOAD_MAX, 100_000)] {
            let records: Vec<u8> = message.as_bytes().chunks(payload).flat_map(|part| sealer.record(part)).collect();
            for (i, piece) in records.chunks(piece).enumerate() {
                socket.write_all(piece).expect("sent");
                if i % 64 == 0 {
                    std::thread::sleep(millis(1));
                }
            }
            assert!(client.response().text() == body, "records of {payload} in pieces of {piece}");
        }
    }

    fn half_a_record_is_nothing(driver) {
        // All of a request but the record's last byte: none of it may be acted upon.
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        let (mut socket, mut client) = by_hand(&ringway);
        let record = Sealer::default().record(get("/1") + "x");
        socket.write_all(&record[..record.len() - 1]).expect("sent");
        client.silent(millis(300));
        client.fin();
        client.closed();
        assert!(origin.requests().is_empty());
    }

    fn an_upload_that_ends_inside_a_record_is_truncated(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        let (mut socket, mut client) = by_hand(&ringway);
        let mut sealer = Sealer::default();
        let head = sealer.record("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
        let record = sealer.record("cdx");
        socket.write_all(&[&head[..], &record[..record.len() - 1]].concat()).expect("sent");
        client.fin();
        assert_eq!(client.response().status, 400);
        client.closed();
        assert!(origin.requests().is_empty());
    }

    fn an_end_inside_a_record_is_no_half_close_of_a_tunnel(driver) {
        // An end between two records is passed on, and the backend's last words come back. A torn one cuts the tunnel.
        let origin = upgrade::echo_tunnel();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        for (torn, last_words) in [(false, "bye"), (true, "")] {
            let (mut socket, mut client) = by_hand(&ringway);
            let mut sealer = Sealer::default();
            socket.write_all(&sealer.record(upgrade::ASK)).expect("sent");
            assert_eq!(client.head_of("GET").status, 101);
            socket.write_all(&sealer.record("echo")).expect("sent");
            assert_eq!(client.raw(4), b"echo");
            let record = sealer.record("more");
            socket.write_all(if torn { &record[..3] } else { &[] }).expect("sent");
            client.fin();
            let (rest, end) = client.rest(seconds(5));
            assert_eq!((lossy(&rest).as_str(), end), (last_words, End::Fin), "torn: {torn}");
        }
        origin.wait_all_closed(seconds(5));
    }

    fn what_is_no_record_ends_the_connection(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        for bytes in [&b"\x40\x01"[..], b"\0\0", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let (mut socket, mut client) = by_hand(&ringway);
            socket.write_all(bytes).expect("sent");
            let (answer, end) = client.rest(seconds(5));
            // Bytes that nobody reads turn the close into a reset.
            assert!(answer.is_empty() && end != End::StillOpen, "{} {end:?}", lossy(&answer));
        }
        assert!(origin.requests().is_empty());
    }
}

/// Everything about messages, run again through the toy. The other modules are about the process (`cli`, `reload`, `log`),
/// about backends, whose connections stay clear text (`balance`, `failure`, `health`), or about limits and time.
const SUITE: &[&str] =
    &["basic::", "framing::", "smuggling::", "keepalive::", "bodies::", "early::", "upgrade::", "headers::", "close::"];

#[test]
fn the_suite_passes_through_a_stream_that_transforms() {
    let other = if Driver::Uring.usable() { "::epoll" } else { "::uring" };
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(SUITE).args(["--skip", other, "--skip", "toy", "--test-threads=16"]).env(SWITCH, "1");
    let output = crate::harness::run(command, seconds(240));
    let said = lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", lossy(&output.stderr));
    let passed = said.lines().filter(|line| line.starts_with("test ") && line.ends_with("... ok")).count();
    assert!(passed > 50, "only {passed} tests ran: {said}");
}
