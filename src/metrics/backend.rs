//! Rows of endpoints.

use super::family::{Family, Label, Row, Value};
use crate::limits::WEIGHT_ONE;
use crate::publish::Snapshot;
use crate::route::health::{CoreCell, STATES, State};
use crate::route::histogram::Durations;
use crate::route::table::{Backend, Cluster};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// One endpoint of one backend.
pub(super) struct Endpoint {
    labels: Vec<Label>,
    cluster: Arc<Cluster>,
    index: usize,
    state: State,
}

pub(super) const FAMILIES: &[Family<Endpoint>] = &[
    Family {
        name: "ringway_backend_requests",
        help: "Requests sent, retries included.",
        value: Value::Counter(|e| e.sum(|c| &c.requests)),
    },
    Family {
        name: "ringway_backend_responses",
        help: "Response heads received, by class of their status.",
        value: Value::Counters("class", |e| (0..5).map(|i| (CLASSES[i], e.sum(|c| &c.statuses[i]))).collect()),
    },
    Family {
        name: "ringway_backend_failures",
        help: "Attempts without a response head: no connection, a connection that ended, no head in time.",
        value: Value::Counters("kind", |e| {
            vec![
                ("connect", e.sum(|c| &c.connect_errors)),
                ("reset", e.sum(|c| &c.resets)),
                ("timeout", e.sum(|c| &c.timeouts)),
            ]
        }),
    },
    Family {
        name: "ringway_backend_retries",
        help: "Requests that failed here and were sent again.",
        value: Value::Counter(|e| e.sum(|c| &c.retries)),
    },
    Family {
        name: "ringway_backend_fail_open",
        help: "Of the requests, those sent although it was not up: its cluster fails open, or everyone up was tried in vain.",
        value: Value::Counter(|e| e.sum(|c| &c.fail_open)),
    },
    Family {
        name: "ringway_backend_in_flight",
        help: "Exchanges that are with it now.",
        value: Value::Gauge(|e| e.cells().iter().map(|c| f64::from(c.in_flight.load(Relaxed))).sum()),
    },
    Family {
        name: "ringway_backend_exchanges_max",
        help: "Exchanges that it may have at once; 0 is no limit.",
        value: Value::Gauge(|e| f64::from(e.backend().max_conns)),
    },
    Family {
        name: "ringway_backend_pooled_connections",
        help: "Idle connections kept to it.",
        value: Value::Gauge(|e| e.cells().iter().map(|c| f64::from(c.pooled.load(Relaxed))).sum()),
    },
    Family {
        name: "ringway_backend_state",
        help: "1 for the state it is in, 0 for the others.",
        value: Value::Gauges("state", |e| {
            let of = |(i, name)| (name, f64::from(u8::from(i == e.state.index())));
            STATES.into_iter().enumerate().map(of).collect()
        }),
    },
    Family {
        name: "ringway_backend_transitions",
        help: "Changes of its state, by the state that it came to.",
        value: Value::Counters("to", |e| {
            let flips = &e.backend().cells.flips;
            STATES.into_iter().zip(flips).map(|(name, n)| (name, n.load(Relaxed))).collect()
        }),
    },
    Family {
        name: "ringway_backend_weight",
        help: "Its share of the requests against the other backends' weights, as it counts now.",
        value: Value::Gauge(|e| f64::from(e.state.weight) / f64::from(WEIGHT_ONE)),
    },
    Family {
        name: "ringway_backend_response_head_seconds",
        help: "Time from the begin of an attempt, connecting included, to the final response head.",
        value: Value::Histogram(|e| {
            let mut sum = Durations::default();
            e.cells().iter().for_each(|c| c.latency.read_into(&mut sum));
            sum.into()
        }),
    },
];

impl Endpoint {
    fn backend(&self) -> &Backend {
        &self.cluster.backends[self.index]
    }

    fn cells(&self) -> &[CoreCell] {
        self.backend().cells.all()
    }

    fn sum(&self, counter: impl Fn(&CoreCell) -> &AtomicU64) -> u64 {
        self.cells().iter().map(|c| counter(c).load(Relaxed)).sum()
    }
}

impl Row for Endpoint {
    fn labels(&self) -> &[Label] {
        &self.labels
    }
}

pub(super) fn rows(snapshot: &Snapshot) -> Vec<Endpoint> {
    let of = |cluster: &Arc<Cluster>| {
        let row = |(index, backend): (usize, &Backend)| Endpoint {
            labels: vec![
                ("cluster", cluster.name.clone()),
                ("backend", backend.name.clone()),
                ("endpoint", backend.endpoint.to_string()),
            ],
            cluster: cluster.clone(),
            index,
            state: snapshot.states[cluster.first_state + index],
        };
        cluster.backends.iter().enumerate().map(row).collect::<Vec<_>>()
    };
    snapshot.table.clusters().iter().flat_map(of).collect()
}
