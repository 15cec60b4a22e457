//! What goes on to the other side: the only place that writes forwarded heads.

use super::Version;
use super::head::{RequestHead, ResponseHead};
use std::net::IpAddr;

/// What the rewriting of a request depends on beside the head.
#[derive(Clone, Debug)]
pub struct RequestRewrite<'a> {
    /// Address of the connection's peer; `None` behind a Unix listener.
    pub peer: Option<IpAddr>,
    /// The peer is a trusted proxy: its X-Forwarded-*, X-Real-IP, Forwarded and X-Request-Id are appended to and kept.
    /// Otherwise all of them (and spellings with `_`) are dropped and set anew.
    pub trusted: bool,
    /// The client's address as [`super::forwarded::client`] says; goes into X-Real-IP.
    pub client: Option<IpAddr>,
    /// `http` or `https`: scheme by which the client came.
    pub scheme: &'a str,
    /// Port of the listener, for X-Forwarded-Port.
    pub port: u16,
    /// X-Request-Id to set where none is kept.
    pub request_id: u128,
    /// Pseudonym for the Via field, or none.
    pub via: Option<&'a str>,
    /// Names with `_`: see [`super::head::Underscores`].
    pub underscores: super::head::Underscores,
}

/// Appends the request line and fields for the backend, always HTTP/1.1, final empty line included.
pub fn request(_head: &RequestHead, _bytes: &[u8], _how: &RequestRewrite, _out: &mut Vec<u8>) {
    todo!()
}

/// What the rewriting of a response depends on beside the head.
#[derive(Clone, Debug)]
pub struct ResponseRewrite<'a> {
    /// The client's version: a 1.0 client gets no chunked coding and an explicit keep-alive.
    pub client_version: Version,
    /// Connection is closed after this response: `Connection: close` is written.
    pub close: bool,
    /// Body goes out chunked although it came otherwise (`UntilClose` to a 1.1 client), or the other way round.
    pub framing: super::framing::Framing,
    /// Current Date value, used where the backend sent none (RFC 9110 section 6.6.1).
    pub date: &'a [u8; 29],
    /// Pseudonym for the Via field, or none.
    pub via: Option<&'a str>,
}

/// Appends the status line and fields for the client, final empty line included; also for 1xx and 101.
pub fn response(_head: &ResponseHead, _bytes: &[u8], _how: &ResponseRewrite, _out: &mut Vec<u8>) {
    todo!()
}
