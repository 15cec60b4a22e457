//! What a pick costs by algorithm and size of the cluster, and what a change of states costs; for hashing, beside a Maglev
//! table as the alternative.

use criterion::Criterion;
use ringway::route::balance::{Ask, Balancer, Tried, hash_key};
use ringway::route::counts::ClusterEnds;
use ringway::route::health::{Cells, State};
use ringway::route::table::{Backend, Balance, Cluster, Hash, HashBy, Policy};
use ringway::route::waits::Waits;
use ringway::route::{BackendId, ClusterId, Endpoint};
use std::hint::black_box;
use std::sync::Arc;

fn cluster(balance: Balance, weights: impl Iterator<Item = u32>) -> Cluster {
    let backend = |(i, weight)| Backend {
        id: BackendId(i as u32),
        name: format!("b{i}"),
        endpoint: Endpoint::Ip(([127, 0, 0, 1], 80).into()),
        weight,
        backup: false,
        max_conns: 0,
        cells: Arc::new(Cells::new(4)),
    };
    let backends: Vec<Backend> = weights.enumerate().map(backend).collect();
    for backend in &backends {
        backend.cells.core(0);
    }
    let policy = Policy { balance, ..Policy::default() };
    Cluster {
        id: ClusterId(0),
        name: "c".into(),
        backends,
        first_state: 0,
        policy,
        ends: Arc::new(ClusterEnds::new(4)),
        waits: Arc::new(Waits::new(1)),
    }
}

/// Eisenbud and others, Maglev (2016), section 3.4, all weights equal.
struct Maglev {
    table: Vec<u32>,
}

impl Maglev {
    const ENTRIES: usize = 65_537;

    fn new(n: usize) -> Maglev {
        let hash = |i: usize, salt: &str| hash_key(format!("{salt}{i}").as_bytes()) as usize;
        let offsets: Vec<usize> = (0..n).map(|i| hash(i, "offset") % Maglev::ENTRIES).collect();
        let skips: Vec<usize> = (0..n).map(|i| hash(i, "skip") % (Maglev::ENTRIES - 1) + 1).collect();
        let mut next = offsets;
        let mut table = vec![u32::MAX; Maglev::ENTRIES];
        let mut filled = 0;
        'all: loop {
            for i in 0..n {
                while table[next[i]] != u32::MAX {
                    next[i] = (next[i] + skips[i]) % Maglev::ENTRIES;
                }
                table[next[i]] = i as u32;
                filled += 1;
                if filled == Maglev::ENTRIES {
                    break 'all;
                }
            }
        }
        Maglev { table }
    }

    fn pick(&self, key: u64) -> u32 {
        self.table[(key % Maglev::ENTRIES as u64) as usize]
    }
}

fn picks(criterion: &mut Criterion) {
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastConn] {
        for (kind, n, modulo) in
            [("equal", 2, 1), ("equal", 1000, 1), ("of 5 weights", 1000, 5), ("all others", 1000, 1000)]
        {
            let cluster = cluster(balance.clone(), (0..n).map(|i| 1 + i % modulo));
            let states: Vec<State> = cluster.backends.iter().map(|b| State::up(b.weight)).collect();
            let mut balancer = Balancer::new(&cluster, 0, 1);
            let ask = Ask { tried: &Tried::default(), key: None, in_flight: 0, epoch: 1 };
            criterion.bench_function(&format!("{balance:?}/{n} {kind}"), |b| {
                b.iter(|| balancer.pick(black_box(&cluster), black_box(&states), ask))
            });
        }
    }
}

fn hashing(criterion: &mut Criterion) {
    let balance = |bounded_load| Balance::Hash(Hash { by: HashBy::Path, bounded_load });
    for n in [3, 20, 200] {
        for (kind, modulo, bounded_load) in [("equal", 1, 0), ("equal, bounded", 1, 125), ("of 5 weights", 5, 0)] {
            let cluster = cluster(balance(bounded_load), (0..n).map(|i| 1 + i % modulo));
            let states: Vec<State> = cluster.backends.iter().map(|b| State::up(b.weight)).collect();
            let mut balancer = Balancer::new(&cluster, 0, 1);
            let mut key = 0;
            criterion.bench_function(&format!("Hash/{n} {kind}"), |b| {
                b.iter(|| {
                    key = hash_key(&u64::to_le_bytes(key));
                    let ask = Ask { tried: &Tried::default(), key: Some(key), in_flight: 100, epoch: 1 };
                    balancer.pick(black_box(&cluster), black_box(&states), ask)
                })
            });
        }
        let maglev = Maglev::new(n as usize);
        let mut key = 0;
        criterion.bench_function(&format!("Maglev/{n} equal"), |b| {
            b.iter(|| {
                key = hash_key(&u64::to_le_bytes(key));
                maglev.pick(black_box(key))
            })
        });
    }
}

/// One backend's weight changes: a pick that has to prepare, against a table made anew.
fn changes(criterion: &mut Criterion) {
    let hash = Balance::Hash(Hash { by: HashBy::Path, bounded_load: 125 });
    for n in [3, 20, 200, 1000] {
        for balance in [Balance::RoundRobin, Balance::LeastConn, hash.clone()] {
            let name = if matches!(balance, Balance::Hash(_)) { "Hash".into() } else { format!("{balance:?}") };
            let cluster = cluster(balance, (0..n).map(|_| 1));
            let mut states: Vec<State> = cluster.backends.iter().map(|b| State::up(b.weight)).collect();
            let mut balancer = Balancer::new(&cluster, 0, 1);
            let mut ask = Ask { tried: &Tried::default(), key: Some(7), in_flight: 0, epoch: 1 };
            criterion.bench_function(&format!("{name}/{n} change"), |b| {
                b.iter(|| {
                    states[1].weight = states[1].weight % 256 + 1;
                    ask.epoch += 1;
                    balancer.pick(black_box(&cluster), black_box(&states), ask)
                })
            });
        }
        criterion.bench_function(&format!("Maglev/{n} change"), |b| b.iter(|| Maglev::new(black_box(n as usize))));
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    picks(&mut criterion);
    hashing(&mut criterion);
    changes(&mut criterion);
    criterion.final_summary();
}
