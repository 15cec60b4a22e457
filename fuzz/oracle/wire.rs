//! What both streams share: bodies as a pump writes them, and which lines go on.

use super::grammar::{self, Line};
use ringway::http::body::{Body, CHUNK_PREFIX_MAX, Decoded, END_OF_CHUNK, Encoding, LAST_CHUNK, chunk_prefix};
use ringway::http::framing::Framing;

/// Writes what one call of `decode` gave, and the end of the body if it was the last.
pub fn write_body(bytes: &[u8], decoded: &Decoded, body: &Body, encoding: Encoding, out: &mut Vec<u8>) {
    let payload = &bytes[decoded.payload.clone()];
    if encoding == Encoding::Plain {
        return out.extend_from_slice(payload);
    }
    if !payload.is_empty() {
        let mut room = [0; CHUNK_PREFIX_MAX];
        let used = chunk_prefix(payload.len(), &mut room);
        out.extend([&room[CHUNK_PREFIX_MAX - used..], payload, END_OF_CHUNK].concat());
    }
    if body.is_done() {
        write_end(body, out);
    }
}

/// Writes the end of a chunked body.
pub fn write_end(body: &Body, out: &mut Vec<u8>) {
    out.extend([LAST_CHUNK, body.trailers(), b"\r\n"].concat());
}

/// The same framing in the grammar's words.
pub fn framing(framing: Framing) -> grammar::Framing {
    match framing {
        Framing::None => grammar::Framing::None,
        Framing::Length(n) => grammar::Framing::Length(n.into()),
        Framing::Chunked => grammar::Framing::Chunked,
        Framing::UntilClose => grammar::Framing::UntilClose,
    }
}

/// Hop-by-hop by name (RFC 9110 section 7.6.1; HTTP2-Settings by RFC 7540 section 3.2.1).
const HOP_BY_HOP: &[&str] =
    &["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings"];

/// End-to-end fields that a Connection option does not take away, by policy: what frames, routes and dates a message, and
/// what tells of the client.
const NOT_TO_BE_NAMED: &[&str] = &[
    "host",
    "content-length",
    "date",
    "expect",
    "forwarded",
    "max-forwards",
    "trailer",
    "via",
    "x-real-ip",
    "x-request-id",
];

/// Names and beginnings of names that tell of a client, its request or its address: a trusted proxy's to send.
pub const OF_PROXIES: &[&str] =
    &["x-forwarded*", "x-original-*", "x-rewrite-*", "forwarded", "x-real-ip", "x-request-id"];

/// Whether a name is in a list; `*` at the end of a list's name stands for any rest. Names are compared without case.
pub fn is_in(list: &[&str], name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    list.iter().any(|known| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *known,
    })
}

/// The lines that are for the recipient of this one message only.
pub fn is_hop_by_hop(line: &Line, lines: &[Line]) -> bool {
    let named = || grammar::members(lines, "connection").iter().any(|option| option.eq_ignore_ascii_case(&line.name));
    let kept = || is_in(NOT_TO_BE_NAMED, &line.name) || is_in(OF_PROXIES, &line.name);
    is_in(HOP_BY_HOP, &line.name) || (named() && !kept())
}

/// What must not come in a trailer section, for a recipient may merge it into the head (RFC 9110 section 6.5.1).
const NO_TRAILERS: &[&str] = &[
    "transfer-encoding",
    "content-*",
    "host",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "expect",
    "range",
    "max-forwards",
    "authorization",
    "proxy",
    "proxy-connection",
    "close",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "set-cookie",
    "cookie",
    "cache-control",
    "if-*",
    "www-authenticate",
    "via",
    "x-forwarded*",
    "forwarded",
    "x-real-ip",
    "date",
    "location",
    "vary",
    "age",
    "expires",
    "pragma",
    "retry-after",
];

/// Judges what is passed on of a trailer section: some of its lines as they came, in order, and none that must not be there
/// or that a Connection option among the head's lines names.
pub fn judge_trailers(passed: &[Line], came: &[Line], head: &[Line]) {
    let named = grammar::members(head, "connection");
    let mut rest = came.iter();
    for line in passed {
        assert!(rest.any(|other| other == line), "{line:?} did not come, or not in this order: {came:?}");
        assert!(!is_in(NO_TRAILERS, &line.name) && !line.name.contains(&b'_'), "{line:?} in a trailer section");
        assert!(!named.iter().any(|option| option.eq_ignore_ascii_case(&line.name)), "{line:?} is hop-by-hop");
    }
}

/// The lines of a trailer section that ends with its empty line.
pub fn trailer_lines(section: &[u8]) -> Vec<Line> {
    let text = [section, b"\r\n"].concat();
    let mut reader = grammar::Reader::new(&text);
    let lines = grammar::section(&mut reader).expect("trailers that go on are field lines");
    assert_eq!(reader.at(), text.len());
    lines
}
