//! One core's side of clusters and backends: balancing state, pooled connections, and what is told to control.
//!
//! Kept by identity over reloads; an exchange holds its cluster and backend by `Rc` and never the table.

use super::Core;
use super::net::{Net, Stream};
use super::pool::{Keep, Pool};
use super::queue::Queue;
use crate::event::FromWorker;
use crate::exchange::Blame;
use crate::exchange::budget::{Budget, Rule};
use crate::limits;
use crate::route::balance::{Balancer, Tried};
use crate::route::health::{Cells, CoreCell, State};
use crate::route::permits::Lease;
use crate::route::table::{Cluster, Policy};
use crate::route::{BackendId, ClusterId, Endpoint};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Adds to a counter that only this core writes: a load and a store, no locked instruction.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn set(counter: &AtomicU32, value: u32) {
    counter.store(value, Ordering::Relaxed);
}

/// A cluster as this core uses it, for one generation of its config.
pub struct LocalCluster<S> {
    core: usize,
    /// As published.
    pub shared: Arc<Cluster>,
    pub(super) backends: Vec<Rc<LocalBackend<S>>>,
    /// Goes on over reloads, as all that follows.
    pub(super) balancer: Rc<RefCell<Balancer>>,
    /// Exchanges that are with it now, of this core.
    pub(super) in_flight: Rc<Cell<u32>>,
    /// Requests that wait.
    pub(super) queue: Rc<Queue<S>>,
    /// Retries it affords.
    pub(super) budget: Rc<Budget>,
    /// By this, in this generation.
    pub(super) rule: Rule,
}

/// One endpoint as this core uses it.
pub struct LocalBackend<S> {
    /// Identity.
    pub id: BackendId,
    /// The operator's id.
    pub name: String,
    /// Where to connect.
    pub endpoint: Endpoint,
    /// Idle connections to it.
    pub pool: Pool<S>,
    pub(super) cells: Arc<Cells>,
    /// That of its cluster.
    cluster_in_flight: Rc<Cell<u32>>,
    /// This core's permits, if there is a limit.
    pub(super) lease: Lease,
    /// That of its cluster.
    pub(super) queue: Rc<Queue<S>>,
    /// Rings the core of this number.
    pub(super) ring_core: Rc<dyn Fn(usize)>,
    core: usize,
    /// Response heads that this core has had from it.
    heads: Cell<u64>,
    suspicion: Cell<Option<Suspicion>>,
    gone: Cell<bool>,
    /// Taken out by an operator.
    rests: Cell<bool>,
    cluster: ClusterId,
}

impl<S> LocalBackend<S> {
    fn cell(&self) -> &CoreCell {
        self.cells.core(self.core)
    }

    /// A request goes out, by the snapshot of this epoch, at a tick and a microsecond. Keep what this returns for [`Core::blame`].
    /// `fail_open`: although the backend is not up.
    pub fn sent(&self, fail_open: bool, now: u32, epoch: u64, us: u64) -> Sent {
        let cell = self.cell();
        add(&cell.requests, 1);
        if fail_open {
            add(&cell.fail_open, 1);
        }
        Sent { tick: now, epoch, us, heads: self.heads.get() }
    }

    /// A response head came, so many microseconds after [`Sent::us`]: the backend lives, and is well.
    pub fn answered(&self, status: u16, now: u32, took_us: u64) {
        let cell = self.cell();
        if cell.failures_in_row.load(Ordering::Relaxed) != 0 {
            set(&cell.failures_in_row, 0);
        }
        self.head(status, now, took_us);
    }

    /// One more failure in a row.
    fn failed(&self) {
        let failures = &self.cell().failures_in_row;
        set(failures, failures.load(Ordering::Relaxed).saturating_add(1));
    }

