//! Rows of cores.

use super::family::{Family, Label, Row, Value};
use crate::event::CoreStats;
use crate::route::histogram::Durations;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One core.
pub(super) struct Core {
    labels: Vec<Label>,
    stats: Arc<CoreStats>,
}

pub(super) const FAMILIES: &[Family<Core>] = &[
    Family {
        name: "ringway_core_connections",
        help: "Client connections at the latest tick.",
        value: Value::Gauge(|c| c.level(|s| &s.connections)),
    },
    Family {
        name: "ringway_core_idle_connections",
        help: "Those of them that wait for their next request.",
        value: Value::Gauge(|c| c.level(|s| &s.idle)),
    },
    Family {
        name: "ringway_core_busy_connections",
        help: "Those of them that have a request under way.",
        value: Value::Gauge(|c| c.level(|s| &s.busy)),
    },
    Family {
        name: "ringway_core_pooled_connections",
        help: "Idle connections to backends at the latest tick.",
        value: Value::Gauge(|c| c.level(|s| &s.pooled)),
    },
    Family {
        name: "ringway_core_buffers",
        help: "Buffers in use at the latest tick.",
        value: Value::Gauge(|c| c.level(|s| &s.buffers)),
    },
    Family {
        name: "ringway_core_pipes",
        help: "Pipes in use at the latest tick, one for each body that is spliced.",
        value: Value::Gauge(|c| c.level(|s| &s.pipes)),
    },
    Family {
        name: "ringway_core_accepted",
        help: "Client connections accepted.",
        value: Value::Counter(|c| c.count(|s| &s.accepted)),
    },
    Family {
        name: "ringway_core_accept_failures",
        help: "Times that accept failed for want of descriptors or memory.",
        value: Value::Counter(|c| c.count(|s| &s.accept_failures)),
    },
    Family {
        name: "ringway_core_exchanges",
        help: "Exchanges ended.",
        value: Value::Counter(|c| c.count(|s| &s.exchanges)),
    },
    Family {
        name: "ringway_core_own_answers",
        help: "Answers that Ringway gave instead of a backend's, by class; health checks are not among them.",
        value: Value::Counters("class", |c| {
            vec![("4xx", c.count(|s| &s.own_answers[0])), ("5xx", c.count(|s| &s.own_answers[1]))]
        }),
    },
    Family {
        name: "ringway_core_retries",
        help: "Requests sent again.",
        value: Value::Counter(|c| c.count(|s| &s.retries)),
    },
    Family {
        name: "ringway_core_connects",
        help: "Connections to backends opened.",
        value: Value::Counter(|c| c.count(|s| &s.connects)),
    },
    Family {
        name: "ringway_core_pool_hits",
        help: "Attempts that went out on a pooled connection.",
        value: Value::Counter(|c| c.count(|s| &s.pool_hits)),
    },
    Family {
        name: "ringway_core_pool_misses",
        help: "Attempts that had to connect.",
        value: Value::Counter(|c| c.count(|s| &s.pool_misses)),
    },
    Family {
        name: "ringway_core_log_dropped_lines",
        help: "Lines of the access log lost because its writer was too slow.",
        value: Value::Counter(|c| c.count(|s| &s.log_dropped)),
    },
    Family {
        name: "ringway_core_panics",
        help: "Sessions ended by a bug of Ringway's.",
        value: Value::Counter(|c| c.count(|s| &s.panics)),
    },
    Family {
        name: "ringway_core_cpu_seconds",
        help: "Time that the core's thread has had a CPU; the rate is its busy share.",
        value: Value::CounterUs(|c| c.count(|s| &s.cpu_us)),
    },
    Family {
        name: "ringway_core_busy_ratio",
        help: "The same as a share of the latest tick.",
        value: Value::Gauge(|c| c.busy()),
    },
    Family {
        name: "ringway_core_load_ratio",
        help: "The share of the latest tick in which the core had work: its thread ran or waited for its CPU.",
        value: Value::Gauge(|c| f64::from(c.stats.load_permille.load(Relaxed)) / 1000.0),
    },
    Family {
        name: "ringway_core_handed_connections",
        help: "Newly accepted connections that a core with much to do gave to another one, by side.",
        value: Value::Counters("side", |c| {
            vec![("out", c.count(|s| &s.handed_out)), ("in", c.count(|s| &s.handed_in))]
        }),
    },
    Family {
        name: "ringway_core_moved_connections",
        help: "Connections that moved from a core with much to do to another one between two requests, by side.",
        value: Value::Counters("side", |c| vec![("out", c.count(|s| &s.moved_out)), ("in", c.count(|s| &s.moved_in))]),
    },
    Family {
        name: "ringway_core_tick_late_seconds",
        help: "How late the core's ticks came, one a second: what a connection that became ready had to wait.",
        value: Value::Histogram(|c| {
            let mut late = Durations::default();
            c.stats.lag.read_into(&mut late);
            late.into()
        }),
    },
    Family {
        name: "ringway_worker_turn_seconds",
        help: "CPU time of the turns of the core's event loop: what completes during one waits for its end.",
        value: Value::Histogram(|c| c.stats.turns.load().into()),
    },
    Family {
        name: "ringway_core_ticks",
        help: "Seconds since the core began, by its own clock.",
        value: Value::Counter(|c| c.stats.ticks.load(Relaxed).into()),
    },
    Family {
        name: "ringway_core_epoch",
        help: "Epoch of the snapshot that the core runs on.",
        value: Value::Gauge(|c| c.level(|s| &s.epoch)),
    },
];

impl Core {
    fn count(&self, counter: fn(&CoreStats) -> &AtomicU64) -> u64 {
        counter(&self.stats).load(Relaxed)
    }

    fn level(&self, level: fn(&CoreStats) -> &AtomicU64) -> f64 {
        self.count(level) as f64
    }

    fn busy(&self) -> f64 {
        busy(&self.stats)
    }
}

impl Row for Core {
    fn labels(&self) -> &[Label] {
        &self.labels
    }
}

pub(super) fn rows(cores: &[Arc<CoreStats>]) -> Vec<Core> {
    let row = |(core, stats): (usize, &Arc<CoreStats>)| Core {
        labels: vec![("core", core.to_string())],
        stats: stats.clone(),
    };
    cores.iter().enumerate().map(row).collect()
}

fn busy(stats: &CoreStats) -> f64 {
    f64::from(stats.busy_permille.load(Relaxed)) / 1000.0
}

/// The busiest core's share over the mean of all: 1 is even, the number of cores is all on one. 1 where nobody works.
pub(super) fn imbalance(cores: &[Arc<CoreStats>]) -> f64 {
    let (sum, most) =
        cores.iter().map(|stats| busy(stats)).fold((0.0, 0.0), |(sum, most), b| (sum + b, f64::max(most, b)));
    if sum == 0.0 { 1.0 } else { most * cores.len() as f64 / sum }
}
