//! The whole text for 1,000 clusters of 4 backends on 4 cores, all of them in use.

use criterion::Criterion;
use ringway::config::check;
use ringway::metrics::{self, Process, Sources};
use ringway::publish::Publisher;
use ringway::supervisor::{Resolutions, Supervisor};
use std::fmt::Write;
use std::sync::Arc;

const CLUSTERS: usize = 1000;
const CORES: usize = 4;

fn sources() -> Sources {
    let mut clusters = String::new();
    for c in 0..CLUSTERS {
        let backends: Vec<String> =
            (1..=4).map(|b| format!(r#""b{b}": "10.{}.{}.{b}:8080""#, c / 256, c % 256)).collect();
        let comma = if c == 0 { "" } else { "," };
        let _ = write!(clusters, r#"{comma}"application-{c}": {{"backends": {{{}}}}}"#, backends.join(","));
    }
    let text = format!(r#"{{"listeners": {{"a": "127.0.0.1:1"}}, "clusters": {{{clusters}}}, "routes": {{}}}}"#);
    let plan = check::load(&text, "bench.json").expect("a good config");
    let supervisor = Supervisor::new(plan, CORES, Resolutions::default()).expect("a good plan");
    let snapshot = Publisher::new(supervisor.snapshot()).current();
    for cluster in snapshot.table.clusters() {
        for core in 0..CORES {
            cluster.ends.core(core).add(0, 200);
            cluster.backends.iter().for_each(|backend| backend.cells.core(core).latency.add(1500));
        }
    }
    let cores = (0..CORES).map(|_| Arc::default()).collect();
    Sources { snapshot, cores, process: Process::default() }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let sources = sources();
    let mut text = String::new();
    metrics::write(sources.clone(), &mut text);
    println!("{} bytes, {} lines", text.len(), text.lines().count());
    criterion.bench_function("metrics/1000 clusters x 4 backends", |b| {
        b.iter(|| {
            text.clear();
            metrics::write(sources.clone(), &mut text);
            text.len()
        });
    });
    criterion.final_summary();
}
