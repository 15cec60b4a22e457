//! One snapshot for all cores: control publishes, workers read. Neither waits for the other.
//!
//! What a receipt claims rests on this: once every core has acknowledged an epoch, no pick on any core goes by an older
//! one. `tests/publish_model` drives this very file through all interleavings, on locks and atomics that it brings along
//! as `crate::sync`.

use crate::config::Settings;
use crate::route::ClusterId;
use crate::route::health::State;
use crate::route::table::RouteTable;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// What the workers run on. A reload makes a new table and generation; a health flip copies only the states.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts reloads; the first is 1.
    pub generation: u64,
    /// Counts publications, reloads and health flips alike.
    pub epoch: u64,
    /// Routes and clusters.
    pub table: Arc<RouteTable>,
    /// One state per endpoint, indexed by `Cluster::first_state + i`.
    pub states: Arc<[State]>,
    /// Clusters whose requests wait, ascending.
    pub paused: Arc<[ClusterId]>,
    /// Everything else that workers obey: listeners, limits, timeouts towards clients, log.
    pub settings: Arc<Settings>,
}

/// The place where control puts the current snapshot and workers find it.
#[derive(Debug)]
pub struct Publisher {
    current: Mutex<Arc<Snapshot>>,
    epoch: AtomicU64,
    ready: AtomicBool,
}

impl Publisher {
    /// Begins with this snapshot.
    pub fn new(first: Snapshot) -> Arc<Publisher> {
        let epoch = AtomicU64::new(first.epoch);
        Arc::new(Publisher { current: Mutex::new(Arc::new(first)), epoch, ready: AtomicBool::new(true) })
    }

    /// Makes `next` the current snapshot. Epochs must rise. The caller rings the workers afterwards.
    pub fn publish(&self, next: Snapshot) {
        let epoch = next.epoch;
        assert!(epoch > self.epoch.load(Ordering::Relaxed), "epochs rise");
        *self.lock() = Arc::new(next);
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The current snapshot.
    pub fn current(&self) -> Arc<Snapshot> {
        self.lock().clone()
    }

    /// The current epoch, without touching the lock.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether the process wants traffic, as the operator says: what health checks are told.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Says so from now on.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Snapshot>> {
        // A poisoned lock holds a whole Arc all the same: nothing in here can stop half-way.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A core's own hold on the snapshot: counted without touching the count that all cores share.
#[derive(Debug)]
pub struct View(Arc<Snapshot>);

impl std::ops::Deref for View {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// One core's end of a [`Publisher`]: the snapshot that this core goes by.
#[derive(Debug)]
pub struct Reader {
    publisher: Arc<Publisher>,
    view: RefCell<Rc<View>>,
}

impl Reader {
    /// Begins with the current snapshot; nothing is acknowledged by that.
    pub fn new(publisher: Arc<Publisher>) -> Reader {
        let view = RefCell::new(Rc::new(View(publisher.current())));
        Reader { publisher, view }
    }

    /// The snapshot to go by. Not to be held across an await: control waits for old ones to come back.
    pub fn view(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    /// Where the snapshots come from.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Goes by the current snapshot from now on, and then says so in `acknowledged`. To be called when the doorbell rings.
    /// Who sees the acknowledgement also sees what `before` has stored, which is called if there is something to say.
    /// Returns the snapshot that was replaced, which somebody with time is to free.
    pub fn look(&self, acknowledged: &AtomicU64, before: impl FnOnce()) -> Option<Arc<Snapshot>> {
        let mut replaced = None;
        // Not "another": a snapshot may be taken a moment before its epoch is seen.
        if self.publisher.epoch() > self.view.borrow().epoch {
            let next = self.publisher.current();
            let old = self.view.replace(Rc::new(View(next)));
            // Nobody holds a view across an await, so this is the only one.
            replaced = Rc::try_unwrap(old).ok().map(|View(old)| old);
        }
        // The epoch of what this core goes by, which may be behind the publisher's again.
        let epoch = self.view.borrow().epoch;
        if acknowledged.load(Ordering::Relaxed) != epoch {
            before();
            acknowledged.store(epoch, Ordering::Release);
        }
        replaced
    }
}
