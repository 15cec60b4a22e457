//! One snapshot for all cores: control publishes, workers read. Neither waits for the other.

use crate::config::Settings;
use crate::route::ClusterId;
use crate::route::health::State;
use crate::route::table::RouteTable;
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

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Snapshot>> {
        // A poisoned lock holds a whole Arc all the same: nothing in here can stop half-way.
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
