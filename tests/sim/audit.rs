//! What must hold at every step of a seed, by what control has published and what the cores count.

use super::ledger::{DARK, Ledger};
use ringway::event::CoreStats;
use ringway::limits;
use ringway::publish::Snapshot;
use ringway::route::counts::{ClusterEnds, Ends};
use ringway::route::health::{Cells, CoreCell, Standing};
use ringway::route::waits::{WaitCell, Waits};
use ringway::route::{BackendId, ClusterId, Endpoint};
use ringway::worker::net::Net;
use ringway::worker::net::mem::Mem;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// An endpoint that was published at any time.
struct Known {
    cluster: usize,
    endpoint: Endpoint,
    max_conns: u32,
    cells: Arc<Cells>,
    closed: Option<Closed>,
}

/// Why and since which epoch an endpoint takes no request, and, once all cores go by that, how many it has had.
#[derive(Clone, Copy)]
struct Closed {
    /// Health says so, and not an operator or the table: a cluster that fails open, or a retry that has nobody left who is up,
    /// may still go there.
    down: bool,
    since: u64,
    sent: Option<(u64, u64)>,
}

/// What a cluster counts.
type Of = (Arc<ClusterEnds>, Arc<Waits>);

/// The books of a seed.
pub struct Audit {
    mem: Mem,
    ledger: Rc<Ledger>,
    stats: Vec<Arc<CoreStats>>,
    known: RefCell<BTreeMap<BackendId, Known>>,
    clusters: RefCell<BTreeMap<ClusterId, Of>>,
    /// The latest epoch, and by when all cores are to have said that they go by it.
    epoch: Cell<(u64, u64)>,
    /// Panics, uses of stale handles and lost bytes so far.
    bad: Cell<u64>,
    pub steps: Cell<u64>,
}

/// Microseconds until all cores go by what was published.
pub const TAKEN_OVER_US: u64 = 1_000_000;

/// Requests sent to an endpoint, and of them (with those that were refused before they were sent) how many went there because
/// its cluster fails open or a retry had nobody left.
fn requests(cells: &Cells) -> (u64, u64) {
    let sum = |of: fn(&CoreCell) -> &AtomicU64| cells.all().iter().map(|cell| of(cell).load(Relaxed)).sum();
    (sum(|cell| &cell.requests), sum(|cell| &cell.fail_open))
}

fn in_flight(cells: &Cells) -> u32 {
    cells.all().iter().map(|cell| cell.in_flight.load(Relaxed)).sum()
}

impl Audit {
    pub fn new(mem: &Mem, ledger: &Rc<Ledger>, stats: Vec<Arc<CoreStats>>) -> Audit {
        Audit {
            mem: mem.clone(),
            ledger: ledger.clone(),
            stats,
            known: RefCell::default(),
            clusters: RefCell::default(),
            epoch: Cell::new((1, 0)),
            bad: Cell::new(0),
            steps: Cell::new(0),
        }
    }

    /// Writes down what the cores are to go by from now on. Clusters by number have the names `c0`, `c1`...
    pub fn published(&self, snapshot: &Snapshot) {
        let now = self.mem.now_us();
        self.epoch.set((snapshot.epoch, now + TAKEN_OVER_US));
        let mut known = self.known.borrow_mut();
        let (mut open, mut held) = (Vec::new(), Vec::new());
        for cluster in snapshot.table.clusters() {
            let number: usize = cluster.name[1..].parse().expect("clusters have numbers");
            self.clusters.borrow_mut().insert(cluster.id, (cluster.ends.clone(), cluster.waits.clone()));
            let host = format!("c{number}.test");
            let routed = snapshot.table.find(host.as_bytes(), b"/").is_some();
            let paused = snapshot.paused.binary_search(&cluster.id).is_ok();
            let states = &snapshot.states[cluster.first_state..];
            let dark = !cluster.backends.iter().zip(states).any(|(_, state)| state.is_up());
            self.ledger.now_is(number, now, &[("no route", !routed), ("paused", paused), (DARK, dark)]);
            for (backend, state) in cluster.backends.iter().zip(states) {
                let one = known.entry(backend.id).or_insert_with(|| Known {
                    cluster: number,
                    endpoint: backend.endpoint.clone(),
                    max_conns: backend.max_conns,
                    cells: backend.cells.clone(),
                    closed: None,
                });
                if !Arc::ptr_eq(&one.cells, &backend.cells) || one.endpoint != backend.endpoint || one.cluster != number
                {
                    self.ledger.violation(format!("{:?} is now somebody else: {backend:?}", backend.id));
                }
                match state.standing {
                    Standing::Up if routed && !paused => open.push(backend.id),
                    Standing::Down if routed && !paused => held.push(backend.id),
                    _ => {}
                }
            }
        }
        for (id, one) in known.iter_mut() {
            let down = held.contains(id);
            one.closed = match one.closed {
                _ if open.contains(id) => None,
                Some(closed) if closed.down == down => Some(closed),
                _ => Some(Closed { down, since: snapshot.epoch, sent: None }),
            };
        }
    }

