//! A backend's connection: any split of it gives the same responses, the grammar agrees with every verdict, and what goes
//! to the client is the same responses again. Input: the connection's bytes, perhaps behind a line that begins with `> `
//! and tells of the requests: their methods in order (the last one stands for all further ones, GET by default), `1.0` for
//! clients of HTTP/1.0, `upgrade` if they asked for a WebSocket.

use super::grammar::{self, Line, No, head};
use super::policy::{self, Case};
use super::{pieces, wire};
use ringway::http::body::{Body, Encoding};
use ringway::http::framing::Framing;
use ringway::http::head::{HeadScan, RequestHead, ResponseHead, Scan};
use ringway::http::reject::{Failure, Fault};
use ringway::http::rewrite::{self, ResponseRewrite};
use ringway::http::{Method, Version, persist};

const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";
const ASKED: &[u8] = b"websocket";

/// What the backend was asked.
#[derive(Clone, Debug)]
struct Asked {
    methods: Vec<Method>,
    http10: bool,
    upgrade: bool,
}

impl Asked {
    /// The line in front, if there is one, and what is behind it.
    fn read(input: &[u8]) -> (Asked, &[u8]) {
        let mut asked = Asked { methods: Vec::new(), http10: false, upgrade: false };
        let mut stream = input;
        if let Some(rest) = input.strip_prefix(b"> ") {
            let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            for word in rest[..end].split(|&byte| byte == b' ') {
                match word {
                    b"1.0" => asked.http10 = true,
                    b"upgrade" => asked.upgrade = true,
                    method => asked.methods.push(Method::of(method)),
                }
            }
            stream = &rest[(end + 1).min(rest.len())..];
        }
        (asked, stream)
    }

    fn method(&self, number: usize) -> Method {
        self.methods.get(number).or(self.methods.last()).copied().unwrap_or(Method::Get)
    }
}

/// One response as Ringway saw it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    at: usize,
    head_bytes: usize,
    method: Method,
    status: u16,
    reason: Vec<u8>,
    http10: bool,
    framing: Framing,
    persist: bool,
    lines: Vec<(Vec<u8>, Vec<u8>)>,
    /// The head that goes to the client; nothing for an interim response to a client of HTTP/1.0.
    out: Vec<u8>,
    /// How its body goes to the client.
    client: Framing,
    content: Vec<u8>,
    trailers: Vec<u8>,
    whole: bool,
}

impl Seen {
    fn interim(&self) -> bool {
        self.status < 200
    }
}

#[derive(Clone, Debug, PartialEq)]
enum End {
    /// Well, or within a message.
    Bytes,
    /// Nothing of this connection is read behind this response.
    Close,
    /// A tunnel follows.
    Switched,
    /// The backend's fault, and where in the stream.
    Failed(Fault, usize),
}

#[derive(Debug)]
struct Trace {
    seen: Vec<Seen>,
    end: End,
    /// What went to the clients, each response by itself.
    forwarded: Vec<Vec<u8>>,
}

struct Reading<'a> {
    asked: &'a Asked,
    trace: Trace,
    buffer: Vec<u8>,
    at: usize,
    scan: HeadScan,
    body: Option<Body>,
    finals: usize,
    interims: u32,
}

