//! What goes on to the other side: the only place that writes forwarded heads.
//!
//! Lines that stay as they came are copied in runs; what frames the message, names its host or tells of the client is
//! written from the verdicts in the head, never copied.

use super::field::{Fields, Known};
use super::framing::Framing;
use super::head::{Form, RequestHead, ResponseHead, Underscores};
use super::{Method, Span, Version};
use std::io::Write;
use std::net::IpAddr;

/// What the rewriting of a request depends on beside the head.
#[derive(Clone, Debug)]
pub struct RequestRewrite<'a> {
    /// Address of the connection's peer; `None` behind a Unix listener.
    pub peer: Option<IpAddr>,
    /// The peer is a trusted proxy: its X-Forwarded-*, X-Real-IP, Forwarded and X-Request-Id are appended to and kept.
    /// Otherwise all of them (and spellings with `_`) are dropped and set anew; Forwarded is dropped only, for backends
    /// that prefer it would see less than X-Forwarded-* tells.
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

/// What goes on as Host for an HTTP/1.0 request that names none. HTTP/1.1 wants a Host, and servers refuse an empty one;
/// `.invalid` is nobody's name (RFC 2606).
pub const NO_HOST: &[u8] = b"no-host.invalid";

/// Fields of a request that never go on as they came.
const REQUEST_DROPS: u32 = Known::Host.bit()
    | Known::ContentLength.bit()
    | Known::TransferEncoding.bit()
    | Known::Proxy.bit()
    | Known::Alias.bit()
    // The chain is written as one line: first of all fields of this name would else be a client's in some backends.
    | Known::XForwardedFor.bit();

/// Fields that only a trusted proxy may send.
const PROXY_FIELDS: u32 = Known::Forwarded.bit()
    | Known::XForwardedHost.bit()
    | Known::XForwardedPort.bit()
    | Known::XForwardedProto.bit()
    | Known::XForwardedOther.bit()
    | Known::XRealIp.bit()
    | Known::XRequestId.bit();

