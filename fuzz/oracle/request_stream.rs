//! A client's connection: any split of it gives the same requests, the grammar agrees with every verdict, and what goes on
//! is the same requests again. Input: the connection's bytes.

use super::grammar::uri::Target;
use super::grammar::{self, Line, No, head};
use super::policy::{self, Case};
use super::{pieces, wire};
use ringway::http::body::{Body, Encoding};
use ringway::http::framing::Framing;
use ringway::http::head::{HeadScan, RequestHead, Scan, Underscores};
use ringway::http::reject::{Fault, Reject};
use ringway::http::reply;
use ringway::http::rewrite::{self, NO_HOST, RequestRewrite};
use ringway::http::{Span, Version};

const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

/// One request as Ringway saw it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    /// Where it begins in the stream.
    at: usize,
    head_bytes: usize,
    http10: bool,
    path_and_query: Vec<u8>,
    host: Vec<u8>,
    authority: Vec<u8>,
    framing: Framing,
    persist: bool,
    expect_continue: bool,
    upgrade: Vec<u8>,
    hops: Option<u32>,
    lines: Vec<(Vec<u8>, Vec<u8>)>,
    /// The head that goes on, or the answer if the request does not.
    out: Vec<u8>,
    content: Vec<u8>,
    trailers: Vec<u8>,
    /// Its end was seen.
    whole: bool,
}

/// How a connection's bytes ended.
#[derive(Clone, Debug, PartialEq)]
enum End {
    /// Well, or within a message.
    Bytes,
    /// Nothing is read behind this request.
    Close,
    /// Refused: status, fault, and where in the stream.
    Refused(u16, Fault, usize),
}

#[derive(Debug)]
struct Trace {
    seen: Vec<Seen>,
    end: End,
    /// What went on, as one stream.
    forwarded: Vec<u8>,
}

/// What the session does with these bytes as far as it is pure.
struct Reading {
    trace: Trace,
    /// Received and not yet used, beginning at `at` in the stream.
    buffer: Vec<u8>,
    at: usize,
    scan: HeadScan,
    body: Option<Body>,
}

impl Reading {
    fn all(bytes: &[u8], pieces: &[usize]) -> Trace {
        let trace = Trace { seen: Vec::new(), end: End::Bytes, forwarded: Vec::new() };
        let mut reading = Reading { trace, buffer: Vec::new(), at: 0, scan: HeadScan::default(), body: None };
        let mut from = 0;
        for piece in pieces {
            reading.buffer.extend_from_slice(&bytes[from..from + piece]);
            from += piece;
            while reading.trace.end == End::Bytes && reading.step() {}
        }
        reading.trace
    }

    fn refuse(&mut self, status: u16, fault: Fault, at: usize) -> bool {
        self.trace.end = End::Refused(status, fault, self.at + at);
        false
    }

    /// One head or one piece of a body; `false` if more bytes are needed.
    fn step(&mut self) -> bool {
        let Some(body) = &mut self.body else { return self.head() };
        if !body.is_done() {
            if self.buffer.is_empty() {
                return false;
            }
            let decoded = match body.decode(&mut self.buffer) {
                Ok(decoded) => decoded,
                Err(broken) => return self.refuse(broken.fault.status(), broken.fault, broken.at),
            };
            let Some(seen) = self.trace.seen.last_mut() else { return false };
            seen.content.extend_from_slice(&self.buffer[decoded.payload.clone()]);
            if seen.hops != Some(0) {
                let encoding = if seen.framing == Framing::Chunked { Encoding::Chunked } else { Encoding::Plain };
                wire::write_body(&self.buffer, &decoded, body, encoding, &mut self.trace.forwarded);
            }
            self.buffer.drain(..decoded.consumed);
            self.at += decoded.consumed;
        }
        if body.is_done() {
            let Some(seen) = self.trace.seen.last_mut() else { return false };
            seen.trailers = body.trailers().to_vec();
            seen.whole = true;
            if !seen.persist {
                self.trace.end = End::Close;
            }
            self.body = None;
            self.scan = HeadScan::default();
        }
        true
    }

