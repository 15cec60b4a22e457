//! What it costs to write a head that goes on, without and with the parsing before it.

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::http::framing::Framing;
use ringway::http::head::{HeadScan, RequestHead, ResponseHead, Underscores};
use ringway::http::rewrite::{self, RequestRewrite, ResponseRewrite};
use ringway::http::{Method, Version};
use std::hint::black_box;

const CURL: &[u8] = include_bytes!("../tests/data/corpus/rewrite/curl");
const BROWSER: &[u8] = include_bytes!("../tests/data/corpus/rewrite/browser");
const RESPONSE: &[u8] = include_bytes!("../tests/data/corpus/rewrite/response");

fn rewriting(c: &mut Criterion) {
    let how = RequestRewrite {
        peer: Some([192, 0, 2, 17].into()),
        trusted: false,
        client: Some([192, 0, 2, 17].into()),
        scheme: "http",
        port: 8080,
        request_id: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        via: Some("ringway"),
        underscores: Underscores::Drop,
    };
    let mut out = Vec::with_capacity(16 * 1024);
    let mut head = RequestHead::default();
    for (name, bytes) in [("curl", CURL), ("browser", BROWSER)] {
        head.parse(bytes, Underscores::Drop).unwrap();
        c.bench_function(&format!("rewrite/request/{name}"), |b| {
            b.iter(|| {
                out.clear();
                rewrite::request(black_box(&head), black_box(bytes), &how, &mut out)
            })
        });
        c.bench_function(&format!("rewrite/scan_parse_request/{name}"), |b| {
            b.iter(|| {
                out.clear();
                HeadScan::default().request(black_box(bytes)).unwrap();
                head.parse(black_box(bytes), Underscores::Drop).unwrap();
                rewrite::request(&head, bytes, &how, &mut out)
            })
        });
    }
    let mut head = ResponseHead::default();
    let how = ResponseRewrite {
        client_version: Version::Http11,
        close: false,
        framing: Framing::Length(5),
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        via: Some("ringway"),
    };
    c.bench_function("rewrite/parse_response", |b| {
        b.iter(|| {
            out.clear();
            head.parse(black_box(RESPONSE), Method::Get).unwrap();
            rewrite::response(&head, RESPONSE, &how, &mut out)
        })
    });
}

criterion_group!(benches, rewriting);
criterion_main!(benches);