    fn head(&self, status: u16, now: u32, took_us: u64) {
        let cell = self.cell();
        self.heads.set(self.heads.get() + 1);
        set(&cell.head_tick, now + 1);
        let heads = &cell.statuses[usize::from(status / 100).clamp(1, 5) - 1];
        heads.store(heads.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        cell.latency.add(took_us);
    }

    /// Heads that all cores have had from it. Reads other cores' cells: not for the path of each request.
    fn heads_of_all(&self) -> u64 {
        self.cells.all().iter().map(CoreCell::heads).sum()
    }

    /// An exchange begins (`1`) or ends (`-1`) to occupy it.
    pub fn occupy(&self, by: i32) {
        let in_flight = &self.cell().in_flight;
        in_flight.store(in_flight.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Relaxed);
        self.cluster_in_flight.set(self.cluster_in_flight.get().wrapping_add_signed(by));
    }

    /// A request that failed here is sent again.
    pub fn retried(&self) {
        add(&self.cell().retries, 1);
    }

    /// Removed by a reload or taken out by an operator: its connections are not pooled any more.
    pub fn is_gone(&self) -> bool {
        self.gone.get() || self.rests.get()
    }
}

/// When a request was sent, for the timeout rule.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    tick: u32,
    epoch: u64,
    /// The microsecond, by the core's clock.
    pub us: u64,
    heads: u64,
}

/// Why this core avoids a backend: a request to it timed out, and nothing came since. Whether the backend is down is for
/// control to judge, by what all cores know; until then no further request should have to wait as long.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    /// Heads over all cores when it arose: one more, and it is over.
    heads: u64,
    /// It is over from this tick on in any case: a backend that nobody asks cannot answer.
    until: u32,
}

impl<S> LocalCluster<S> {
    /// How many requests of this core may wait: its share.
    pub(super) fn places(&self) -> usize {
        let (most, cores) = (self.shared.policy.queue_max as usize, self.rule.cores.max(1));
        (most / cores + usize::from(self.core < most % cores)).max(1)
    }

    /// The tried ones and the suspected ones. Where control has judged, the suspicion is over.
    pub(super) fn suspected(&self, states: &[State], tried: &Tried) -> Tried {
        let mut avoided = *tried;
        for (index, backend) in self.backends.iter().enumerate().filter(|(_, b)| b.suspicion.get().is_some()) {
            match states.get(self.shared.first_state + index) {
                Some(state) if state.is_up() => avoided.add(index),
                _ => backend.suspicion.set(None),
            }
        }
        avoided
    }
}

/// Clusters and backends of one core.
pub struct Clusters<S> {
    clusters: RefCell<FxHashMap<ClusterId, Rc<LocalCluster<S>>>>,
    backends: RefCell<FxHashMap<BackendId, Rc<LocalBackend<S>>>>,
    pooled: Rc<Cell<usize>>,
    /// No fewer than there are suspicions, exact after each tick.
    pub(super) suspicions: Cell<usize>,
    /// Backends of which this core may hold permits.
    limited: RefCell<Vec<Rc<LocalBackend<S>>>>,
    core: usize,
    ring_core: Rc<dyn Fn(usize)>,
}

impl<S: Stream> Clusters<S> {
    /// None yet. `ring_core` rings the core of a number.
    pub fn new(core: usize, ring_core: Rc<dyn Fn(usize)>) -> Clusters<S> {
        Clusters {
            clusters: RefCell::default(),
            backends: RefCell::default(),
            pooled: Rc::default(),
            suspicions: Cell::new(0),
            limited: RefCell::default(),
            core,
            ring_core,
        }
    }

    /// This core's side of a published cluster.
    #[inline]
    fn local(&self, cluster: &Arc<Cluster>, now: u32, seed: impl FnOnce() -> u64) -> Rc<LocalCluster<S>> {
        if let Some(local) = self.clusters.borrow().get(&cluster.id)
            && Arc::ptr_eq(&local.shared, cluster)
        {
            return local.clone();
        }
        self.renew(cluster, now, seed)
    }

