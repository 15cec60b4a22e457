//! HTTP/1.1 as pure functions: bytes in, facts out. Nothing here waits, allocates per message, or looks at a clock.
//!
//! One head is judged once (`scan`, `head` with `field` and `target`, `framing`), one body is walked by one machine
//! (`body`, `chunked`), one function per direction writes what goes on (`rewrite`), and one decides whether the
//! connection lives (`persist`). What Ringway answers by itself is written by `reply`. Whose fault something is stands in
//! the type: [`reject::Reject`] is the client's, [`reject::Failure`] the backend's.

pub mod body;
pub mod chunked;
pub mod cookie;
pub mod field;
pub mod forwarded;
pub mod framing;
pub mod head;
pub mod persist;
pub mod reject;
pub mod reply;
pub mod rewrite;
pub mod scan;
pub mod target;

/// A range of bytes in a head. Heads are at most `limits::HEAD_BYTES_MAX` long, so 16 bits suffice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u16,
    /// Offset behind the last byte.
    pub end: u16,
}

impl Span {
    /// The bytes of `head` that this span covers.
    pub fn of<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.start as usize..self.end as usize]
    }

    /// Whether no byte is covered.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// The protocol versions that Ringway speaks; any other is rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1 (and any later 1.x, RFC 9110 section 2.5)
    #[default]
    Http11,
}

/// A request method, as far as Ringway's behaviour depends on it (RFC 9110 section 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
    /// CONNECT: always answered with 501, Ringway is no forward proxy
    Connect,
    /// any other token
    Other,
}

impl Method {
    /// The method of this name; names are case-sensitive (RFC 9110 section 9.1).
    pub fn of(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// RFC 9110 section 9.2.2: repeating it has the effect of sending it once.
    pub fn is_idempotent(self) -> bool {
        use Method::*;
        matches!(self, Get | Head | Put | Delete | Options | Trace)
    }
}
