//! HTTP as the virtual clients and backends speak it: written apart from the proxy's, so that one does not excuse the
//! other. Lenient where it may be, exact about where a message ends.

use ringway::worker::buffers::{Buf, Class};
use ringway::worker::net::Stream;
use ringway::worker::net::mem::MemStream;
use std::io;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// A head, split into lines.
#[derive(Clone, Debug)]
pub struct Head {
    pub first: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }

    pub fn closes(&self) -> bool {
        self.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }

    /// The framing that the fields tell; `default` where they tell none.
    pub fn framing(&self, default: Framing) -> Framing {
        if self.get("transfer-encoding").is_some() {
            return Framing::Chunked;
        }
        match self.get("content-length").and_then(|v| v.parse().ok()) {
            Some(n) => Framing::Length(n),
            None => default,
        }
    }
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Whole,
    /// The connection ended (`reset`: by an error) before it.
    Cut {
        reset: bool,
    },
    /// It is not what it should be.
    Broken,
}

/// Reads one stream. What came and was not used yet is kept.
pub struct Reader<'a> {
    stream: &'a MemStream,
    pub bytes: Vec<u8>,
    buf: Option<Buf>,
    pub end: Option<Ended>,
    /// All bytes that ever came.
    pub total: usize,
    /// The trailer fields of the latest body.
    pub trailers: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(stream: &'a MemStream) -> Reader<'a> {
        Reader {
            stream,
            bytes: Vec::new(),
            buf: Some(Buf::new(Class::Small)),
            end: None,
            total: 0,
            trailers: Vec::new(),
        }
    }

    /// Bytes that came and were used.
    pub fn used(&self) -> usize {
        self.total - self.bytes.len()
    }

    /// Receives once; `false` at the end.
    pub async fn more(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let mut buf = self.buf.take().expect("one receive at a time");
        buf.clear();
        let (received, buf) = self.stream.recv(buf).await;
        self.bytes.extend_from_slice(buf.filled());
        self.total += buf.len();
        self.buf = Some(buf);
        match received {
            Ok(0) => self.end = Some(Ended::Cut { reset: false }),
            Ok(_) => {}
            Err(_) => self.end = Some(Ended::Cut { reset: true }),
        }
        self.end.is_none()
    }

    async fn line(&mut self) -> Result<String, Ended> {
        loop {
            if let Some(at) = self.bytes.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.bytes.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec()).map_err(|_| Ended::Broken);
            }
            if !self.more().await {
                return Err(self.end.unwrap_or(Ended::Broken));
            }
        }
    }

    /// Reads a head.
    pub async fn head(&mut self) -> Result<Head, Ended> {
        let first = self.line().await?;
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(Head { first, fields });
            }
            let (name, value) = line.split_once(':').ok_or(Ended::Broken)?;
            fields.push((name.to_string(), value.trim().to_string()));
        }
    }

    async fn exactly(&mut self, n: usize, body: &mut Vec<u8>) -> Result<(), Ended> {
        let mut left = n;
        loop {
            let here = left.min(self.bytes.len());
            body.extend(self.bytes.drain(..here));
            left -= here;
            if left == 0 {
                return Ok(());
            }
            if !self.more().await {
                return Err(self.end.unwrap_or(Ended::Broken));
            }
        }
    }

    /// Reads a body into `body`, which holds what came also when it does not end well.
    pub async fn body(&mut self, framing: Framing, body: &mut Vec<u8>) -> Ended {
        self.trailers.clear();
        match self.try_body(framing, body).await {
            Ok(()) => Ended::Whole,
            Err(ended) => ended,
        }
    }

    async fn try_body(&mut self, framing: Framing, body: &mut Vec<u8>) -> Result<(), Ended> {
        match framing {
            Framing::None => Ok(()),
            Framing::Length(n) => self.exactly(n, body).await,
            Framing::UntilClose => loop {
                body.append(&mut self.bytes);
                if !self.more().await {
                    body.append(&mut self.bytes);
                    return match self.end {
                        Some(Ended::Cut { reset: false }) => Ok(()),
                        other => Err(other.unwrap_or(Ended::Broken)),
                    };
                }
            },
            Framing::Chunked => loop {
                let line = self.line().await?;
                let size = line.split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16).map_err(|_| Ended::Broken)?;
                if size == 0 {
                    loop {
                        match self.line().await? {
                            line if line.is_empty() => return Ok(()),
                            line => self.trailers.push(line),
                        }
                    }
                }
                self.exactly(size, body).await?;
                if !self.line().await?.is_empty() {
                    return Err(Ended::Broken);
                }
            },
        }
    }
}

/// Sends bytes; `false` if the connection took not all of them.
pub async fn send(stream: &MemStream, bytes: &[u8]) -> bool {
    try_send(stream, bytes).await.is_ok()
}

/// Sends bytes.
pub async fn try_send(stream: &MemStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut buf = Buf::new(Class::Small);
        let n = bytes.len().min(buf.spare());
        assert!(buf.append(&bytes[..n]));
        stream.send_all(buf).await.0?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// A body in the chunked coding, cut into chunks of these lengths in turn, and with a trailer field if there is one.
pub fn chunked(body: &[u8], mut size: impl FnMut() -> usize, trailer: Option<String>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let n = size().clamp(1, rest.len());
        out.extend(format!("{n:x}\r\n").bytes());
        out.extend_from_slice(&rest[..n]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[n..];
    }
    let trailer = trailer.map_or_else(String::new, |line| line + "\r\n");
    out.extend(format!("0\r\n{trailer}\r\n").bytes());
    out
}