    /// Makes it, or renews it if the config of it has changed.
    #[cold]
    fn renew(&self, cluster: &Arc<Cluster>, now: u32, seed: impl FnOnce() -> u64) -> Rc<LocalCluster<S>> {
        let (policy, core) = (&cluster.policy, self.core);
        let (percent, min_per_second) = (policy.retry_percent, policy.retry_min_per_second);
        let rule = Rule { percent, min_per_second, cores: cluster.waits.cores() };
        let before = self.clusters.borrow().get(&cluster.id).cloned();
        let (balancer, in_flight, queue, budget) = match before {
            Some(before) => {
                before.balancer.borrow_mut().refit(cluster);
                (before.balancer.clone(), before.in_flight.clone(), before.queue.clone(), before.budget.clone())
            }
            None => {
                let balancer = Rc::new(RefCell::new(Balancer::new(cluster, core, seed())));
                let queue = Rc::new(Queue::new(cluster.waits.clone(), core));
                (balancer, Rc::default(), queue, Rc::new(Budget::new(rule, now)))
            }
        };
        let mut known = self.backends.borrow_mut();
        let backends = cluster.backends.iter().map(|backend| {
            let fresh = || {
                Rc::new(LocalBackend {
                    id: backend.id,
                    name: backend.name.clone(),
                    endpoint: backend.endpoint.clone(),
                    pool: Pool::new(self.pooled.clone()),
                    cells: backend.cells.clone(),
                    cluster_in_flight: in_flight.clone(),
                    lease: Lease::new(core),
                    queue: queue.clone(),
                    ring_core: self.ring_core.clone(),
                    core,
                    heads: Cell::new(0),
                    suspicion: Cell::new(None),
                    gone: Cell::new(false),
                    rests: Cell::new(false),
                    cluster: cluster.id,
                })
            };
            known.entry(backend.id).or_insert_with(fresh).clone()
        });
        let backends: Vec<Rc<LocalBackend<S>>> = backends.collect();
        drop(known);
        for (backend, published) in backends.iter().zip(&cluster.backends) {
            if published.max_conns != 0 && !backend.lease.is_limited() {
                self.limited.borrow_mut().push(backend.clone());
            }
            backend.lease.renew(published.max_conns, &backend.cells, &mut |core| (self.ring_core)(core));
        }
        let shared = cluster.clone();
        let local = Rc::new(LocalCluster { shared, core, backends, balancer, in_flight, queue, budget, rule });
        self.clusters.borrow_mut().insert(cluster.id, local.clone());
        local
    }

    /// The core was rung: other cores may have handed over permits, or want some.
    pub fn look_at_permits(&self) {
        // Those of backends that are gone matter to nobody; who waits for one looks elsewhere by then.
        self.limited.borrow_mut().retain(|backend| backend.lease.is_limited() && !backend.gone.get());
        self.limited.borrow().iter().for_each(|backend| backend.look_at_permits());
    }

    /// Drops what a reload has removed; running exchanges keep their own hold.
    pub fn forget(&self, backends: &[BackendId], clusters: &[ClusterId]) {
        for id in clusters {
            self.clusters.borrow_mut().remove(id);
        }
        for id in backends {
            if let Some(backend) = self.backends.borrow_mut().remove(id) {
                backend.gone.set(true);
                backend.pool.close_all();
            }
        }
    }

    /// Operators have taken these out, or back in. One that this core has never used has nothing to close.
    pub fn rest(&self, backends: &[BackendId], rests: bool) {
        for backend in backends.iter().filter_map(|id| self.backends.borrow().get(id).cloned()) {
            backend.rests.set(rests);
            if rests {
                backend.pool.close_all();
            }
        }
    }

    /// Idle connections to these, where there are any, with the clusters of theirs.
    pub fn pooled_of(&self, backends: &BTreeSet<BackendId>) -> Vec<(ClusterId, BackendId, u32)> {
        let known = self.backends.borrow();
        let found = backends.iter().filter_map(|id| known.get(id));
        found.map(|b| (b.cluster, b.id, b.pool.len() as u32)).filter(|(_, _, pooled)| *pooled > 0).collect()
    }

