//! A toy transport that changes every byte: sealed records in place of clear text. It shows that nothing in a session
//! depends on the socket's own bytes: the stream may be one that transforms, cannot splice, and reads ahead.
//!
//! A record is a length of two bytes (big-endian) and as many bytes, at most 16 KiB, each XORed with a key stream that
//! runs on from record to record, so that a lost or repeated byte garbles all that follows. The end of the stream is the
//! transport's end between two records; inside a record it is a fault.

use crate::client::Wire;
use std::io::{self, ErrorKind, Read, Result, Write};
use std::time::Duration;

/// Set to 1, it makes every proxy and every client of this binary's tests speak in records.
pub const SWITCH: &str = "RINGWAY_TOY";

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

    pub fn record(&mut self, payload: impl AsRef<[u8]>) -> Vec<u8> {
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