    fn head(&mut self) -> bool {
        let len = match self.scan.request(&self.buffer) {
            Ok(Scan::Partial) => return false,
            Ok(Scan::Complete(len)) => len,
            Err(Reject { status, fault, at }) => return self.refuse(status, fault, at),
        };
        let bytes = &self.buffer[..len];
        let mut head = RequestHead::default();
        if let Err(Reject { status, fault, at }) = head.parse(bytes, Underscores::Drop) {
            return self.refuse(status, fault, at);
        }
        let peer = Some([192, 0, 2, 1].into());
        let how = RequestRewrite {
            peer,
            trusted: false,
            client: peer,
            scheme: "http",
            port: 80,
            request_id: 7,
            via: Some("ringway"),
            underscores: Underscores::Drop,
        };
        let mut out = Vec::new();
        if head.max_forwards == Some(0) {
            reply::final_recipient(&head, bytes, DATE, !head.persist, false, &mut out);
        } else {
            rewrite::request(&head, bytes, &how, &mut out);
            self.trace.forwarded.extend_from_slice(&out);
        }
        let of = |span: Span| span.of(bytes).to_vec();
        self.trace.seen.push(Seen {
            at: self.at,
            head_bytes: len,
            http10: head.version == Version::Http10,
            path_and_query: [head.path.of(bytes), head.query.of(bytes)].concat(),
            host: of(head.host),
            authority: of(head.authority),
            framing: head.framing,
            persist: head.persist,
            expect_continue: head.expect_continue,
            upgrade: of(head.upgrade),
            hops: head.max_forwards,
            lines: head.fields.iter().map(|field| (of(field.name), of(field.value))).collect(),
            out,
            ..Seen::default()
        });
        self.body = Some(Body::new(head.framing));
        self.buffer.drain(..len);
        self.at += len;
        true
    }
}

/// Judges one connection.
pub fn check(bytes: &[u8]) {
    let mut first: Option<Trace> = None;
    for split in pieces::splits(bytes) {
        let mut trace = Reading::all(bytes, &split);
        judge_forwarded(&trace);
        // What of a broken body had gone on before it broke depends on the split, and on nothing else does anything.
        if let (End::Refused(..), Some(seen)) = (&trace.end, trace.seen.last_mut())
            && !seen.whole
        {
            seen.content.clear();
        }
        match &first {
            None => {
                judge_verdicts(bytes, &trace);
                first = Some(trace);
            }
            Some(first) => assert_eq!((&trace.seen, &trace.end), (&first.seen, &first.end), "pieces of {split:?}"),
        }
    }
}

/// Compares every verdict with the grammar's.
fn judge_verdicts(bytes: &[u8], trace: &Trace) {
    let mut at = 0;
    for seen in &trace.seen {
        assert_eq!(seen.at, at);
        let rest = &bytes[at..];
        let head = match head::request(&policy::forgive_request(rest)) {
            Ok(head) => head,
            Err(no) => panic!("taken, but the grammar says {no:?}: {}", rest.escape_ascii()),
        };
        judge_head(seen, &head, rest);
        let body = grammar::body::body(head.framing, &rest[head.bytes..]);
        match (&body.end, seen.whole) {
            (Ok(end), true) => {
                assert_eq!(seen.content, body.content);
                wire::judge_trailers(&wire::trailer_lines(&seen.trailers), &end.trailers);
                at += head.bytes + end.bytes;
                continue;
            }
            (Err(No::Refused { .. }), false) => {}
            (end, false) => match trace.end {
                End::Refused(_, fault, _) => {
                    let case = Case { bytes: rest, request: Some(&head), response: None };
                    assert!(policy::allows(fault, &case), "a body refused for {fault:?}, the grammar says {end:?}");
                }
                _ => {
                    assert_eq!(*end, Err(No::Partial), "the end of a body was not seen");
                    assert_eq!(seen.content, body.content);
                }
            },
            (end, true) => panic!("a body was taken, the grammar says {end:?}"),
        }
        return;
    }
    let rest = &bytes[at..];
    let said = head::request(&policy::forgive_request(rest));
    match (&trace.end, said) {
        (End::Close, _) => assert!(trace.seen.last().is_some_and(|seen| !seen.persist)),
        (_, Err(No::Refused { .. })) => {}
        (End::Bytes, Err(No::Partial)) => {}
        (End::Bytes, Ok(_)) => panic!("the end of a head was not seen: {}", rest.escape_ascii()),
        (End::Refused(_, fault, _), said) => {
            let case = Case { bytes: rest, request: said.as_ref().ok(), response: None };
            let text = rest.escape_ascii();
            assert!(policy::allows(*fault, &case), "refused for {fault:?}, the grammar says {said:?}: {text}");
        }
    }
}