    /// One tick: closes pooled connections that have idled too long or that the backend has closed, and drops suspicions
    /// that are over. Takes more than one turn where many connections are to be looked at.
    pub async fn tick<N: Net<Stream = S>>(&self, net: &N, now: u32) {
        let mut calls = 0;
        let backends: Vec<_> = self.backends.borrow().values().cloned().collect();
        let mut spent = Vec::new();
        for backend in &backends {
            calls += backend.pool.len();
            backend.pool.tick(net, now, &mut spent);
            for stream in spent.drain(..) {
                stream.close();
                calls += limits::POOL_CLOSE_CALLS;
                if calls >= limits::TURN_FIRED {
                    calls = 0;
                    net.next_turn().await;
                }
            }
            if calls >= limits::TURN_FIRED {
                calls = 0;
                net.next_turn().await;
            }
            // No cells are made for a backend that nobody has used.
            if let Some(cell) = backend.cells.all().get(backend.core) {
                set(&cell.pooled, backend.pool.len() as u32);
            }
            if let Some(suspicion) = backend.suspicion.get()
                && (backend.heads_of_all() != suspicion.heads || now >= suspicion.until)
            {
                backend.suspicion.set(None);
            }
        }
        // At once: in the turns before, others may have come.
        self.suspicions.set(backends.iter().filter(|backend| backend.suspicion.get().is_some()).count());
        self.clusters.borrow().values().for_each(|cluster| cluster.budget.tick(cluster.rule, now));
        self.look_at_permits();
    }

    /// Idle connections to backends.
    pub fn pooled(&self) -> usize {
        self.pooled.get()
    }

    /// Closes all pooled connections.
    pub fn close_idle(&self) {
        self.backends.borrow().values().for_each(|backend| backend.pool.close_all());
    }
}

impl<N: Net> Core<N> {
    /// Finds the cluster for a host and path in the current snapshot.
    pub(super) fn route(&self, host: &[u8], path: &[u8]) -> Option<Rc<LocalCluster<N::Stream>>> {
        let view = self.view();
        let route = view.table.find(host, path)?;
        Some(self.clusters.local(&route.cluster, self.slots.now(), || self.random()))
    }

    /// Puts a backend connection that may be used again into its pool.
    pub(super) fn check_in(
        &self,
        backend: &LocalBackend<N::Stream>,
        stream: N::Stream,
        policy: &Policy,
        said: Option<u32>,
    ) {
        let most_of_all = self.view().settings.pooled_per_worker;
        let keep = Keep { seconds: policy.pool_idle, said, most: policy.pool_max, most_of_all };
        backend.pool.check_in(&self.net, stream, self.slots.now(), keep);
    }

    /// Books a failure and tells control: the cell first, then a hint, then the doorbell.
    pub(super) fn blame(&self, backend: &LocalBackend<N::Stream>, blame: Blame, sent: Sent) {
        let cell = backend.cell();
        match blame {
            Blame::None => return,
            Blame::Connect => add(&cell.connect_errors, 1),
            Blame::Reset => add(&cell.resets, 1),
            Blame::Timeout => {
                if backend.heads.get() == sent.heads {
                    self.suspect(backend, sent);
                }
                // Last: who sees the count sees what was noted of it.
                cell.timeouts.store(cell.timeouts.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
            }
        }
        if blame != Blame::Timeout {
            backend.failed();
        }
        self.report(backend);
    }

    /// A response head came with a status that counts as a failure: the backend lives, but is not well.
    pub(super) fn answered_badly(&self, backend: &LocalBackend<N::Stream>, status: u16, took_us: u64) {
        backend.failed();
        // Bad before it is counted at all: whoever sees the head knows that it was bad.
        add(&backend.cell().bad_statuses, 1);
        backend.head(status, self.slots.now(), took_us);
        self.report(backend);
    }

    fn report(&self, backend: &LocalBackend<N::Stream>) {
        if backend.cell().reported.swap(1, Ordering::SeqCst) == 0 {
            self.tell(FromWorker::Report { core: self.index, backend: backend.id });
        }
    }

    /// Notes that this backend has been silent since a request was sent, and avoids it until that is judged.
    fn suspect(&self, backend: &LocalBackend<N::Stream>, sent: Sent) {
        let cell = backend.cell();
        cell.timeout_heads.store(cell.heads(), Ordering::Relaxed);
        cell.timeout_epoch.store(sent.epoch, Ordering::Relaxed);
        cell.timeout_sent_tick.store(sent.tick + 1, Ordering::Relaxed);
        let until = self.slots.now() + limits::HOLD_DOWN_SECONDS;
        let suspicion = Suspicion { heads: backend.heads_of_all(), until };
        if backend.suspicion.replace(Some(suspicion)).is_none() {
            self.clusters.suspicions.set(self.clusters.suspicions.get() + 1);
        }
    }
}
