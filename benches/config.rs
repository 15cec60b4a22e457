//! What a reload costs: reading and checking config files of some sizes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway::config::check::load;
use std::fmt::Write;
use std::hint::black_box;

/// A config with so many routes, a tenth as many clusters, and two backends in each.
fn config(routes: usize) -> String {
    let clusters = (routes / 10).max(1);
    let mut text = String::from("{\n\"listeners\": {\"main\": \"127.0.0.1:8080\"},\n\"clusters\": {");
    for i in 0..clusters {
        let comma = if i == 0 { "" } else { "," };
        let (a, b) = (i / 250 % 250, i % 250);
        write!(
            text,
            "{comma}\n\"app-{i}\": {{\"backends\": {{\"b1\": \"10.{a}.{b}.1:80\", \"b2\": \"10.{a}.{b}.2:80\"}}}}"
        )
        .unwrap();
    }
    text.push_str("},\n\"routes\": {");
    for i in 0..routes {
        let comma = if i == 0 { "" } else { "," };
        write!(text, "{comma}\n\"host-{i}.example.io/path\": \"app-{}\"", i % clusters).unwrap();
    }
    text.push_str("}}\n");
    text
}

fn load_configs(c: &mut Criterion) {
    let mut group = c.benchmark_group("config/load");
    for routes in [10, 1_000, 100_000] {
        let text = config(routes);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.sample_size(10);
        group.bench_function(format!("{routes} routes"), |b| {
            b.iter(|| load(black_box(&text), "config.json").expect("the config has no faults"));
        });
    }
    // The worst that a typo in one cluster's name can do.
    let text = config(100_000).replace("\": \"app-", "\": \"ap-");
    group.bench_function("100000 dangling routes", |b| {
        b.iter(|| load(black_box(&text), "config.json").expect_err("every route dangles"));
    });
    group.finish();
}

criterion_group!(benches, load_configs);
criterion_main!(benches);
