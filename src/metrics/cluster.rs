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
        Sums { endpoints: Some(endpoints), ..Sums::of(&cluster.name, cluster.ends.all().iter()) }
    });
    std::iter::once(Sums::of("", cores.iter().map(|core| &core.ends))).chain(clusters).collect()
}