/// Appends the request line and fields for the backend, always HTTP/1.1, final empty line included.
///
/// Not to be called with `max_forwards` 0: such a request is not forwarded.
pub fn request(head: &RequestHead, bytes: &[u8], how: &RequestRewrite, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method_span.of(bytes));
    out.push(b' ');
    request_target(head, bytes, out);
    let authority = head.authority.of(bytes);
    let host = if authority.is_empty() { NO_HOST } else { authority };
    extend(out, &[b" HTTP/1.1\r\nHost: ", host, b"\r\n"]);

    let mut drops = REQUEST_DROPS;
    if !how.trusted {
        drops |= PROXY_FIELDS;
    }
    if how.client.is_some() {
        drops |= Known::XRealIp.bit();
    }
    if how.trusted && head.fields.has(Known::Forwarded) && how.peer.is_some() {
        drops |= Known::Forwarded.bit();
    }
    // TE asks something of the next server only, and Ringway does not hand the promise on (RFC 9110 section 10.1.4); it
    // is hop-by-hop like all that `hop` marks.
    if !head.expect_continue {
        drops |= Known::Expect.bit();
    }
    if head.max_forwards.is_some() {
        drops |= Known::MaxForwards.bit();
    }
    if how.underscores != Underscores::Pass {
        drops |= Known::Underscored.bit();
    }
    kept_lines(&head.fields, bytes, head.bytes, drops, out);

    framing_field(head.framing, out);
    if let Some(hops) = head.max_forwards {
        out.extend_from_slice(b"Max-Forwards: ");
        number(hops.saturating_sub(1).into(), out);
        out.extend_from_slice(b"\r\n");
    }
    forwarding_fields(head, bytes, how, out);
    if let Some(name) = how.via {
        via(head.version, name, out);
    }
    if !head.upgrade.is_empty() {
        upgrade(head.upgrade.of(bytes), out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The target in origin-form or `*`, whatever form it came in (RFC 9112 sections 3.2.1 and 3.2.4).
fn request_target(head: &RequestHead, bytes: &[u8], out: &mut Vec<u8>) {
    if head.form == Form::Origin {
        return out.extend_from_slice(head.target.of(bytes));
    }
    if head.path.is_empty() {
        // "OPTIONS http://host" is the absolute form of `*`.
        let whole_server = head.method == Method::Options && head.query.is_empty();
        out.push(if whole_server { b'*' } else { b'/' });
    }
    extend(out, &[head.path.of(bytes), head.query.of(bytes)]);
}

/// X-Forwarded-*, X-Real-IP, Forwarded and X-Request-Id.
fn forwarding_fields(head: &RequestHead, bytes: &[u8], how: &RequestRewrite, out: &mut Vec<u8>) {
    let sent = |known: Known| how.trusted && head.fields.has(known);
    let mut peer = 0..0;
    if sent(Known::XForwardedFor) || how.peer.is_some() {
        out.extend_from_slice(b"X-Forwarded-For: ");
        if how.trusted {
            values(&head.fields, Known::XForwardedFor, bytes, how.peer.is_some(), out);
        }
        let at = out.len();
        address(how.peer, out);
        peer = at..out.len();
        out.extend_from_slice(b"\r\n");
    }
    if !sent(Known::XForwardedProto) {
        extend(out, &[b"X-Forwarded-Proto: ", how.scheme.as_bytes(), b"\r\n"]);
    }
    if !sent(Known::XForwardedHost) && !head.authority.is_empty() {
        extend(out, &[b"X-Forwarded-Host: ", head.authority.of(bytes), b"\r\n"]);
    }
    if !sent(Known::XForwardedPort) {
        out.extend_from_slice(b"X-Forwarded-Port: ");
        number(how.port.into(), out);
        out.extend_from_slice(b"\r\n");
    }
    if how.client.is_some() {
        out.extend_from_slice(b"X-Real-IP: ");
        if how.client == how.peer {
            // Mostly so, and to copy is a third of the work.
            out.extend_from_within(peer);
        } else {
            address(how.client, out);
        }
        out.extend_from_slice(b"\r\n");
    }
    if let (true, Some(peer)) = (sent(Known::Forwarded), how.peer) {
        out.extend_from_slice(b"Forwarded: ");
        values(&head.fields, Known::Forwarded, bytes, true, out);
        // RFC 7239 section 6: an IPv6 address is bracketed and quoted.
        let _ = match peer.to_canonical() {
            IpAddr::V4(ip) => write!(out, "for={ip}\r\n"),
            IpAddr::V6(ip) => write!(out, "for=\"[{ip}]\"\r\n"),
        };
    }
    if !sent(Known::XRequestId) {
        out.extend_from_slice(b"X-Request-Id: ");
        let id = how.request_id.to_be_bytes();
        let digits: [u8; 32] =
            std::array::from_fn(|i| b"0123456789abcdef"[usize::from(id[i / 2] >> (4 - i % 2 * 4) & 15)]);
        extend(out, &[&digits, b"\r\n"]);
    }
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
pub fn response(head: &ResponseHead, bytes: &[u8], how: &ResponseRewrite, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(head.status.into(), out);
    extend(out, &[b" ", head.reason.of(bytes), b"\r\n"]);

    let final_response = head.status >= 200;
    let mut drops = Known::ContentLength.bit() | Known::TransferEncoding.bit();
    // To HEAD and in 304, Content-Length tells what a GET would have brought (RFC 9110 section 8.6). In 1xx and 204 it
    // must not stand.
    if how.framing == Framing::None && final_response && head.status != 204 {
        drops &= !Known::ContentLength.bit();
    }
    if how.framing != Framing::Chunked {
        // No trailers go where this body goes.
        drops |= Known::Trailer.bit();
    }
    kept_lines(&head.fields, bytes, head.bytes, drops, out);

    framing_field(how.framing, out);
    if final_response && !head.fields.has(Known::Date) {
        extend(out, &[b"Date: ", how.date, b"\r\n"]);
    }
    if let Some(name) = how.via {
        via(head.version, name, out);
    }
    if head.status == 101 {
        upgrade(head.upgrade.of(bytes), out);
    } else if final_response && how.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if final_response && how.client_version == Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Copies the lines that go on, in order, neighbours at once.
fn kept_lines(fields: &Fields, bytes: &[u8], head_bytes: usize, drops: u32, out: &mut Vec<u8>) {
    // The lines end where the empty line begins.
    let end = head_bytes - 2;
    let mut run = None;
    for field in fields.iter() {
        let start = usize::from(field.name.start);
        if field.hop || drops & field.known.bit() != 0 {
            if let Some(from) = run.take() {
                out.extend_from_slice(&bytes[from..start]);
            }
        } else if run.is_none() {
            run = Some(start);
        }
    }
    if let Some(from) = run {
        out.extend_from_slice(&bytes[from..end]);
    }
}

/// The one framing field, written from the verdict.
fn framing_field(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(n) => {
            out.extend_from_slice(b"Content-Length: ");
            number(n, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// A line of our own behind the others of this name is a member behind theirs (RFC 9110 sections 5.3 and 7.6.3).
fn via(received: Version, name: &str, out: &mut Vec<u8>) {
    let version: &[u8] = if received == Version::Http10 { b"1.0 " } else { b"1.1 " };
    extend(out, &[b"Via: ", version, name.as_bytes(), b"\r\n"]);
}

fn upgrade(protocols: &[u8], out: &mut Vec<u8>) {
    extend(out, &[b"Connection: upgrade\r\nUpgrade: ", protocols, b"\r\n"]);
}

/// The values of all fields of this kind as one list; a comma follows the last one if more comes.
fn values(fields: &Fields, known: Known, bytes: &[u8], more: bool, out: &mut Vec<u8>) {
    let mut pending = false;
    for Span { start, end } in fields.all(known).map(|f| f.value).filter(|v| !v.is_empty()) {
        if pending {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(&bytes[start.into()..end.into()]);
        pending = true;
    }
    if pending && more {
        out.extend_from_slice(b", ");
    }
}

fn address(address: Option<IpAddr>, out: &mut Vec<u8>) {
    match address.map(|ip| ip.to_canonical()) {
        None => {}
        // By far the most frequent, twice in every request, and the formatter is ten times as slow.
        Some(IpAddr::V4(ip)) => {
            for (i, octet) in ip.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                number(octet.into(), out);
            }
        }
        // Writing into a vector cannot fail.
        Some(IpAddr::V6(ip)) => {
            let _ = write!(out, "{ip}");
        }
    }
}

fn number(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{HeadScan, Scan};
    use proptest::prelude::*;

    const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn how() -> RequestRewrite<'static> {
        RequestRewrite {
            peer: Some([192, 0, 2, 1].into()),
            trusted: false,
            client: Some([192, 0, 2, 1].into()),
            scheme: "http",
            port: 8080,
            request_id: 0x123,
            via: None,
            underscores: Underscores::Drop,
        }
    }

    fn rewritten(text: &str, how: &RequestRewrite) -> String {
        let mut head = RequestHead::default();
        head.parse(text.as_bytes(), how.underscores).unwrap();
        let mut out = Vec::new();
        request(&head, text.as_bytes(), how, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Without what Ringway adds to every request.
    fn without_ours(text: &str, how: &RequestRewrite) -> String {
        let ours = ["X-Forwarded-", "X-Real-IP: ", "X-Request-Id: "];
        let all = rewritten(text, how);
        all.split_inclusive("\r\n").filter(|line| !ours.iter().any(|o| line.starts_with(o))).collect()
    }

    #[test]
    fn a_plain_request() {
        assert_eq!(
            rewritten("GET /x?y HTTP/1.1\r\nAccept: */*\r\nHost: a.test:81\r\nUser-Agent: u\r\nX-B:\r\n\r\n", &how()),
            "GET /x?y HTTP/1.1\r\nHost: a.test:81\r\nAccept: */*\r\nUser-Agent: u\r\nX-B:\r\n\
             X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.test:81\r\n\
             X-Forwarded-Port: 8080\r\nX-Real-IP: 192.0.2.1\r\nX-Request-Id: 00000000000000000000000000000123\r\n\r\n"
        );
    }

    #[test]
    fn targets_and_versions() {
        for (line, want) in [
            ("GET http://b.test HTTP/1.1", "GET / HTTP/1.1\r\nHost: b.test"),
            ("GET HTTP://b.test:8/x?y HTTP/1.1", "GET /x?y HTTP/1.1\r\nHost: b.test:8"),
            ("GET http://b.test?q=/x HTTP/1.1", "GET /?q=/x HTTP/1.1\r\nHost: b.test"),
            ("OPTIONS http://b.test HTTP/1.1", "OPTIONS * HTTP/1.1\r\nHost: b.test"),
            ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1\r\nHost: a.test"),
            ("GET //b.test/x HTTP/1.1", "GET //b.test/x HTTP/1.1\r\nHost: a.test"),
            ("GET /x HTTP/1.0", "GET /x HTTP/1.1\r\nHost: a.test"),
            ("GET /x HTTP/1.7", "GET /x HTTP/1.1\r\nHost: a.test"),
        ] {
            let got = without_ours(&format!("{line}\r\nHost: a.test\r\n\r\n"), &how());
            assert_eq!(got, format!("{want}\r\n\r\n"));
        }
        let got = rewritten("GET /x HTTP/1.0\r\n\r\n", &how());
        assert!(got.starts_with("GET /x HTTP/1.1\r\nHost: no-host.invalid\r\n"));
        assert!(!got.contains("X-Forwarded-Host"));
    }

    #[test]
    fn hop_by_hop_fields_go() {
        let got = without_ours(
            "GET / HTTP/1.1\r\nHost: a\r\nX-1: 1\r\nConnection: X-Hop, Host, keep-alive\r\nX-2: 2\r\nX-3: 3\r\nX-Hop: s\r\n\
             Keep-Alive: 1\r\nTE: gzip\r\nProxy-Connection: x\r\nUpgrade: websocket\r\nHTTP2-Settings: a\r\nProxy: p\r\n\
             X-4: 4\r\nX_5: 5\r\nTransfer_Encoding: chunked\r\nTrailer: x\r\n\r\n",
            &how(),
        );
        assert_eq!(got, "GET / HTTP/1.1\r\nHost: a\r\nX-1: 1\r\nX-2: 2\r\nX-3: 3\r\nX-4: 4\r\nTrailer: x\r\n\r\n");
    }

    #[test]
    fn framing_is_written_once() {
        let got = |fields: &str| without_ours(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), &how());
        assert_eq!(
            got("content-length:0005\r\nA: b\r\n"),
            "POST / HTTP/1.1\r\nHost: a\r\nA: b\r\nContent-Length: 5\r\n\r\n"
        );
        assert_eq!(got("Content-Length: 0\r\n"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            got("Connection: Transfer-Encoding\r\ntransfer-encoding: CHUNKED\r\n"),
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
    }

    #[test]
    fn expectations_hops_and_upgrades() {
        let got = |line: &str, fields: &str| without_ours(&format!("{line}\r\nHost: a\r\n{fields}\r\n"), &how());
        assert!(
            got("PUT / HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 5\r\n").contains("Expect: 100-continue\r\n")
        );
        assert!(!got("PUT / HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n").contains("Expect"));
        assert!(!got("PUT / HTTP/1.1", "Expect: 100-continue\r\n").contains("Expect"));
        assert!(got("OPTIONS / HTTP/1.1", "Max-Forwards: 5\r\n").contains("\r\nMax-Forwards: 4\r\n"));
        assert!(got("GET / HTTP/1.1", "Max-Forwards: 5\r\n").contains("\r\nMax-Forwards: 5\r\n"));
        assert_eq!(
            got("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n"),
            "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        let h2c = got("GET / HTTP/1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n");
        assert_eq!(h2c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }

    const TOLD: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX_Forwarded_For: 6.6.6.6\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /p\r\n\
        X-Original-URL: /admin\r\nX-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Request-Id: theirs\r\n\
        X-FORWARDED-FOR: 2.2.2.2\r\nVia: 1.0 fred\r\n\r\n";

    #[test]
    fn what_an_untrusted_peer_tells_is_dropped() {
        let got = rewritten(TOLD, &RequestRewrite { via: Some("ringway"), ..how() });
        assert_eq!(
            got,
            "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 fred\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: a\r\nX-Forwarded-Port: 8080\r\nX-Real-IP: 192.0.2.1\r\n\
             X-Request-Id: 00000000000000000000000000000123\r\nVia: 1.1 ringway\r\n\r\n"
        );
    }

    #[test]
    fn what_a_trusted_peer_tells_is_appended_to() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let got = rewritten(
            TOLD,
            &RequestRewrite { trusted: true, peer: Some(v6), client: Some([2, 2, 2, 2].into()), ..how() },
        );
        assert_eq!(
            got,
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
             X-Forwarded-Prefix: /p\r\nX-Original-URL: /admin\r\nX-Request-Id: theirs\r\nVia: 1.0 fred\r\n\
             X-Forwarded-For: 1.1.1.1, 2.2.2.2, 2001:db8::1\r\nX-Real-IP: 2.2.2.2\r\n\
             Forwarded: for=1.1.1.1, for=\"[2001:db8::1]\"\r\n\r\n"
        );
        let unix = RequestRewrite { trusted: true, peer: None, client: None, ..how() };
        let got =
            rewritten("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\n\r\n", &unix);
        assert!(got.contains("\r\nX-Forwarded-For: 1.1.1.1\r\n") && got.contains("\r\nX-Real-IP: 1.1.1.1\r\n"));
        // A Connection option cannot strip what a proxy has told.
        let got = rewritten(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, X-Forwarded-Proto\r\nX-Forwarded-Proto: https\r\n\r\n",
            &RequestRewrite { trusted: true, ..how() },
        );
        assert!(got.contains("X-Forwarded-Proto: https") && got.contains("X-Forwarded-For: 192.0.2.1"));
    }

    #[test]
    fn underscores_pass_only_if_they_may_and_alias_nothing() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nX_A: 1\r\nX_Request_ID: 2\r\nContent_Length: 5\r\n\r\n";
        let got = without_ours(text, &RequestRewrite { underscores: Underscores::Pass, trusted: true, ..how() });
        assert_eq!(got, "GET / HTTP/1.1\r\nHost: a\r\nX_A: 1\r\n\r\n");
    }

    fn answer(text: &str, method: Method, how: &ResponseRewrite) -> String {
        let mut head = ResponseHead::default();
        head.parse(text.as_bytes(), method).unwrap();
        let mut out = Vec::new();
        response(&head, text.as_bytes(), how, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn to(framing: Framing) -> ResponseRewrite<'static> {
        ResponseRewrite { client_version: Version::Http11, close: false, framing, date: DATE, via: None }
    }

    #[test]
    fn responses() {
        assert_eq!(
            answer(
                "HTTP/1.0 200 Fine\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nServer: s\r\nSet_Cookie: u\r\n\
                 Transfer_Encoding: x\r\nContent-Length: 05\r\n\r\n",
                Method::Get,
                &to(Framing::Length(5))
            ),
            "HTTP/1.1 200 Fine\r\nServer: s\r\nSet_Cookie: u\r\nTransfer_Encoding: x\r\nContent-Length: 5\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
        );
        assert_eq!(
            answer(
                "HTTP/1.1 200\r\nDate: d\r\n\r\n",
                Method::Get,
                &ResponseRewrite { via: Some("r"), ..to(Framing::Chunked) }
            ),
            "HTTP/1.1 200 \r\nDate: d\r\nTransfer-Encoding: chunked\r\nVia: 1.1 r\r\n\r\n"
        );
        let old = ResponseRewrite { client_version: Version::Http10, ..to(Framing::UntilClose) };
        assert_eq!(
            answer(
                "HTTP/1.1 200 OK\r\nDate: d\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                Method::Get,
                &ResponseRewrite { close: true, ..old.clone() }
            ),
            "HTTP/1.1 200 OK\r\nDate: d\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(
            answer(
                "HTTP/1.1 200 OK\r\nDate: d\r\n\r\n",
                Method::Head,
                &ResponseRewrite { framing: Framing::None, ..old }
            ),
            "HTTP/1.1 200 OK\r\nDate: d\r\nConnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn responses_without_a_body() {
        let length = "Date: d\r\nContent-Length: 5\r\n\r\n";
        for (status, method, kept) in [
            ("200", Method::Head, true),
            ("304", Method::Get, true),
            ("204", Method::Get, false),
            ("103", Method::Get, false),
        ] {
            let got = answer(&format!("HTTP/1.1 {status} X\r\n{length}"), method, &to(Framing::None));
            assert_eq!(got.contains("Content-Length: 5\r\n"), kept, "{status}");
        }
        let got =
            answer("HTTP/1.1 200 X\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Head, &to(Framing::None));
        assert_eq!(got, "HTTP/1.1 200 X\r\nDate: d\r\n\r\n");
        let closing = ResponseRewrite { close: true, ..to(Framing::None) };
        let got = answer("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Method::Get, &closing);
        assert_eq!(got, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        let text = "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n";
        assert_eq!(
            answer(text, Method::Get, &to(Framing::None)),
            "HTTP/1.1 101 S\r\nSec-WebSocket-Accept: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
    }

    fn a_request() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            "(GET|POST|DELETE|OPTIONS|FOO) /[a-z/]{0,9}[?]?[a-z=&]{0,5} HTTP/1[.][01]",
            "(GET|PUT|OPTIONS) https?://[a-z.]{1,9}(:[0-9]{1,4})?(/[a-z]{0,4})?[?]?[a-z]{0,3} HTTP/1[.]1",
            "OPTIONS [*] HTTP/1[.]1",
        ];
        let field = prop_oneof![
            "(Content-Length|X-A|X_B|Via|X-Forwarded-For|Max-Forwards): [0-9]{1,3}",
            "(Transfer-Encoding|transfer_encoding): [Cc]hunked",
            "(Connection|Upgrade|TE|Expect|Trailer|Forwarded): (upgrade|close|x-a|100-continue|Content-Length|trailers)",
            "[A-Za-z-]{1,12}:[ \t]*[!-~]{0,9}[ \t]*",
        ];
        (line, proptest::collection::vec(field, 0..8)).prop_map(|(line, fields)| {
            format!("{line}\r\nHost: h.test\r\n{}\r\n", fields.iter().map(|f| format!("{f}\r\n")).collect::<String>())
        })
    }

    proptest! {
        #[test]
        fn what_goes_out_reads_the_same(text in a_request(), trusted: bool, via: bool) {
            let mut head = RequestHead::default();
            if head.parse(text.as_bytes(), Underscores::Drop).is_err() {
                return Ok(());
            }
            let mut out = Vec::new();
            let how = RequestRewrite { trusted, via: via.then_some("ringway"), ..how() };
            request(&head, text.as_bytes(), &how, &mut out);
            prop_assert_eq!(HeadScan::default().request(&out), Ok(Scan::Complete(out.len())));
            let mut again = RequestHead::default();
            prop_assert_eq!(again.parse(&out, Underscores::Reject), Ok(()));
            prop_assert_eq!(again.method_span.of(&out), head.method_span.of(text.as_bytes()));
            prop_assert_eq!(again.framing, head.framing);
            prop_assert_eq!(again.authority.of(&out), head.authority.of(text.as_bytes()));
            prop_assert_eq!(again.query.of(&out), head.query.of(text.as_bytes()));
            let path = |h: &RequestHead, b: &[u8]| match h.path.of(b) {
                b"" => b"/".to_vec(),
                path => path.to_vec(),
            };
            prop_assert_eq!(path(&again, &out), path(&head, text.as_bytes()));
            prop_assert_eq!(again.upgrade.of(&out), head.upgrade.of(text.as_bytes()));
            prop_assert_eq!(again.expect_continue, head.expect_continue);
            let framing = [Known::ContentLength, Known::TransferEncoding].map(|k| again.fields.all(k).count());
            prop_assert!(framing[0] + framing[1] <= 1);
        }
    }
}
