//! What it costs to find the end of a head and to judge it.

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::http::Method;
use ringway::http::head::{HeadScan, RequestHead, ResponseHead, Underscores};
use std::hint::black_box;

const CURL: &[u8] = include_bytes!("../tests/data/corpus/head/curl");
const BROWSER: &[u8] = include_bytes!("../tests/data/corpus/head/browser");
const RESPONSE: &[u8] = include_bytes!("../tests/data/corpus/head/response");

fn head(c: &mut Criterion) {
    for (name, bytes) in [("curl", CURL), ("browser", BROWSER)] {
        c.bench_function(&format!("head/scan/{name}"), |b| {
            b.iter(|| HeadScan::default().request(black_box(bytes)).unwrap())
        });
        let mut head = RequestHead::default();
        c.bench_function(&format!("head/parse/{name}"), |b| {
            b.iter(|| head.parse(black_box(bytes), Underscores::Drop).unwrap())
        });
    }
    let mut head = ResponseHead::default();
    c.bench_function("head/parse/response", |b| b.iter(|| head.parse(black_box(RESPONSE), Method::Get).unwrap()));
}

criterion_group!(benches, head);
criterion_main!(benches);
