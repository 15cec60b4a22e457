//! A backend's connection: any split of it gives the same responses, the grammar agrees with every verdict, and what goes
//! to the client is the same responses again. Input: the connection's bytes, perhaps behind a line that begins with `> `
//! and tells of the requests: their methods in order (the last one stands for all further ones, GET by default), `1.0` for
//! clients of HTTP/1.0, `upgrade` if they asked for a WebSocket.

use super::grammar::{self, Line, No, head};
use super::policy::{self, Case};
use super::stream::{self, End, Side};
use super::wire;
use ringway::http::body::Body;
use ringway::http::framing::Framing;
use ringway::http::head::{HeadScan, RequestHead, ResponseHead, Scan};
use ringway::http::reject::{Failure, Fault, Reject};
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

/// What is told of a response.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    method: Method,
    status: u16,
    reason: Vec<u8>,
    http10: bool,
    persist: bool,
    lines: Vec<(Vec<u8>, Vec<u8>)>,
}

type Seen = stream::Seen<Told>;
type Trace = stream::Trace<Told>;

struct Responses<'a> {
    asked: &'a Asked,
    finals: usize,
    interims: u32,
}

fn reject(failure: Failure) -> Reject {
    Reject { status: 502, fault: failure.fault, at: failure.at }
}

impl Side for Responses<'_> {
    type Told = Told;

    fn scan(&self, scan: &mut HeadScan, bytes: &[u8]) -> Result<Scan, Reject> {
        scan.response(bytes).map_err(reject)
    }

    fn head(&mut self, bytes: &[u8]) -> Result<(Seen, Body), Reject> {
        let method = self.asked.method(self.finals);
        let mut head = ResponseHead::default();
        head.parse(bytes, method).map_err(reject)?;
        let asked: &[u8] = if self.asked.upgrade { ASKED } else { b"" };
        head.in_place(bytes, asked, self.interims).map_err(reject)?;
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
        let told = Told {
            method,
            status: head.status,
            reason: head.reason.of(bytes).to_vec(),
            http10: head.version == Version::Http10,
            persist: head.persist,
            lines: head.fields.iter().map(|f| (f.name.of(bytes).to_vec(), f.value.of(bytes).to_vec())).collect(),
        };
        // Behind a 101 stands the tunnel.
        let last = head.status == 101 || (head.status >= 200 && !head.persist);
        let body = Body::behind(bytes, &head.fields, head.framing);
        Ok((Seen::new(told, head.framing, Some(client), last, out), body))
    }
}

/// Judges one connection.
pub fn check(input: &[u8]) {
    let (asked, bytes) = Asked::read(input);
    let side = || Responses { asked: &asked, finals: 0, interims: 0 };
    stream::check(bytes, side, |trace| judge_forwarded(trace, &asked), |trace| judge_verdicts(bytes, trace));
}

/// Compares every verdict with the grammar's.
fn judge_verdicts(bytes: &[u8], trace: &Trace) {
    let mut at = 0;
    for seen in &trace.seen {
        assert_eq!(seen.at, at);
        let rest = &bytes[at..];
        let (forgiven, more) = policy::forgive_response(rest);
        let head = match head::response(&forgiven, seen.told.method == Method::Head) {
            Ok(head) => head,
            Err(no) => panic!("taken, but the grammar says {no:?}: {}", rest.escape_ascii()),
        };
        judge_head(seen, &head, more);
        let case = Case { bytes: rest, request: None, response: Some(&head) };
        match stream::judge_body(seen, trace.end, head.framing, &case) {
            Some(bytes) => at += bytes,
            None => return,
        }
    }
    let rest = &bytes[at..];
    let (forgiven, _) = policy::forgive_response(rest);
    let said = head::response(&forgiven, false);
    match (trace.end, &said) {
        // How many interim responses are too many, and whether a 101 was asked for, stands in no grammar.
        (End::Refused(Reject { fault: Fault::TooManyInterim, .. }), _) => {}
        (End::Refused(Reject { fault: Fault::UnsolicitedUpgrade, .. }), Ok(head)) if head.status == 101 => {}
        (end, said) => {
            stream::judge_end(end, said, &Case { bytes: rest, request: None, response: said.as_ref().ok() });
        }
    }
}

/// The same response by both readings, and the right one goes on.
fn judge_head(seen: &Seen, head: &head::Response, more: usize) {
    assert_eq!(seen.head_bytes + more, head.bytes);
    let told = &seen.told;
    assert_eq!((told.status, &told.reason, told.http10), (head.status, &head.reason, head.http10));
    assert_eq!(wire::framing(seen.framing), head.framing);
    // Ringway closes also where a body was announced that must not come.
    assert!(head.persist || !told.persist);
    assert_eq!(told.lines.len(), head.lines.len());
    for ((name, value), line) in told.lines.iter().zip(&head.lines) {
        assert_eq!(name, &line.name);
        assert!(value == &line.value || line.is("connection"), "{line:?}");
    }
    if seen.out.is_empty() {
        return;
    }
    let out = match head::response(&seen.out, told.method == Method::Head) {
        Ok(out) => out,
        Err(no) => panic!("{no:?} in what goes on: {}", seen.out.escape_ascii()),
    };
    assert_eq!((out.bytes, out.status, &out.reason, out.http10), (seen.out.len(), head.status, &head.reason, false));
    let client = seen.onward.expect("a response goes on");
    assert_eq!(out.framing, wire::framing(client));
    let switch = head.status == 101;
    let dropped = |line: &Line| {
        let told = client == Framing::None && head.status >= 200 && head.status != 204;
        wire::is_hop_by_hop(line, &head.lines)
            || (line.is("content-length") && !told)
            || (line.is("trailer") && client != Framing::Chunked)
    };
    let kept: Vec<&Line> = head.lines.iter().filter(|line| !dropped(line)).collect();
    let dated = head.lines.iter().any(|line| line.is("date"));
    let own = |line: &Line| {
        wire::is_in(&["connection", "transfer-encoding", "upgrade", "via"], &line.name)
            || (line.is("content-length") && client != Framing::None)
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
            assert!(asked.http10 && seen.told.status < 200);
            continue;
        }
        let head = head::response(out, seen.told.method == Method::Head).expect("judged before");
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
                assert!(!seen.whole || seen.onward == Some(Framing::UntilClose));
            }
        }
        // An end of the connection is the only end that a client of HTTP/1.0 can be shown.
        assert!(!asked.http10 || head.framing != grammar::Framing::Chunked);
    }
}
