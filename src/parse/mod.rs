//! What Ringway makes of raw bytes: the messages that stand in them, one behind the other, each with its verdict.
//!
//! There is no parser here. Heads, framing and bodies are judged, and heads rewritten, by the functions that serve traffic
//! (`http`); this room only walks from one message to the next as a session does, and stops where a session would close.

mod text;

pub use text::{escaped, json, place, text};

use crate::http::body::{Body, Encoding};
use crate::http::framing::Framing;
use crate::http::head::{HeadScan, RequestHead, ResponseHead, Scan, Underscores};
use crate::http::persist;
use crate::http::reject::Fault;
use crate::http::rewrite::{self, RequestRewrite, ResponseRewrite};
use crate::http::{Method, Version};
use std::net::{IpAddr, Ipv4Addr};

/// Bytes of a body that are decoded at once.
const PIECE_BYTES: usize = 64 * 1024;

/// The client of a request whose way on is shown (RFC 5737).
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The port of the listener of such a request.
pub const PORT: u16 = 80;
/// The date of a response that brings none.
const DATE: &[u8; 29] = b"Thu, 01 Jan 1970 00:00:00 GMT";

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side<'a> {
    /// A client's: requests.
    Client,
    /// A backend's: responses.
    Backend {
        /// Method of the requests that they answer.
        method: Method,
        /// Value of those requests' Upgrade field; empty is none.
        upgrade: &'a [u8],
    },
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Offset of its first byte.
    pub at: usize,
    /// Bytes of it that were read: up to its end, or to the byte at which it was refused.
    pub bytes: usize,
    /// What its head says, where that was good.
    pub head: Option<Head>,
    /// Bytes of its body, without the chunked coding; of one that is refused in its body, those in pieces that went by before.
    pub body_bytes: u64,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// A head that was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What begins it.
    pub start: Start,
    /// How the body ends.
    pub framing: Framing,
}

/// What a start line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Of a request.
    Request {
        /// As sent.
        method: Vec<u8>,
        /// Without port; empty where an HTTP/1.0 request names none.
        host: Vec<u8>,
        /// Without query.
        path: Vec<u8>,
    },
    /// Of a response.
    Response {
        /// Status code.
        status: u16,
    },
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Forwarded {
        /// The head as it goes on.
        head: Vec<u8>,
        /// How the body goes on.
        encoding: Encoding,
    },
    /// Ringway answers it by itself (Max-Forwards of 0, RFC 9110 section 7.6.2).
    Answered,
    /// It is refused.
    Refused(Refusal),
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client gets. For a response that is 502, or nothing where its head has gone on already.
    pub status: u16,
    /// The reason: [`Fault::name`], or `truncated`.
    pub reason: &'static str,
    /// Where the rule stands that was broken.
    pub clause: &'static str,
    /// One sentence.
    pub detail: &'static str,
    /// Offset of the first offending byte in the input; its length, where what is missing would have had to follow.
    pub at: usize,
}

/// Why no more of the input was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it was read.
    Input,
    /// A message was refused.
    Refused,
    /// The connection ends behind this message.
    Close,
    /// What follows is not HTTP any more.
    Tunnel,
}

/// What stands in some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The messages, in order. Behind one that is refused there is none.
    pub messages: Vec<Message>,
    /// Bytes of the input that were read.
    pub read: usize,
    /// Why not more.
    pub end: End,
}

