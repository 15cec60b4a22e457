//! What a pick costs by algorithm and size of the cluster.

use criterion::Criterion;
use ringway::route::balance::{Balancer, Tried};
use ringway::route::counts::ClusterEnds;
use ringway::route::health::{Cells, State};
use ringway::route::table::{Backend, Balance, Cluster, OnTimeout, Policy};
use ringway::route::{BackendId, ClusterId, Endpoint};
use std::hint::black_box;
use std::sync::Arc;

fn cluster(balance: Balance, weights: impl Iterator<Item = u32>) -> Cluster {
    let policy = Policy {
        balance,
        connect_timeout: 3,
        head_timeout: 30,
        body_timeout: 30,
        client_body_timeout: 30,
        client_rate_min: 240,
        tunnel_timeout: 3600,
        body_max: u64::MAX,
        retries: 3,
        pool_idle: 4,
        pool_max: 64,
        on_timeout: OnTimeout::Silent,
        probe_path: None,
    };
    let backend = |(i, weight)| Backend {
        id: BackendId(i as u32),
        name: format!("b{i}"),
        endpoint: Endpoint::Ip(([127, 0, 0, 1], 80).into()),
        weight,
        cells: Arc::new(Cells::new(4)),
    };
    let backends: Vec<Backend> = weights.enumerate().map(backend).collect();
    for backend in &backends {
        backend.cells.core(0);
    }
    Cluster {
        id: ClusterId(0),
        name: "c".into(),
        backends,
        first_state: 0,
        policy,
        ends: Arc::new(ClusterEnds::new(4)),
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastConn] {
        for (kind, n, modulo) in
            [("equal", 2, 1), ("equal", 1000, 1), ("of 5 weights", 1000, 5), ("all others", 1000, 1000)]
        {
            let cluster = cluster(balance, (0..n).map(|i| 1 + i % modulo));
            let states = vec![State::Up; n as usize];
            let mut balancer = Balancer::new(&cluster, 0, 1);
            criterion.bench_function(&format!("{balance:?}/{n} {kind}"), |b| {
                b.iter(|| balancer.pick(black_box(&cluster), black_box(&states), &Tried::default()))
            });
        }
    }
    criterion.final_summary();
}
