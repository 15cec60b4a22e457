//! Rows of clusters, and one for what ended without any.

use super::backend::CLASSES;
use super::family::{Family, Label, Row, Value};
use crate::event::CoreStats;
use crate::exchange::{CODES, Reason};
use crate::publish::Snapshot;
use crate::route::counts::Ends;
use crate::route::health::STATES;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One cluster, its counters already summed.
pub(super) struct Sums {
    labels: Vec<Label>,
    reasons: [u64; CODES.len()],
    classes: [u64; 6],
    /// Endpoints by state; none for what has no cluster.
    endpoints: Option<[u32; STATES.len()]>,
    waits: Waits,
}

/// What is counted of requests that wait; nothing is where there is no cluster.
#[derive(Default)]
struct Waits {
    paused: bool,
    waiting: u64,
    waited: u64,
    retries_refused: u64,
}

/// Reasons that have a line even at 0, so that the first of them is seen as a rise.
const ALWAYS: [Reason; 2] = [Reason::Done, Reason::NoBackend];

pub(super) const FAMILIES: &[Family<Sums>] = &[
    Family {
        name: "ringway_exchanges",
        help: "Exchanges ended, by the reason code of their log lines; without a cluster where none was found.",
        value: Value::Counters("reason", |s| {
            let always = |i: usize| s.endpoints.is_some() && ALWAYS.iter().any(|reason| reason.index() == i);
            let shown = |(i, n): &(usize, u64)| *n > 0 || always(*i);
            s.reasons.into_iter().enumerate().filter(shown).map(|(i, n)| (CODES[i], n)).collect()
        }),
    },
    Family {
        name: "ringway_responses",
        help: "Exchanges ended, by the class of the status that the client was sent.",
        value: Value::Counters("class", |s| ["none"].into_iter().chain(CLASSES).zip(s.classes).collect()),
    },
    Family {
        name: "ringway_cluster_endpoints",
        help: "Endpoints by state.",
        value: Value::Gauges("state", |s| {
            let count = |(name, n)| (name, f64::from(n));
            s.endpoints.into_iter().flat_map(|counts| STATES.into_iter().zip(counts)).map(count).collect()
        }),
    },
    Family {
        name: "ringway_cluster_paused",
        help: "1 while its requests wait by an operator's order.",
        value: Value::Gauge(|s| f64::from(u8::from(s.waits.paused))),
    },
    Family {
        name: "ringway_cluster_queued",
        help: "Requests that wait for their turn now.",
        value: Value::Gauge(|s| s.waits.waiting as f64),
    },
    Family {
        name: "ringway_cluster_waited",
        help: "Requests that have had to wait for their turn.",
        value: Value::Counter(|s| s.waits.waited),
    },
    Family {
        name: "ringway_cluster_retries_refused",
        help: "Retries that were not made because the budget did not afford them.",
        value: Value::Counter(|s| s.waits.retries_refused),
    },
];

impl Row for Sums {
    fn labels(&self) -> &[Label] {
        &self.labels
    }
}

impl Sums {
    fn of<'a>(name: &str, cells: impl Iterator<Item = &'a Ends> + Clone) -> Sums {
        let sum = |counter: &dyn Fn(&'a Ends) -> &'a AtomicU64| cells.clone().map(|c| counter(c).load(Relaxed)).sum();
        Sums {
            labels: vec![("cluster", name.to_owned())],
            reasons: std::array::from_fn(|i| sum(&|c| &c.reasons[i])),
            classes: std::array::from_fn(|i| sum(&|c| &c.classes[i])),
            endpoints: None,
            waits: Waits::default(),
        }
    }
}

pub(super) fn rows(snapshot: &Snapshot, cores: &[Arc<CoreStats>]) -> Vec<Sums> {
    let clusters = snapshot.table.clusters().iter().map(|cluster| {
        let mut endpoints = [0; STATES.len()];
        let first = cluster.first_state;
        for state in &snapshot.states[first..first + cluster.backends.len()] {
            endpoints[state.index()] += 1;
        }
        let cells = cluster.waits.all();
        let waits = Waits {
            paused: snapshot.paused.contains(&cluster.id),
            waiting: cells.iter().map(|c| u64::from(c.waiting.load(Relaxed))).sum(),
            waited: cells.iter().map(|c| c.waited.load(Relaxed)).sum(),
            retries_refused: cells.iter().map(|c| c.retries_refused.load(Relaxed)).sum(),
        };
        Sums { endpoints: Some(endpoints), waits, ..Sums::of(&cluster.name, cluster.ends.all().iter()) }
    });
    std::iter::once(Sums::of("", cores.iter().map(|core| &core.ends))).chain(clusters).collect()
}