impl Reading<'_> {
    fn all(bytes: &[u8], asked: &Asked, pieces: &[usize]) -> Trace {
        let mut reading = Reading {
            asked,
            trace: Trace { seen: Vec::new(), end: End::Bytes, forwarded: Vec::new() },
            buffer: Vec::new(),
            at: 0,
            scan: HeadScan::default(),
            body: None,
            finals: 0,
            interims: 0,
        };
        let mut from = 0;
        for piece in pieces {
            reading.buffer.extend_from_slice(&bytes[from..from + piece]);
            from += piece;
            while reading.trace.end == End::Bytes && reading.step() {}
        }
        reading.close();
        reading.trace
    }

    /// The connection ends: a body that ends with it is whole, and the pump writes its end.
    fn close(&mut self) {
        let (Some(body), Some(seen), End::Bytes) = (&self.body, self.trace.seen.last_mut(), &self.trace.end) else {
            return;
        };
        seen.whole = body.complete_at_eof();
        if let (true, Framing::Chunked, Some(out)) = (seen.whole, seen.client, self.trace.forwarded.last_mut()) {
            wire::write_end(body, out);
        }
    }

    fn fail(&mut self, fault: Fault, at: usize) -> bool {
        self.trace.end = End::Failed(fault, self.at + at);
        false
    }

    fn step(&mut self) -> bool {
        let Some(body) = &mut self.body else { return self.head() };
        if !body.is_done() {
            if self.buffer.is_empty() {
                return false;
            }
            let decoded = match body.decode(&mut self.buffer) {
                Ok(decoded) => decoded,
                Err(broken) => return self.fail(broken.fault, broken.at),
            };
            let (Some(seen), Some(out)) = (self.trace.seen.last_mut(), self.trace.forwarded.last_mut()) else {
                return false;
            };
            seen.content.extend_from_slice(&self.buffer[decoded.payload.clone()]);
            let encoding = if seen.client == Framing::Chunked { Encoding::Chunked } else { Encoding::Plain };
            wire::write_body(&self.buffer, &decoded, body, encoding, out);
            self.buffer.drain(..decoded.consumed);
            self.at += decoded.consumed;
        }
        if body.is_done() {
            let Some(seen) = self.trace.seen.last_mut() else { return false };
            seen.trailers = body.trailers().to_vec();
            seen.whole = true;
            if !seen.persist && !seen.interim() {
                self.trace.end = End::Close;
            }
            self.body = None;
            self.scan = HeadScan::default();
        }
        true
    }

    fn head(&mut self) -> bool {
        let len = match self.scan.response(&self.buffer) {
            Ok(Scan::Partial) => return false,
            Ok(Scan::Complete(len)) => len,
            Err(Failure { fault, at }) => return self.fail(fault, at),
        };
        let method = self.asked.method(self.finals);
        let bytes = &self.buffer[..len];
        let mut head = ResponseHead::default();
        if let Err(Failure { fault, at }) = head.parse(bytes, method) {
            return self.fail(fault, at);
        }
        let asked: &[u8] = if self.asked.upgrade { ASKED } else { b"" };
        if let Err(Failure { fault, at }) = head.in_place(bytes, asked, self.interims) {
            return self.fail(fault, at);
        }
        if head.is_interim() {
            self.interims += 1;
        } else {
            self.interims = 0;
            self.finals += 1;
        }
        let version = if self.asked.http10 { Version::Http10 } else { Version::Http11 };
        let request = RequestHead { version, ..RequestHead::default() };
        let side = persist::client_side(&request, &head);
        let client = if head.status < 200 { Framing::None } else { side.framing };
        let how = ResponseRewrite {
            client_version: version,
            close: head.status >= 200 && !side.persist,
            framing: client,
            date: DATE,
            via: Some("ringway"),
        };
        let mut out = Vec::new();
        if !head.is_interim() || !self.asked.http10 {
            rewrite::response(&head, bytes, &how, &mut out);
        }
        self.trace.forwarded.push(out.clone());
        self.trace.seen.push(Seen {
            at: self.at,
            head_bytes: len,
            method,
            status: head.status,
            reason: head.reason.of(bytes).to_vec(),
            http10: head.version == Version::Http10,
            framing: head.framing,
            persist: head.persist,
            lines: head.fields.iter().map(|f| (f.name.of(bytes).to_vec(), f.value.of(bytes).to_vec())).collect(),
            out,
            client,
            content: Vec::new(),
            trailers: Vec::new(),
            whole: head.status == 101,
        });
        if head.status == 101 {
            self.trace.end = End::Switched;
        }
        self.body = Some(Body::new(head.framing));
        self.buffer.drain(..len);
        self.at += len;
        true
    }
}