/// The same request by both readings, and the right one goes on.
fn judge_head(seen: &Seen, head: &head::Request, bytes: &[u8]) {
    assert_eq!(seen.head_bytes, head.bytes);
    assert_eq!((seen.http10, seen.persist, seen.expect_continue), (head.http10, head.persist, head.expect_continue));
    assert_eq!(wire::framing(seen.framing), head.framing);
    let lines: Vec<_> = head.lines.iter().map(|line| (line.name.clone(), line.value.clone())).collect();
    assert_eq!(seen.lines, lines);

    let target_at = 2 * head.empty_lines + head.method.len() + 1;
    let target = &bytes[target_at..target_at + head.target_text.len()];
    let (authority, path_and_query) = match &head.target {
        Target::Origin { .. } => (head.host.as_ref(), target),
        Target::Asterisk => (head.host.as_ref(), &target[1..]),
        Target::Absolute { authority, path, query } => {
            (Some(authority), &target[target.len() - path.len() - query.len()..])
        }
        other => panic!("{other:?} is not served"),
    };
    assert_eq!(seen.path_and_query, path_and_query);
    assert_eq!(seen.authority, authority.map(policy::authority_text).unwrap_or_default());
    assert_eq!(seen.host, authority.map(|found| found.host.clone()).unwrap_or_default());
    if !seen.upgrade.is_empty() {
        let asked = grammar::members(&head.lines, "connection").iter().any(|o| o.eq_ignore_ascii_case(b"upgrade"));
        assert!(asked && !head.http10 && matches!(head.framing, grammar::Framing::None | grammar::Framing::Length(0)));
        assert!(head.lines.iter().any(|line| line.is("upgrade") && line.value == seen.upgrade));
    }
    if seen.hops == Some(0) {
        let answer = head::response(&seen.out, false).expect("an own answer is a response");
        assert_eq!(answer.status, 200);
        return;
    }

    let out = match head::request(&policy::forgive_request(&seen.out)) {
        Ok(out) => out,
        Err(no) => panic!("{no:?} in what goes on: {}", seen.out.escape_ascii()),
    };
    assert_eq!((out.bytes, out.empty_lines, out.http10), (seen.out.len(), 0, false));
    assert_eq!((&out.method, out.framing, out.expect_continue), (&head.method, head.framing, head.expect_continue));
    assert!(out.persist);
    let wanted = match (path_and_query, &head.target) {
        (b"", Target::Asterisk) => b"*".to_vec(),
        (b"", _) if head.method == b"OPTIONS" => b"*".to_vec(),
        (text, _) if text.starts_with(b"/") => text.to_vec(),
        (text, _) => [b"/", text].concat(),
    };
    let sent_at = out.method.len() + 1;
    assert_eq!(seen.out[sent_at..sent_at + out.target_text.len()], wanted);
    let host = if seen.authority.is_empty() { NO_HOST.to_vec() } else { seen.authority.clone() };
    assert_eq!(out.host.as_ref().map(policy::authority_text), Some(host));
    judge_lines(seen, head, &out);
}

/// What Ringway writes itself into a request, whatever stood there.
const WRITTEN: &[&str] = &["host", "content-length", "transfer-encoding", "connection", "upgrade"];

