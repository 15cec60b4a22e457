//! What goes on parses, strictly, to the same request or response.

use ringway::http::forwarded;
use ringway::http::framing::Framing;
use ringway::http::head::{Known, RequestHead, ResponseHead, Underscores};
use ringway::http::persist;
use ringway::http::reply;
use ringway::http::rewrite::{self, NO_HOST, RequestRewrite, ResponseRewrite};
use ringway::http::{Method, Version};

const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

fn request(bytes: &[u8], trusted: bool) {
    let mut head = RequestHead::default();
    if head.parse(bytes, Underscores::Drop).is_err() {
        return;
    }
    let peer = Some([192, 0, 2, 1].into());
    let client = forwarded::client(&head, bytes, peer, &|_| trusted);
    let mut out = Vec::new();
    if head.max_forwards == Some(0) {
        return reply::final_recipient(&head, bytes, DATE, true, false, &mut out);
    }
    let how = RequestRewrite {
        peer,
        trusted,
        client,
        scheme: "http",
        port: 80,
        request_id: 7,
        via: Some("ringway"),
        underscores: Underscores::Drop,
    };
    rewrite::request(&head, bytes, &how, &mut out);
    let mut again = RequestHead::default();
    match again.parse(&out, Underscores::Reject) {
        Ok(()) => {}
        // What is added may exceed the limits of a head that was just within them.
        Err(reject) => return assert_eq!(reject.status, 431, "{reject:?}: {}", out.escape_ascii()),
    }
    assert_eq!(again.version, Version::Http11);
    assert_eq!(again.method_span.of(&out), head.method_span.of(bytes));
    assert_eq!(again.query.of(&out), head.query.of(bytes));
    assert!(again.path.of(&out) == head.path.of(bytes) || head.path.is_empty());
    assert_eq!(again.framing, head.framing);
    assert_eq!(again.upgrade.of(&out), head.upgrade.of(bytes));
    assert_eq!(again.expect_continue, head.expect_continue);
    let authority = again.authority.of(&out);
    assert!(authority == head.authority.of(bytes) || (head.authority.is_empty() && authority == NO_HOST));
    assert!(again.fields.all(Known::ContentLength).chain(again.fields.all(Known::TransferEncoding)).count() <= 1);
    assert_eq!(again.fields.all(Known::XForwardedFor).count(), 1);
    assert!(trusted || again.fields.all(Known::XForwardedHost).count() <= 1);
    assert!(again.fields.iter().all(|f| !f.hop || !head.upgrade.is_empty() || f.known == Known::TransferEncoding));
}

fn response(bytes: &[u8], version: Version, method: Method) {
    let mut head = ResponseHead::default();
    if head.parse(bytes, method).is_err() {
        return;
    }
    let request = RequestHead { version, ..RequestHead::default() };
    let side = persist::client_side(&request, &head);
    let how = ResponseRewrite {
        client_version: version,
        close: !side.persist,
        framing: side.framing,
        date: DATE,
        via: Some("ringway"),
    };
    let mut out = Vec::new();
    rewrite::response(&head, bytes, &how, &mut out);
    let mut again = ResponseHead::default();
    match again.parse(&out, method) {
        Ok(()) => {}
        Err(failure) => return assert_eq!(failure.fault.status(), 431, "{failure:?}: {}", out.escape_ascii()),
    }
    assert_eq!(again.status, head.status);
    assert_eq!(again.reason.of(&out), head.reason.of(bytes));
    assert_eq!(again.framing, side.framing);
    assert!(again.framing != Framing::Chunked || version == Version::Http11);
    assert!(head.status == 101 || again.persist || !side.persist);
}

/// Judges one input.
pub fn check(bytes: &[u8]) {
    request(bytes, true);
    request(bytes, false);
    response(bytes, Version::Http11, Method::Get);
    response(bytes, Version::Http10, Method::Get);
    response(bytes, Version::Http11, Method::Head);
}
