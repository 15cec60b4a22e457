//! What the framing verdict costs.

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::http::Version;
use ringway::http::framing::{Evidence, Message, judge};
use std::hint::black_box;

fn framing(c: &mut Criterion) {
    let value = |text: &'static str| Evidence { value: Some(text.as_bytes()), at: 0, repeated: false };
    for (name, coding, length) in [
        ("none", Evidence::default(), Evidence::default()),
        ("length", Evidence::default(), value("1048576")),
        ("chunked", value("chunked"), Evidence::default()),
    ] {
        c.bench_function(&format!("framing/{name}"), |b| {
            b.iter(|| judge(Message::Request, Version::Http11, black_box(coding), black_box(length)).unwrap())
        });
    }
}

criterion_group!(benches, framing);
criterion_main!(benches);