    /// The epoch that all cores go by at least.
    pub fn acknowledged(&self) -> u64 {
        self.stats.iter().map(|stats| stats.epoch.load(Acquire)).min().unwrap_or(0)
    }

    /// Looks at everything that must hold at any time.
    pub fn step(&self) {
        self.steps.update(|n| n + 1);
        let (now, acknowledged) = (self.mem.now_us(), self.acknowledged());
        let (epoch, until) = self.epoch.get();
        if acknowledged < epoch && now > until {
            self.epoch.set((epoch, u64::MAX));
            self.ledger.violation(format!("epoch {epoch} is not acknowledged at {now}"));
        }
        for one in self.known.borrow_mut().values_mut() {
            if let Some(closed) = one.closed.as_mut().filter(|closed| acknowledged >= closed.since) {
                let sent = requests(&one.cells);
                let before = *closed.sent.get_or_insert(sent);
                let allowed = if closed.down { sent.1 - before.1 } else { 0 };
                if sent.0 - before.0 > allowed {
                    closed.sent = Some(sent);
                    let (cluster, endpoint, since) = (one.cluster, &one.endpoint, closed.since);
                    self.ledger.violation(format!(
                        "at {now} a request went to {endpoint} of c{cluster}, which takes none since epoch {since}; all \
                         cores go by {acknowledged}"
                    ));
                }
            }
            let busy = in_flight(&one.cells);
            if one.max_conns > 0 && busy > one.max_conns {
                let (endpoint, most) = (&one.endpoint, one.max_conns);
                self.ledger.violation(format!("{endpoint} has {busy} exchanges, and may have {most}"));
            }
        }
        let panics: u64 = self.sum(|stats| &stats.panics);
        let (stale, lost) = self.mem.misuses();
        let bad = panics + (stale + lost) as u64;
        if bad > self.bad.replace(bad) {
            self.ledger.violation(format!("at {now}: {panics} panics, {stale} stale handles, {lost} bytes lost"));
        }
    }

    /// Whether nothing is under way with these any more; `None` if they take requests again, were it as a last resort.
    pub fn is_left_alone(&self, backends: impl IntoIterator<Item = BackendId>) -> Option<bool> {
        let known = self.known.borrow();
        let mut alone = true;
        for id in backends {
            let Some(one) = known.get(&id) else { continue };
            if one.closed?.down {
                return None;
            }
            alone &= in_flight(&one.cells) == 0;
        }
        Some(alone)
    }

    /// The sum of one counter over all cores.
    pub fn sum(&self, of: impl Fn(&CoreStats) -> &AtomicU64) -> u64 {
        self.stats.iter().map(|stats| of(stats).load(Relaxed)).sum()
    }

    /// The sum of one counter over all queues.
    pub fn waits(&self, of: impl Fn(&WaitCell) -> u64) -> u64 {
        self.clusters.borrow().values().flat_map(|(_, waits)| waits.all().iter().map(&of).collect::<Vec<_>>()).sum()
    }

    /// Each exchange that has ended is counted once with its reason, and once with its status.
    pub fn check_ends(&self) {
        let count = |ends: &Ends| -> [u64; 2] {
            let sum = |of: &[AtomicU64]| of.iter().map(|n| n.load(Relaxed)).sum();
            [sum(&ends.reasons), sum(&ends.classes)]
        };
        let mut all: Vec<[u64; 2]> = self.stats.iter().map(|stats| count(&stats.ends)).collect();
        for (ends, _) in self.clusters.borrow().values() {
            all.extend(ends.all().iter().map(count));
        }
        let exchanges = self.sum(|stats| &stats.exchanges);
        let sums = [0, 1].map(|i| all.iter().map(|counts| counts[i]).sum::<u64>());
        if sums != [exchanges; 2] {
            self.ledger.violation(format!("{exchanges} exchanges have ended, with {sums:?} reasons and statuses"));
        }
    }

    /// No connection, no buffer, no exchange, nobody in a queue.
    pub fn check_quiet(&self, when: &str) {
        for (core, stats) in self.stats.iter().enumerate() {
            let left = [&stats.connections, &stats.buffers, &stats.pooled, &stats.idle, &stats.panics];
            if left.iter().any(|n| n.load(Relaxed) > 0) {
                self.ledger.violation(format!("core {core}: {stats:?} {when}"));
            }
        }
        let waiting = self.waits(|cell| cell.waiting.load(Relaxed).into());
        if waiting > 0 {
            self.ledger.violation(format!("{waiting} requests wait {when}"));
        }
        for one in self.known.borrow().values() {
            if in_flight(&one.cells) > 0 {
                self.ledger.violation(format!("{}: exchanges in flight {when}", one.endpoint));
            }
        }
    }
}

const _: () = assert!(TAKEN_OVER_US == limits::TICK_MS * 1000);