/// All that is end-to-end goes on as it came and in order, and nothing else but what Ringway writes itself.
fn judge_lines(seen: &Seen, came: &head::Request, out: &head::Request) {
    let (options, hops) = (came.method == b"OPTIONS", came.method == b"TRACE" || came.method == b"OPTIONS");
    let dropped = |line: &Line| {
        wire::is_hop_by_hop(line, &came.lines)
            || wire::is_in(WRITTEN, &line.name)
            || wire::is_in(wire::OF_PROXIES, &line.name)
            // CVE-2016-5385; names that CGI takes for others.
            || line.is("proxy")
            || line.name.contains(&b'_')
            || (line.is("expect") && !came.expect_continue)
            || (line.is("max-forwards") && hops)
    };
    let kept: Vec<&Line> = came.lines.iter().filter(|line| !dropped(line)).collect();
    let own = |line: &Line| {
        wire::is_in(WRITTEN, &line.name)
            || wire::is_in(wire::OF_PROXIES, &line.name)
            || (line.is("max-forwards") && hops)
            || (line.is("via") && line.value.ends_with(b" ringway"))
    };
    // A client's own line may look like ours; so its Via lines are counted, not told apart.
    let kept_here: Vec<&Line> = kept.iter().copied().filter(|line| !own(line)).collect();
    let sent: Vec<&Line> = out.lines.iter().filter(|line| !own(line)).collect();
    assert_eq!(sent, kept_here);
    let count = |lines: &[Line], name: &str| lines.iter().filter(|line| line.is(name)).count();
    assert_eq!(count(&out.lines, "via"), kept.iter().filter(|line| line.is("via")).count() + 1);
    for name in ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-real-ip", "x-request-id"] {
        assert_eq!(count(&out.lines, name), 1, "{name}");
    }
    assert_eq!(count(&out.lines, "connection"), usize::from(!seen.upgrade.is_empty()));
    assert_eq!(count(&out.lines, "upgrade"), usize::from(!seen.upgrade.is_empty()));
    let value = |lines: &[Line], name: &str| lines.iter().find(|l| l.is(name)).and_then(|l| grammar::decimal(&l.value));
    if let (true, Some(hops)) = (options || hops, value(&came.lines, "max-forwards")) {
        assert_eq!(value(&out.lines, "max-forwards"), Some((hops - 1).min(u128::from(u32::MAX) - 1)));
    }
}

/// What went on is the same number of requests with the same bodies, for Ringway itself and by the grammar.
fn judge_forwarded(trace: &Trace) {
    let sent: Vec<&Seen> = trace.seen.iter().filter(|seen| seen.hops != Some(0)).collect();
    let mut rest = trace.forwarded.as_slice();
    for seen in &sent {
        let head = match head::request(&policy::forgive_request(rest)) {
            Ok(head) => head,
            Err(no) => panic!("{no:?} in what goes on: {}", rest.escape_ascii()),
        };
        let body = grammar::body::body(head.framing, &rest[head.bytes..]);
        assert_eq!(body.content, seen.content);
        match body.end {
            Ok(end) => {
                assert!(seen.whole);
                assert_eq!(end.trailers, wire::trailer_lines(&seen.trailers));
                rest = &rest[head.bytes + end.bytes..];
            }
            Err(no) => {
                assert!(!seen.whole && no == No::Partial, "{no:?} in a body that goes on");
                rest = &[];
            }
        }
    }
    assert!(rest.is_empty(), "behind the last request: {}", rest.escape_ascii());

    let again = Reading::all(&trace.forwarded, &[trace.forwarded.len()]);
    for (again, seen) in again.seen.iter().zip(&sent) {
        assert_eq!((again.framing, &again.content, &again.trailers), (seen.framing, &seen.content, &seen.trailers));
        assert_eq!(
            (again.whole, again.expect_continue, &again.upgrade),
            (seen.whole, seen.expect_continue, &seen.upgrade)
        );
    }
    match again.end {
        // What Ringway adds to a head may take it over the limits of a head that was just within them.
        End::Refused(431, ..) => {}
        // A Max-Forwards that has come down to 0 is answered by the next hop.
        End::Bytes => assert_eq!(again.seen.len(), sent.len()),
        end => panic!("{end:?} in what goes on"),
    }
}
