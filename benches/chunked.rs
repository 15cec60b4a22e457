//! What it costs to walk a chunked body.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringway::http::body::Body;
use ringway::http::framing::Framing;

fn chunked(c: &mut Criterion) {
    for (name, size, count) in [("one_16k", 16 * 1024, 1), ("many_100", 100, 160), ("many_1", 1, 4000)] {
        let chunk = [format!("{size:x}\r\n").as_bytes(), &vec![b'x'; size], b"\r\n"].concat();
        let input = [chunk.repeat(count), b"0\r\n\r\n".to_vec()].concat();
        let mut group = c.benchmark_group("chunked");
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || (Body::new(Framing::Chunked), input.clone()),
                |(body, bytes)| body.decode(bytes).unwrap(),
                BatchSize::SmallInput,
            )
        });
        group.finish();
    }
}

criterion_group!(benches, chunked);
criterion_main!(benches);