/// Judges one connection.
pub fn check(input: &[u8]) {
    let (asked, bytes) = Asked::read(input);
    let mut first: Option<Trace> = None;
    for split in pieces::splits(bytes) {
        let mut trace = Reading::all(bytes, &asked, &split);
        judge_forwarded(&trace, &asked);
        if let (End::Failed(..), Some(seen)) = (&trace.end, trace.seen.last_mut())
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
        let (forgiven, more) = policy::forgive_response(rest);
        let head = match head::response(&forgiven, seen.method == Method::Head) {
            Ok(head) => head,
            Err(no) => panic!("taken, but the grammar says {no:?}: {}", rest.escape_ascii()),
        };
        judge_head(seen, &head, more);
        let body = grammar::body::body(head.framing, &rest[seen.head_bytes..]);
        match (&body.end, seen.whole) {
            (Ok(end), true) => {
                assert_eq!(seen.content, body.content);
                wire::judge_trailers(&wire::trailer_lines(&seen.trailers), &end.trailers);
                at += seen.head_bytes + end.bytes;
                continue;
            }
            (Err(No::Partial), true) => {
                assert_eq!(head.framing, grammar::Framing::UntilClose);
                assert_eq!(seen.content, body.content);
            }
            (Err(No::Refused { .. }), false) => {}
            (end, false) => match trace.end {
                End::Failed(fault, _) => {
                    let case = Case { bytes: rest, request: None, response: Some(&head) };
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
    let (forgiven, _) = policy::forgive_response(rest);
    match (&trace.end, head::response(&forgiven, false)) {
        // How many interim responses are too many stands in no grammar.
        (End::Close | End::Switched | End::Failed(Fault::TooManyInterim, _), _) => {}
        (_, Err(No::Refused { .. })) => {}
        (End::Bytes, Err(No::Partial)) => {}
        (End::Bytes, Ok(_)) => panic!("the end of a head was not seen: {}", rest.escape_ascii()),
        // Whether a 101 was asked for stands in no grammar.
        (End::Failed(Fault::UnsolicitedUpgrade, _), Ok(head)) if head.status == 101 => {}
        (End::Failed(fault, _), said) => {
            let case = Case { bytes: rest, request: None, response: said.as_ref().ok() };
            let text = rest.escape_ascii();
            assert!(policy::allows(*fault, &case), "refused for {fault:?}, the grammar says {said:?}: {text}");
        }
    }
}

/// The same response by both readings, and the right one goes on.
fn judge_head(seen: &Seen, head: &head::Response, more: usize) {
    assert_eq!(seen.head_bytes + more, head.bytes);
    assert_eq!((seen.status, &seen.reason, seen.http10), (head.status, &head.reason, head.http10));
    assert_eq!(wire::framing(seen.framing), head.framing);
    // Ringway closes also where a body was announced that must not come.
    assert!(head.persist || !seen.persist);
    assert_eq!(seen.lines.len(), head.lines.len());
    for ((name, value), line) in seen.lines.iter().zip(&head.lines) {
        assert_eq!(name, &line.name);
        assert!(value == &line.value || line.is("connection"), "{line:?}");
    }
    if seen.out.is_empty() {
        return;
    }
    let out = match head::response(&seen.out, seen.method == Method::Head) {
        Ok(out) => out,
        Err(no) => panic!("{no:?} in what goes on: {}", seen.out.escape_ascii()),
    };
    assert_eq!((out.bytes, out.status, &out.reason, out.http10), (seen.out.len(), head.status, &head.reason, false));
    assert_eq!(out.framing, wire::framing(seen.client));
    let switch = head.status == 101;
    let dropped = |line: &Line| {
        let told = seen.client == Framing::None && head.status >= 200 && head.status != 204;
        wire::is_hop_by_hop(line, &head.lines)
            || (line.is("content-length") && !told)
            || (line.is("trailer") && seen.client != Framing::Chunked)
    };
    let kept: Vec<&Line> = head.lines.iter().filter(|line| !dropped(line)).collect();
    let dated = head.lines.iter().any(|line| line.is("date"));
    let own = |line: &Line| {
        wire::is_in(&["connection", "transfer-encoding", "upgrade", "via"], &line.name)
            || (line.is("content-length") && seen.client != Framing::None)
            || (line.is("date") && !dated)
    };
    let sent: Vec<&Line> = out.lines.iter().filter(|line| !own(line)).collect();
    let kept_here: Vec<&Line> = kept.iter().copied().filter(|line| !line.is("via")).collect();
    assert_eq!(sent, kept_here);
    let count = |lines: &[Line], name: &str| lines.iter().filter(|line| line.is(name)).count();
    assert_eq!(count(&out.lines, "via"), count(&head.lines, "via") + 1);
    assert_eq!(count(&out.lines, "upgrade"), usize::from(switch));
    assert!(!switch || grammar::members(&out.lines, "upgrade") == grammar::members(&head.lines, "upgrade"));
    assert!(count(&out.lines, "connection") <= 1);
    if head.status >= 200 && !dated {
        assert_eq!(count(&out.lines, "date"), 1);
    }
}

/// What went on is one response each, with the same body.
fn judge_forwarded(trace: &Trace, asked: &Asked) {
    for (seen, out) in trace.seen.iter().zip(&trace.forwarded) {
        if out.is_empty() {
            assert!(asked.http10 && seen.interim());
            continue;
        }
        let head = head::response(out, seen.method == Method::Head).expect("judged before");
        let body = grammar::body::body(head.framing, &out[head.bytes..]);
        assert_eq!(body.content, seen.content);
        match body.end {
            Ok(end) => {
                assert!(seen.whole);
                assert_eq!(head.bytes + end.bytes, out.len(), "bytes behind a response");
                assert_eq!(end.trailers, wire::trailer_lines(&seen.trailers));
            }
            Err(no) => {
                assert_eq!(no, No::Partial);
                assert!(!seen.whole || seen.client == Framing::UntilClose);
            }
        }
        // An end of the connection is the only end that a client of HTTP/1.0 can be shown.
        assert!(!asked.http10 || head.framing != grammar::Framing::Chunked);
    }
}