impl Parsed {
    /// The refusal of the last message, if it was refused.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.messages.last()?.verdict {
            Verdict::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// Judges the messages in `bytes`, with the settings that hold by default.
pub fn parse(bytes: &[u8], side: Side) -> Parsed {
    let mut reader = Reader { bytes, at: 0, request: Box::default(), response: Box::default(), interims: 0 };
    let mut messages = Vec::new();
    loop {
        let begin = reader.at;
        let (message, end) = match side {
            Side::Client => reader.request(),
            Side::Backend { method, upgrade } => reader.response(method, upgrade),
        };
        let end = match message {
            // Empty lines and no request behind them are nothing.
            None => Some(End::Input),
            Some(message) => {
                reader.at = begin + message.bytes;
                let refused = matches!(message.verdict, Verdict::Refused(_));
                messages.push(message);
                if refused { Some(End::Refused) } else { end }
            }
        };
        if let Some(end) = end {
            let read = if end == End::Input { bytes.len() } else { reader.at };
            return Parsed { messages, read, end };
        }
        if reader.at == bytes.len() {
            return Parsed { messages, read: bytes.len(), end: End::Input };
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// Where the next message begins.
    at: usize,
    request: Box<RequestHead>,
    response: Box<ResponseHead>,
    /// Interim responses since the last final one.
    interims: u32,
}

impl Reader<'_> {
    /// The next request, and why none can follow it.
    fn request(&mut self) -> (Option<Message>, Option<End>) {
        let rest = &self.bytes[self.at..];
        let len = match HeadScan::default().request(rest) {
            Ok(Scan::Partial) if rest.iter().all(|byte| b"\r\n".contains(byte)) => return (None, None),
            Ok(Scan::Partial) => return (Some(self.truncated(400, None, 0)), None),
            Ok(Scan::Complete(len)) => len,
            Err(reject) => return (Some(self.refused(reject.status, (reject.fault, reject.at), None, 0)), None),
        };
        let bytes = &rest[..len];
        if let Err(reject) = self.request.parse(bytes, Underscores::Drop) {
            return (Some(self.refused(reject.status, (reject.fault, reject.at), None, 0)), None);
        }
        let head = Head {
            start: Start::Request {
                method: self.request.method_span.of(bytes).to_vec(),
                host: self.request.host.of(bytes).to_vec(),
                path: self.request.path.of(bytes).to_vec(),
            },
            framing: self.request.framing,
        };
        // As behind a listener without TLS, to a client that is not trusted.
        if self.request.https && self.request.max_forwards != Some(0) {
            let target = self.request.method_span.end as usize + 1;
            return (Some(self.refused(421, (Fault::InsecureHttps, target), Some(head), 0)), None);
        }
        let verdict = if self.request.max_forwards == Some(0) {
            Verdict::Answered
        } else {
            let how = RequestRewrite {
                peer: Some(CLIENT),
                trusted: false,
                client: Some(CLIENT),
                scheme: "http",
                port: PORT,
                request_id: 0,
                via: None,
                underscores: Underscores::Drop,
            };
            let mut out = Vec::new();
            rewrite::request(&self.request, bytes, &how, &mut out);
            let encoding = if head.framing == Framing::Chunked { Encoding::Chunked } else { Encoding::Plain };
            Verdict::Forwarded { head: out, encoding }
        };
        let end = (!self.request.persist).then_some(End::Close);
        (Some(self.with_body(400, len, head, verdict)), end)
    }

    /// The next response, and why none can follow it.
    fn response(&mut self, method: Method, upgrade: &[u8]) -> (Option<Message>, Option<End>) {
        let rest = &self.bytes[self.at..];
        let len = match HeadScan::default().response(rest) {
            Ok(Scan::Partial) if rest.is_empty() => return (None, None),
            Ok(Scan::Partial) => return (Some(self.truncated(502, None, 0)), None),
            Ok(Scan::Complete(len)) => len,
            Err(failure) => return (Some(self.refused(502, (failure.fault, failure.at), None, 0)), None),
        };
        let bytes = &rest[..len];
        let judged = self.response.parse(bytes, method);
        if let Err(failure) = judged.and_then(|()| self.response.in_place(bytes, upgrade, self.interims)) {
            return (Some(self.refused(502, (failure.fault, failure.at), None, 0)), None);
        }
        let response = &*self.response;
        let interim = response.is_interim();
        self.interims = if interim { self.interims + 1 } else { 0 };
        let head = Head { start: Start::Response { status: response.status }, framing: response.framing };
        let client = RequestHead { version: Version::Http11, method, ..RequestHead::default() };
        let side = persist::client_side(&client, response);
        let framing = if interim { Framing::None } else { side.framing };
        let how = ResponseRewrite { client_version: Version::Http11, close: false, framing, date: DATE, via: None };
        let mut out = Vec::new();
        rewrite::response(response, bytes, &how, &mut out);
        let end = match response.status {
            101 => Some(End::Tunnel),
            _ if interim || response.persist => None,
            _ => Some(End::Close),
        };
        let verdict = Verdict::Forwarded { head: out, encoding: side.encoding };
        (Some(self.with_body(502, len, head, verdict)), end)
    }

    /// A message with a good head of `len` bytes: reads its body.
    fn with_body(&self, status: u16, len: usize, head: Head, verdict: Verdict) -> Message {
        let mut body = Body::new(head.framing);
        let mut read = len;
        for piece in self.bytes[self.at + len..].chunks(PIECE_BYTES) {
            if body.is_done() {
                break;
            }
            match body.decode(&mut piece.to_vec()) {
                Ok(decoded) => read += decoded.consumed,
                Err(fault) => {
                    let status = match head.start {
                        Start::Request { .. } => fault.fault.status(),
                        Start::Response { .. } => 502,
                    };
                    return self.refused(status, (fault.fault, read + fault.at), Some(head), body.payload_bytes());
                }
            }
        }
        if !body.complete_at_eof() {
            return self.truncated(status, Some(head), body.payload_bytes());
        }
        Message { at: self.at, bytes: read, head: Some(head), body_bytes: body.payload_bytes(), verdict }
    }

    /// The message that begins here, with a fault at an offset in it.
    fn refused(&self, status: u16, fault: (Fault, usize), head: Option<Head>, body_bytes: u64) -> Message {
        let (fault, offset) = fault;
        let refusal = Refusal {
            status,
            reason: fault.name(),
            clause: fault.clause(),
            detail: fault.describe(),
            at: self.at + offset,
        };
        Message { at: self.at, bytes: offset, head, body_bytes, verdict: Verdict::Refused(refusal) }
    }

    /// The message that begins here and does not end.
    fn truncated(&self, status: u16, head: Option<Head>, body_bytes: u64) -> Message {
        let refusal = Refusal {
            status,
            reason: "truncated",
            clause: "RFC 9112 section 8",
            detail: "The input ends within the message.",
            at: self.bytes.len(),
        };
        let bytes = self.bytes.len() - self.at;
        Message { at: self.at, bytes, head, body_bytes, verdict: Verdict::Refused(refusal) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: Side = Side::Backend { method: Method::Get, upgrade: b"" };

    fn verdicts(bytes: &[u8], side: Side) -> Vec<(usize, usize, &'static str)> {
        let of = |message: &Message| match &message.verdict {
            Verdict::Forwarded { .. } => "forwarded",
            Verdict::Answered => "answered",
            Verdict::Refused(refusal) => refusal.reason,
        };
        parse(bytes, side).messages.iter().map(|m| (m.at, m.bytes, of(m))).collect()
    }

    #[test]
    fn one_behind_the_other() {
        let text = b"POST /a?b HTTP/1.1\r\nHost: a:81\r\nContent-Length: 2\r\n\r\nhi\r\n\
            PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost : a\r\n\r\n";
        let parsed = parse(text, Side::Client);
        let [first, second, third] = &parsed.messages[..] else { panic!("{parsed:?}") };
        let start = Start::Request { method: b"POST".to_vec(), host: b"a".to_vec(), path: b"/a".to_vec() };
        assert_eq!(first.head, Some(Head { start, framing: Framing::Length(2) }));
        assert_eq!((first.at, first.bytes, first.body_bytes), (0, 55, 2));
        let Verdict::Forwarded { head, encoding: Encoding::Plain } = &first.verdict else { panic!("{first:?}") };
        assert!(head.starts_with(b"POST /a?b HTTP/1.1\r\nHost: a:81\r\nContent-Length: 2\r\n"));
        assert_eq!((second.at, second.body_bytes), (55, 2));
        assert!(matches!(second.verdict, Verdict::Forwarded { encoding: Encoding::Chunked, .. }));
        let refusal = parsed.refusal().expect("the third is refused");
        assert_eq!(
            (refusal.status, refusal.reason, refusal.clause),
            (400, "space-before-colon", "RFC 9112 section 5.1")
        );
        assert_eq!(&text[refusal.at..], b" : a\r\n\r\n");
        assert_eq!((parsed.end, parsed.read, third.at + third.bytes), (End::Refused, refusal.at, refusal.at));
    }

    #[test]
    fn it_stops_where_a_session_closes() {
        let text = b"GET / HTTP/1.0\r\n\r\nGET / HTTP/9\r\n\r\n";
        let parsed = parse(text, Side::Client);
        assert_eq!((parsed.messages.len(), parsed.end, parsed.read), (1, End::Close, 18));
        assert_eq!(parse(b"\r\n\r\n", Side::Client), Parsed { messages: vec![], read: 4, end: End::Input });
        let hops = b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
        assert_eq!(verdicts(hops, Side::Client), [(0, hops.len(), "answered")]);
        let upgrade = Side::Backend { method: Method::Get, upgrade: b"websocket" };
        let text = b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x00";
        assert_eq!((parse(text, upgrade).end, parse(text, upgrade).read), (End::Tunnel, text.len() - 2));
        assert_eq!(verdicts(text, GET), [(0, 9, "unsolicited-upgrade")]);
    }

    #[test]
    fn responses() {
        let text = b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n\
            HTTP/1.1 200 OK\r\n\r\nall of it";
        assert_eq!(verdicts(text, GET), [(0, 18, "forwarded"), (18, 58, "forwarded"), (76, 28, "forwarded")]);
        let head = Side::Backend { method: Method::Head, upgrade: b"" };
        assert_eq!(verdicts(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head), [(0, 38, "forwarded")]);
        let flood = b"HTTP/1.1 100 C\r\n\r\n".repeat(17);
        assert_eq!(verdicts(&flood, GET).last(), Some(&(16 * 18, 9, "too-many-interim")));
    }

    #[test]
    fn faults_in_bodies_and_ends_too_early() {
        let head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let far = [&head[..], b"20000\r\n", &[b'a'; 0x20000], b"\r\nzz"].concat();
        let parsed = parse(&far, Side::Client);
        let refusal = parsed.refusal().expect("refused");
        assert_eq!((refusal.reason, refusal.at), ("chunk-size", far.len() - 2));
        for cut in [5, head.len(), head.len() + 5, far.len() - 2] {
            let refusal = parse(&far[..cut], Side::Client).refusal().expect("truncated");
            assert_eq!((refusal.status, refusal.reason, refusal.at), (400, "truncated", cut));
        }
        let trailer = [&head[..], &b"0\r\nX: "[..], &[b'a'; 10_000]].concat();
        assert_eq!(parse(&trailer, Side::Client).refusal().map(|refusal| refusal.status), Some(431));
        let refusal = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", GET).refusal().expect("truncated");
        assert_eq!((refusal.status, refusal.at), (502, 40));
    }

    /// Pieces of messages, in any order.
    pub(crate) fn a_stream() -> impl Strategy<Value = Vec<u8>> {
        let parts: [&[u8]; 17] = [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"\r\n",
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"abc",
            b"\n",
            b" ",
            b"\0",
            b"\r",
            b"X : y\r\n",
            b"Cookie: a=b",
            b"http://u:p@h/ ",
            b"\x16\x03",
        ];
        let part = proptest::sample::select(parts.to_vec());
        proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn messages_do_not_overlap_and_faults_are_inside(bytes in a_stream()) {
            for side in [Side::Client, GET] {
                let parsed = parse(&bytes, side);
                let mut at = 0;
                for message in &parsed.messages {
                    prop_assert_eq!(message.at, at);
                    at += message.bytes;
                    if let Verdict::Refused(refusal) = message.verdict {
                        prop_assert!(refusal.at == at && at <= bytes.len());
                    }
                }
                prop_assert!(at <= parsed.read && parsed.read <= bytes.len());
                let _ = (text(&bytes, side, &parsed), json(&bytes, side, &parsed));
            }
        }

        #[test]
        fn what_goes_on_is_taken_again(bytes in a_stream()) {
            let parsed = parse(&bytes, Side::Client);
            for message in &parsed.messages {
                let Verdict::Forwarded { head, encoding } = &message.verdict else { continue };
                let body = match encoding {
                    Encoding::Plain => vec![b'x'; message.body_bytes as usize],
                    Encoding::Chunked => b"0\r\n\r\n".to_vec(),
                };
                let again = parse(&[&head[..], &body].concat(), Side::Client);
                prop_assert_eq!(again.messages.len(), 1);
                prop_assert!(again.refusal().is_none(), "{:?}", again);
            }
        }
    }
}
