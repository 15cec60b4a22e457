//! Request and response heads: where one ends, and what it says. The only file that names httparse.

use super::framing::Framing;
use super::reject::{Failure, Reject};
use super::{Method, Span, Version};
use crate::limits;

/// What the scan for the end of a head has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// More bytes are needed.
    Partial,
    /// The head ends here: this many bytes, leading empty lines included.
    Complete(usize),
}

/// Looks for the end of a head in bytes that come piecemeal; never looks at a byte twice.
///
/// Any split of the same bytes gives the same verdict at the same byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    // how far the search has come, and what was seen
}

/// A field that Ringway knows by name; all others are [`Known::Other`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// not looked at, passed on
    #[default]
    Other,
}

/// One field line of a head. The line's bytes run from `name.start` to the next line's `name.start`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field {
    /// The name, without the colon.
    pub name: Span,
    /// The value, without the white space around it.
    pub value: Span,
    /// Which field it is.
    pub known: Known,
    /// Hop-by-hop: by its name or because a Connection field names it (RFC 9110 section 7.6.1).
    pub hop: bool,
}

/// The field lines of one head, in order; storage is inline and reused from message to message.
#[derive(Clone, Debug)]
pub struct Fields {
    list: [Field; limits::FIELDS_MAX],
    len: usize,
}

impl Default for Fields {
    fn default() -> Self {
        Fields { list: [Field::default(); limits::FIELDS_MAX], len: 0 }
    }
}

impl std::ops::Deref for Fields {
    type Target = [Field];
    fn deref(&self) -> &[Field] {
        &self.list[..self.len]
    }
}

/// The form of a request target (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*` (OPTIONS only)
    Asterisk,
}

/// What a strict reader makes of field names that contain `_` (several servers take `_` for `-`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// Drop the field (the default, as nginx does).
    #[default]
    Drop,
    /// Pass it on, except spellings of fields that Ringway itself sets.
    Pass,
    /// Reject the request with 400.
    Reject,
}

/// One request head, judged. All spans point into the head's bytes.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// Bytes of the head, leading empty lines and final empty line included.
    pub bytes: usize,
    /// The method, as far as behaviour depends on it.
    pub method: Method,
    /// The method as sent.
    pub method_span: Span,
    /// HTTP/1.0 or 1.1.
    pub version: Version,
    /// Form of the target.
    pub form: Form,
    /// The whole target as sent.
    pub target: Span,
    /// Path as sent, without query; starts with `/` (empty for `*` and for `http://host`, which mean `/` to the router).
    pub path: Span,
    /// Query with its `?`, or empty.
    pub query: Span,
    /// Host without port, as sent (IPv6 literals with brackets): of the target if absolute, else of the Host field.
    /// Empty for an HTTP/1.0 request without Host.
    pub host: Span,
    /// host[:port] as sent, what goes on in the Host field.
    pub authority: Span,
    /// How the body ends. Never `UntilClose`.
    pub framing: Framing,
    /// The client lets the connection live after this exchange (RFC 9112 section 9.3).
    pub persist: bool,
    /// The client expects 100 (Continue) before it sends the body.
    pub expect_continue: bool,
    /// Value of the Upgrade field if the request validly asks for an upgrade (1.1, Connection: upgrade, no body).
    pub upgrade: Span,
    /// The field lines.
    pub fields: Fields,
}

/// One response head, judged.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// Bytes of the head, final empty line included.
    pub bytes: usize,
    /// Status code, 100 to 599.
    pub status: u16,
    /// Reason phrase as sent.
    pub reason: Span,
    /// HTTP/1.0 or 1.1.
    pub version: Version,
    /// How the body ends (RFC 9112 section 6.3, the request's method considered).
    pub framing: Framing,
    /// The backend lets the connection live after this response.
    pub persist: bool,
    /// `timeout` parameter of a Keep-Alive field, in seconds.
    pub keep_alive_timeout: Option<u32>,
    /// The Upgrade field of a 101 response.
    pub upgrade: Span,
    /// The field lines.
    pub fields: Fields,
}

impl HeadScan {
    /// Looks at the bytes that came since the last call; `bytes` is everything received for this head so far.
    ///
    /// `side` says whether a request (leading empty lines are skipped, the first byte must begin a token) or a response
    /// is expected. Errors: a bare LF, a byte that cannot begin a message (a TLS hello, say), or more than
    /// `limits::HEAD_BYTES_MAX` bytes without an end (431, and 414 if not even the request line has ended).
    pub fn request(&mut self, _bytes: &[u8]) -> Result<Scan, Reject> {
        todo!()
    }

    /// The same for a response.
    pub fn response(&mut self, _bytes: &[u8]) -> Result<Scan, Failure> {
        todo!()
    }
}

impl RequestHead {
    /// Judges one complete head; `bytes` is exactly what [`Scan::Complete`] delimited. Overwrites `self`.
    pub fn parse(&mut self, _bytes: &[u8], _underscores: Underscores) -> Result<(), Reject> {
        todo!()
    }
}

impl ResponseHead {
    /// Judges one complete response head to a request of the given method. Overwrites `self`.
    pub fn parse(&mut self, _bytes: &[u8], _request_method: Method) -> Result<(), Failure> {
        todo!()
    }

    /// 1xx, but not 101.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}
