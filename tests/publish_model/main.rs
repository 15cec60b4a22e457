//! What a receipt claims, proved on the file that has to keep it: `src/publish.rs` on loom's lock and atomics, through all
//! interleavings and all that the memory model allows, up to a number of preemptions.
//!
//! Once every core has acknowledged an epoch, no pick on any core goes by an older one; and a core that has heard the bell
//! goes by what was published before the bell rang.

#[path = "../../src/publish.rs"]
#[allow(dead_code)]
mod publish;
use ringway::{config, route};

/// What `publish` finds as `crate::sync` here.
mod sync {
    pub use loom::sync::{Mutex, MutexGuard, atomic};
    pub use std::sync::PoisonError;
}

use config::{Settings, check};
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::thread;
use publish::{Publisher, Reader, Snapshot};
use route::table::RouteTable;

const CORES_MAX: usize = 2;

/// What is published, but for its epoch.
#[derive(Clone)]
struct Rest {
    table: std::sync::Arc<RouteTable>,
    settings: std::sync::Arc<Settings>,
}

impl Rest {
    fn new() -> Rest {
        let config = r#"{"listeners": {"a": {"address": "127.0.0.1:1"}},
            "clusters": {"c": {"backends": {"b": "127.0.0.1:2"}}}, "routes": {"*": "c"}}"#;
        let plan = check::load_for(config, "model", CORES_MAX, 10_000).unwrap_or_else(|faults| panic!("{faults}"));
        let table = RouteTable::build(Vec::new(), Vec::new()).expect("no routes");
        Rest { table: table.into(), settings: plan.settings.into() }
    }

    fn at(&self, epoch: u64) -> Snapshot {
        let Rest { table, settings } = self.clone();
        Snapshot { generation: epoch, epoch, table, states: [].into(), paused: [].into(), settings }
    }
}

/// What control and the cores share beside the publisher.
struct Shared {
    acknowledged: Vec<AtomicU64>,
    /// What a core has stored before it acknowledged: here, the epoch.
    before: Vec<AtomicU64>,
    /// The latest epoch for which the bell was rung.
    bell: AtomicU64,
    /// A receipt has told the world: every core goes by this epoch.
    claimed: AtomicU64,
}

/// One core: it picks, hears the bell or not, looks, and picks again, until it goes by the last epoch.
fn core(index: usize, reader: &Reader, shared: &Shared, last: u64) {
    let pick = || {
        let claimed = shared.claimed.load(Acquire);
        let picked_by = reader.view().epoch;
        assert!(picked_by >= claimed, "a pick goes by {picked_by} although {claimed} is claimed");
        picked_by
    };
    loop {
        let picked_by = pick();
        let rung = shared.bell.load(Acquire);
        let before = || shared.before[index].store(reader.view().epoch, Relaxed);
        let replaced = reader.look(&shared.acknowledged[index], before);
        let now = reader.view().epoch;
        assert!(now >= rung, "the bell rang for {rung} and this core goes by {now}");
        assert!(now >= picked_by, "a core goes back from {picked_by} to {now}");
        assert_eq!(replaced.map(|old| old.epoch), (now != picked_by).then_some(picked_by), "what control has to free");
        if now == last {
            break;
        }
        thread::yield_now();
    }
    pick();
}

/// Control: publishes, rings, and claims what all cores have acknowledged.
fn control(publisher: &Publisher, shared: &Shared, rest: &Rest, last: u64) {
    for epoch in 2..=last {
        publisher.publish(rest.at(epoch));
        shared.bell.store(epoch, Release);
        while shared.acknowledged.iter().any(|acknowledged| acknowledged.load(Acquire) < epoch) {
            thread::yield_now();
        }
        let before = shared.before.iter().map(|epoch| epoch.load(Relaxed)).min();
        assert!(before >= Some(epoch), "{before:?} is what was stored before {epoch} was acknowledged");
        shared.claimed.store(epoch, Release);
    }
}

/// All executions with this many cores, up to this epoch, in which threads that could go on are made to wait this often.
fn explore(cores: usize, last: u64, preemptions: usize) {
    let rest = Rest::new();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let publisher = Publisher::new(rest.at(1));
        let zero = || AtomicU64::new(0);
        let (acknowledged, before) = ((0..cores).map(|_| zero()).collect(), (0..cores).map(|_| zero()).collect());
        let shared = Arc::new(Shared { acknowledged, before, bell: zero(), claimed: zero() });
        let cores: Vec<_> = (0..cores)
            .map(|index| {
                let (publisher, shared) = (publisher.clone(), shared.clone());
                thread::spawn(move || core(index, &Reader::new(publisher), &shared, last))
            })
            .collect();
        control(&publisher, &shared, &rest, last);
        cores.into_iter().for_each(|core| core.join().expect("no core fails"));
        assert_eq!((publisher.epoch(), publisher.current().epoch), (last, last));
    });
}

#[test]
fn no_pick_goes_by_a_snapshot_older_than_what_all_cores_have_acknowledged() {
    explore(2, 2, 1);
}

#[test]
fn a_core_keeps_up_with_publications_that_follow_each_other() {
    explore(1, 3, 2);
}
