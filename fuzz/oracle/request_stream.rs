//! A client's connection: any split of it gives the same requests, the grammar agrees with every verdict, and what goes on
//! is the same requests again. Input: the connection's bytes.

use super::grammar::uri::Target;
use super::grammar::{self, Line, No, head};
use super::policy::{self, Case};
use super::stream::{self, End, Side};
use super::wire;
use ringway::http::body::Body;
use ringway::http::head::{HeadScan, RequestHead, Scan, Underscores};
use ringway::http::reject::Reject;
use ringway::http::reply;
use ringway::http::rewrite::{self, NO_HOST, RequestRewrite};
use ringway::http::{Span, Version};

const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

/// What is told of a request.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    http10: bool,
    path_and_query: Vec<u8>,
    host: Vec<u8>,
    authority: Vec<u8>,
    expect_continue: bool,
    upgrade: Vec<u8>,
    hops: Option<u32>,
    lines: Vec<(Vec<u8>, Vec<u8>)>,
}

type Seen = stream::Seen<Told>;
type Trace = stream::Trace<Told>;

struct Requests;

impl Side for Requests {
    type Told = Told;

    fn scan(&self, scan: &mut HeadScan, bytes: &[u8]) -> Result<Scan, Reject> {
        scan.request(bytes)
    }

    fn head(&mut self, bytes: &[u8]) -> Result<(Seen, Body), Reject> {
        let mut head = RequestHead::default();
        head.parse(bytes, Underscores::Drop)?;
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
        let ours = head.max_forwards == Some(0);
        if ours {
            reply::final_recipient(&head, bytes, DATE, !head.persist, false, &mut out);
        } else {
            rewrite::request(&head, bytes, &how, &mut out);
        }
        let of = |span: Span| span.of(bytes).to_vec();
        let told = Told {
            http10: head.version == Version::Http10,
            path_and_query: [head.path.of(bytes), head.query.of(bytes)].concat(),
            host: of(head.host),
            authority: of(head.authority),
            expect_continue: head.expect_continue,
            upgrade: of(head.upgrade),
            hops: head.max_forwards,
            lines: head.fields.iter().map(|field| (of(field.name), of(field.value))).collect(),
        };
        let body = Body::behind(bytes, &head.fields, head.framing);
        Ok((Seen::new(told, head.framing, (!ours).then_some(head.framing), !head.persist, out), body))
    }
}

/// Judges one connection.
pub fn check(bytes: &[u8]) {
    stream::check(bytes, || Requests, judge_forwarded, |trace| judge_verdicts(bytes, trace));
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
        let case = Case { bytes: rest, request: Some(&head), response: None };
        match stream::judge_body(seen, trace.end, head.framing, &case) {
            Some(bytes) => at += bytes,
            None => return,
        }
    }
    let rest = &bytes[at..];
    let said = head::request(&policy::forgive_request(rest));
    stream::judge_end(trace.end, &said, &Case { bytes: rest, request: said.as_ref().ok(), response: None });
}

/// The same request by both readings, and the right one goes on.
fn judge_head(seen: &Seen, head: &head::Request, bytes: &[u8]) {
    let told = &seen.told;
    assert_eq!(seen.head_bytes, head.bytes);
    assert_eq!((told.http10, !seen.last, told.expect_continue), (head.http10, head.persist, head.expect_continue));
    assert_eq!(wire::framing(seen.framing), head.framing);
    let lines: Vec<_> = head.lines.iter().map(|line| (line.name.clone(), line.value.clone())).collect();
    assert_eq!(told.lines, lines);

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
    assert_eq!(told.path_and_query, path_and_query);
    assert_eq!(told.authority, authority.map(policy::authority_text).unwrap_or_default());
    assert_eq!(told.host, authority.map(|found| found.host.clone()).unwrap_or_default());
    if !told.upgrade.is_empty() {
        let asked = grammar::members(&head.lines, "connection").iter().any(|o| o.eq_ignore_ascii_case(b"upgrade"));
        assert!(asked && !head.http10 && matches!(head.framing, grammar::Framing::None | grammar::Framing::Length(0)));
        assert!(head.lines.iter().any(|line| line.is("upgrade") && line.value == told.upgrade));
    }
    if told.hops == Some(0) {
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
    let host = if told.authority.is_empty() { NO_HOST.to_vec() } else { told.authority.clone() };
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
    assert_eq!(count(&out.lines, "connection"), usize::from(!seen.told.upgrade.is_empty()));
    assert_eq!(count(&out.lines, "upgrade"), usize::from(!seen.told.upgrade.is_empty()));
    let value = |lines: &[Line], name: &str| lines.iter().find(|l| l.is(name)).and_then(|l| grammar::decimal(&l.value));
    if let (true, Some(hops)) = (options || hops, value(&came.lines, "max-forwards")) {
        assert_eq!(value(&out.lines, "max-forwards"), Some((hops - 1).min(u128::from(u32::MAX) - 1)));
    }
}

/// What went on is the same number of requests with the same bodies, for Ringway itself and by the grammar.
fn judge_forwarded(trace: &Trace) {
    let sent: Vec<&Seen> = trace.seen.iter().filter(|seen| seen.onward.is_some()).collect();
    let forwarded = trace.forwarded.concat();
    let mut rest = forwarded.as_slice();
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

    let again = stream::read(Requests, &forwarded, &[forwarded.len()]);
    for (again, seen) in again.seen.iter().zip(&sent) {
        assert_eq!((again.framing, &again.content, &again.trailers), (seen.framing, &seen.content, &seen.trailers));
        let told = |seen: &Seen| (seen.whole, seen.told.expect_continue, seen.told.upgrade.clone());
        assert_eq!(told(again), told(seen));
    }
    match again.end {
        // What Ringway adds to a head may take it over the limits of a head that was just within them.
        End::Refused(Reject { status: 431, .. }) => {}
        // A Max-Forwards that has come down to 0 is answered by the next hop.
        End::Bytes => assert_eq!(again.seen.len(), sent.len()),
        end => panic!("{end:?} in what goes on"),
    }
}
