//! The grammar itself, by examples of the RFCs.

use crate::oracle::grammar::uri::{self, Target};
use crate::oracle::grammar::{Framing, No, body, head};
use crate::oracle::policy::POLICIES;

fn refused<T: std::fmt::Debug>(said: Result<T, No>, why: &str) {
    match said {
        Err(No::Refused { rule, .. }) => assert_eq!(rule, why),
        other => panic!("{other:?} instead of {why}"),
    }
}

#[test]
fn request_heads() {
    let text = b"\r\nPOST /where?q=now HTTP/1.1\r\nHost: www.example.org:81\r\nContent-Length:\t3 \r\n\r\nabc";
    let head = head::request(text).unwrap();
    assert_eq!(
        (head.bytes, head.empty_lines, head.framing, head.persist),
        (text.len() - 3, 1, Framing::Length(3), true)
    );
    assert_eq!(head.target, Target::Origin { path: b"/where".to_vec(), query: b"?q=now".to_vec() });
    for end in 0..head.bytes {
        assert_eq!(head::request(&text[..end]), Err(No::Partial));
    }
    let with = |line: &str, fields: &str| head::request(format!("{line}\r\n{fields}\r\n").as_bytes());
    refused(with("GET  / HTTP/1.1", "Host: a\r\n"), "request-target");
    refused(with("GET / http/1.1", "Host: a\r\n"), "HTTP-version");
    refused(with("GET / HTTP/2.0", "Host: a\r\n"), "major version");
    refused(with("GET / HTTP/1.1", ""), "Host is missing");
    refused(with("GET / HTTP/1.1", "Host: a\r\nHost: a\r\n"), "Host is repeated");
    refused(with("GET / HTTP/1.1", "Host: a b\r\n"), "Host");
    refused(with("GET / HTTP/1.1", "Host : a\r\n"), "field-line");
    refused(with("GET / HTTP/1.1", "Host: a\r\n b\r\n"), "field-name");
    refused(with("GET / HTTP/1.1", "Host: a\r\nTransfer-Encoding: gzip\r\n"), "Transfer-Encoding");
    refused(with("GET / HTTP/1.1", "Host: a\r\nContent-Length: 5, 6\r\n"), "Content-Length with two values");
    assert_eq!(with("GET / HTTP/1.1", "Host: a\r\nContent-Length: 5, 5\r\n").unwrap().framing, Framing::Length(5));
    refused(with("TRACE / HTTP/1.1", "Host: a\r\nContent-Length: 1\r\n"), "TRACE with content");
    assert!(!with("GET / HTTP/1.0", "").unwrap().persist);
}

#[test]
fn targets() {
    for good in ["/", "//a", "/a;b=c/%41?/?", "http://a", "HTTP://a:?b", "https://[::1]:5/x", "urn:x", "a:80"] {
        assert!(uri::request_target(b"GET", good.as_bytes()).is_some(), "{good}");
    }
    for bad in
        ["*", "a", "/%4", "/%4g", "/a#b", "/|", "http:/a", "http://", "http://u@a/", "http://a:x/", "1:2", "/\u{e9}"]
    {
        assert!(uri::request_target(b"GET", bad.as_bytes()).is_none(), "{bad}");
    }
    assert!(uri::request_target(b"CONNECT", b"a:80").is_some() && uri::request_target(b"CONNECT", b"a:").is_none());
}

#[test]
fn hosts() {
    for good in [
        "",
        "a",
        "a.",
        "a:",
        "1.2.3.4:5",
        "%41",
        "[::]",
        "[1:2:3:4:5:6:7:8]",
        "[::1.2.3.4]",
        "[1::8]",
        "[v1.a:b]",
        "a!$&'()*+,;=",
    ] {
        assert!(uri::authority(good.as_bytes()).is_some(), "{good}");
    }
    for bad in [
        "a b",
        "a/b",
        "[",
        "[]",
        "[::1",
        "[::1]a",
        "[1:2:3:4:5:6:7]",
        "[1:2:3:4:5:6:7:8:9]",
        "[1::2::3]",
        "[12345::]",
        "[1:::2]",
        "[::1.2.3]",
        "[::01.2.3.4]",
        "[::1.2.3.256]",
        "[fe80::1%25eth0]",
        "[v.a]",
        "[v1.]",
        "a:b",
        "a:1:2",
        "%4",
    ] {
        assert!(uri::authority(bad.as_bytes()).is_none(), "{bad}");
    }
}

#[test]
fn response_heads() {
    let head = head::response(b"HTTP/1.1 200 \r\n\r\n", false).unwrap();
    assert_eq!((head.status, head.framing, head.persist), (200, Framing::UntilClose, false));
    let head = head::response(b"HTTP/1.0 304 Not\tModified\r\nContent-Length: 9\r\n\r\n", false).unwrap();
    assert_eq!((head.framing, head.persist, head.http10), (Framing::None, false, true));
    refused(head::response(b"HTTP/1.1 200\r\n", false), "status-line");
    refused(head::response(b"HTTP/1.1 600 x\r\n", false), "status-code");
    refused(head::response(b"HTTP/1.1 101 x\r\n\r\n", false), "101 without Upgrade");
}

#[test]
fn chunked_bodies() {
    let read = |text: &str| body::body(Framing::Chunked, text.as_bytes());
    let good = "4;a=b ; c = \"d\\\" \"\r\nWiki\r\n0000\r\nA: b\r\n\r\n";
    let whole = read(good);
    assert_eq!((whole.content.as_slice(), whole.end.map(|end| end.bytes)), (&b"Wiki"[..], Ok(good.len())));
    for end in 0..good.len() {
        assert_eq!(read(&good[..end]).end, Err(No::Partial));
    }
    for (bad, why) in [
        ("g", "chunk-size"),
        (";", "chunk-size"),
        ("1 \r", "chunk-ext"),
        ("1;\r", "chunk-ext-name"),
        ("1;a=\r", "chunk-ext-val"),
        ("1;a=\"\n", "qdtext"),
        ("1;a=\"b\" \r", "chunk-ext"),
        ("1\n", "chunk"),
        ("1\r\nab", "chunk-data"),
        ("0\r\nA b", "field-line"),
    ] {
        refused(read(bad).end, why);
    }
}

#[test]
fn every_policy_says_why() {
    assert!(POLICIES.iter().all(|policy| !policy.why.is_empty()));
}
