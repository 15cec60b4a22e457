//! What a look-up costs by the size of the table: ten hosts against a hundred thousand, one path against ten thousand.
//!
//! `table count HOSTS WHICH` makes a thousand look-ups and nothing else; under
//! `valgrind --tool=callgrind --toggle-collect='*count_finds*'` it counts their instructions.

use criterion::Criterion;
use ringway::route::ClusterId;
use ringway::route::counts::ClusterEnds;
use ringway::route::table::{Cluster, NewRoute, Policy, RouteTable};
use ringway::route::waits::Waits;
use std::hint::black_box;
use std::sync::Arc;

fn cluster() -> Arc<Cluster> {
    let policy = Policy::default();
    Arc::new(Cluster {
        id: ClusterId(0),
        name: "c".into(),
        backends: Vec::new(),
        first_state: 0,
        policy,
        ends: Arc::new(ClusterEnds::new(1)),
        waits: Arc::new(Waits::new(1)),
    })
}

fn table(routes: impl Iterator<Item = (String, String)>) -> RouteTable {
    let cluster = cluster();
    let route = |(host, path)| NewRoute { name: format!("{host}{path}"), host, path, cluster: cluster.clone() };
    RouteTable::build(vec![cluster.clone()], routes.map(route).collect()).expect("good routes")
}

/// Hosts of about the same length, a tenth of them wildcards, and a default.
fn hosts(count: usize) -> RouteTable {
    let host = |i| if i % 10 == 9 { format!("*.w{i:06}.example.org") } else { format!("h{i:06}.apps.example.org") };
    table((0..count).map(|i| (host(i), "/".into())).chain([("*".into(), "/".into())]))
}

/// Exact, exact in another case, wildcard, and unknown.
const ASKED: [&str; 4] =
    ["h000004.apps.example.org", "H000004.Apps.example.org", "x.w000009.example.org", "a.b.c.unknown"];

#[inline(never)]
fn count_finds(table: &RouteTable, host: &str) -> usize {
    (0..1000).filter(|_| table.find(black_box(host.as_bytes()), black_box(b"/index.html")).is_some()).count()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, word, count, which] = &args[..]
        && word == "count"
    {
        let (count, which): (usize, usize) = (count.parse().expect("a number"), which.parse().expect("a number"));
        assert_eq!(count_finds(&hosts(count), ASKED[which]), 1000);
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for count in [10, 100_000] {
        let table = hosts(count);
        for host in ASKED {
            criterion.bench_function(&format!("hosts/{count}/{host}"), |b| {
                b.iter(|| table.find(black_box(host.as_bytes()), black_box(b"/index.html")).is_some())
            });
        }
    }
    for count in [2, 10_000] {
        let table = table((0..count).map(|i| ("h".into(), format!("/app{i:05}"))));
        criterion.bench_function(&format!("paths/{count}"), |b| {
            b.iter(|| table.find(black_box(b"h"), black_box(b"/app00001/x/y")).is_some())
        });
    }
    criterion.final_summary();
}
