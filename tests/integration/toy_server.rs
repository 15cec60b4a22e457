//! The proxy behind the toy transport: the whole of it, in a process of its own, with one more stage between accept and
//! the sessions. The process is this test binary once more, told by a variable to be the server.

use crate::toy::{HEAD, Opener, PAYLOAD_MAX, Sealer};
use ringway::control::Ended;
use ringway::control::signals::Signals;
use ringway::control::start::{self, Failure};
use ringway::worker::buffers::{Buf, Class};
use ringway::worker::net::{Handle, Net, Stream};
use ringway::worker::{ConnInfo, Gate, Start, start_with};
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the config file, and makes this binary the server.
const CONFIG: &str = "RINGWAY_TOY_CONFIG";

/// The command that serves this config through the toy.
pub fn command(config: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "toy_server::is_a_server_where_it_is_told_to_be", "--nocapture", "--test-threads=1"]);
    command.env(CONFIG, config);
    command
}

/// Records over another stream. Whoever reads gets the payload of one record at a time.
pub struct ToyStream<S> {
    inner: S,
    reading: RefCell<Reading>,
    sealer: RefCell<Sealer>,
}

#[derive(Default)]
struct Reading {
    opener: Opener,
    /// How the inner stream, or what came from it, has ended. Kept, because the kernel tells of a reset only once.
    end: Option<Result<(), ErrorKind>>,
}

impl Reading {
    /// Whether a receive need not wait.
    fn is_ready(&mut self) -> bool {
        if self.end.is_none() {
            match self.opener.is_ready() {
                Ok(ready) => return ready,
                Err(error) => self.end = Some(Err(error.kind())),
            }
        }
        true
    }

    fn take(&mut self, received: io::Result<usize>, buf: &Buf) {
        match received {
            Ok(0) => self.end = Some(self.opener.end()),
            Ok(_) => self.opener.feed(buf.filled()),
            Err(error) => self.end = Some(Err(error.kind())),
        }
    }
}

impl<S: Stream> ToyStream<S> {
    fn new(inner: S) -> ToyStream<S> {
        ToyStream { inner, reading: RefCell::default(), sealer: RefCell::default() }
    }

    async fn receive_sealed(&self) {
        let (received, buf) = self.inner.recv(Buf::new(Class::Small)).await;
        self.reading.borrow_mut().take(received, &buf);
    }
}

impl<S: Stream> Stream for ToyStream<S> {
    async fn readable(&self) -> io::Result<()> {
        while !self.reading.borrow_mut().is_ready() {
            self.inner.readable().await?;
            self.receive_sealed().await;
        }
        Ok(())
    }

    async fn more_readable(&self) -> io::Result<()> {
        while !self.reading.borrow_mut().is_ready() {
            self.inner.more_readable().await?;
            self.receive_sealed().await;
        }
        Ok(())
    }

    fn mark_hard(&self, hard: bool) {
        self.inner.mark_hard(hard);
    }

    async fn recv(&self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        while !self.reading.borrow_mut().is_ready() {
            self.receive_sealed().await;
        }
        let mut reading = self.reading.borrow_mut();
        if let Some(end) = reading.end {
            return (end.map(|()| 0).map_err(io::Error::from), buf);
        }
        let payload = reading.opener.take(buf.spare());
        assert!(!payload.is_empty() && buf.append(payload), "a receive into nothing would look like the end");
        (Ok(payload.len()), buf)
    }

    async fn recv_now(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        if !self.reading.borrow_mut().is_ready() {
            return (Err(ErrorKind::WouldBlock.into()), buf);
        }
        self.recv(buf).await
    }

    /// Sends one record, and the whole of it: there is nobody who would send the rest later.
    async fn send(&self, mut buf: Buf) -> (io::Result<usize>, Buf) {
        let payload = buf.len().min(PAYLOAD_MAX);
        let mut record = Buf::new(Class::Small);
        self.sealer.borrow_mut().seal(&buf.filled()[..payload], record.vec());
        let whole = record.len();
        let (sent, record) = self.inner.send_all(record).await;
        buf.consume((whole - record.len()).saturating_sub(HEAD));
        (sent.map(|()| payload), buf)
    }

    fn handle(&self) -> Handle {
        self.inner.handle()
    }

    fn close(self) {
        self.inner.close();
    }

    fn reset(self) {
        self.inner.reset();
    }
}

/// Puts the toy around every accepted stream.
#[derive(Clone, Copy)]
struct ToyGate;

impl<N: Net> Gate<N> for ToyGate {
    type Stream = ToyStream<N::Stream>;
    type Rest = Box<(RefCell<Reading>, RefCell<Sealer>)>;

    async fn admit(&self, stream: N::Stream, info: ConnInfo) -> Option<(Self::Stream, ConnInfo)> {
        Some((ToyStream::new(stream), info))
    }

    fn take_apart(&self, stream: Self::Stream) -> Result<(N::Stream, Self::Rest), Self::Stream> {
        if stream.reading.borrow_mut().is_ready() {
            return Err(stream);
        }
        Ok((stream.inner, Box::new((stream.reading, stream.sealer))))
    }

    fn put_together(&self, inner: N::Stream, rest: Self::Rest) -> Self::Stream {
        let (reading, sealer) = *rest;
        ToyStream { inner, reading, sealer }
    }
}

/// [`ringway::worker::start`] with the toy's gate.
fn worker(start: Start) -> io::Result<()> {
    let (runtime, links) = start.links();
    start_with(ToyGate, runtime, links)
}

/// The server's process begins and ends here. Among the other tests it has nothing to do.
#[test]
fn is_a_server_where_it_is_told_to_be() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let signals = Signals::install().expect("signals");
    let code = match start::run(Some(PathBuf::from(config)), signals, worker) {
        Ok(Ended::Drained { .. }) => 0,
        Ok(Ended::AtOnce) => 1,
        Err(failure) => {
            eprintln!("{failure}");
            if matches!(failure, Failure::Config(_)) { 2 } else { 1 }
        }
    };
    std::process::exit(code);
}
