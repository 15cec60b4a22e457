//! What control tells a worker, what a worker tells control, and the cells in which a worker counts.
//!
//! Control to worker: a message in the core's channel, then its doorbell. Worker to control: state that sticks (cells,
//! [`CoreStats`]) first, then a message as a hint, then control's doorbell; a full channel loses hints, never state.

use crate::config::ListenerId;
use crate::failures::Failures;
use crate::malformed::Malformed;
use crate::publish::Snapshot;
use crate::route::counts::Ends;
use crate::route::histogram::Histogram;
use crate::route::{BackendId, ClusterId};
use crossbeam_channel::Sender;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// Control to worker. A new snapshot needs no message: the doorbell alone makes the worker look.
#[derive(Debug)]
pub enum ToWorker {
    /// Accept on this socket from now on.
    Listen {
        /// Which listener's settings its connections get.
        id: ListenerId,
        /// Bound and listening, non-blocking, close-on-exec.
        fd: OwnedFd,
        /// A Unix socket (shared by all cores) or TCP (this core's own, SO_REUSEPORT).
        unix: bool,
    },
    /// Accept what is queued, then close the socket.
    Unlisten {
        /// Which one.
        id: ListenerId,
    },
    /// These were removed from the table: close their idle pooled connections and forget them.
    Forget {
        /// Endpoints that are gone.
        backends: Vec<BackendId>,
        /// Clusters that are gone.
        clusters: Vec<ClusterId>,
    },
    /// Operators have taken these out, or back in: while they rest they keep no idle connection.
    Rest {
        /// Endpoints.
        backends: Vec<BackendId>,
        /// Out, or in again.
        rests: bool,
    },
    /// Tell what remains on something that takes no new requests.
    Count {
        /// On what.
        on: Arc<TakenAway>,
        /// The core, and what it has. Has room for an answer of every core.
        answer: Sender<(usize, Vec<Remains>)>,
    },
    /// Stop accepting, let exchanges end, close idle connections by half of this many seconds, cut the rest at its end.
    Drain {
        /// Seconds.
        seconds: u32,
    },
}

/// What no request is started on any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenAway {
    /// Endpoints.
    pub backends: BTreeSet<BackendId>,
    /// Clusters as a whole.
    pub clusters: BTreeSet<ClusterId>,
    /// Clusters that lost routes: only exchanges that were routed before this epoch count.
    pub rerouted: BTreeSet<ClusterId>,
    /// See `rerouted`.
    pub epoch: u64,
    /// Requests that wait for their turn count too. They do not where a pause makes them wait.
    pub queued: bool,
}

/// What one core still has on one endpoint, or on a cluster before an endpoint was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The cluster.
    pub cluster: ClusterId,
    /// The endpoint, if one was picked.
    pub backend: Option<BackendId>,
    /// Exchanges, tunnels not counted.
    pub exchanges: u32,
    /// Tunnels.
    pub tunnels: u32,
    /// Requests that wait for their turn.
    pub queued: u32,
    /// Idle pooled connections.
    pub pooled: u32,
}

impl Remains {
    /// Nothing yet.
    pub fn of(cluster: ClusterId, backend: Option<BackendId>) -> Remains {
        Remains { cluster, backend, exchanges: 0, tunnels: 0, queued: 0, pooled: 0 }
    }
}

/// Worker to control.
#[derive(Debug)]
pub enum FromWorker {
    /// This endpoint's [`crate::route::health::CoreCell`] of this core is worth a look.
    Report {
        /// The core.
        core: usize,
        /// The endpoint.
        backend: BackendId,
    },
    /// A snapshot that this core no longer uses, for control to free.
    Retired(Arc<Snapshot>),
    /// A drain has ended: all connections are gone.
    Drained {
        /// The core.
        core: usize,
        /// Connections that were cut at the deadline.
        cut: u32,
    },
}

/// What one core counts. One writer (the core); read by control at any time: relaxed loads and stores only.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreStats {
    /// Epoch of the snapshot that this core runs on (its acknowledgement).
    pub epoch: AtomicU64,
    /// When it took that over, in microseconds of the core's clock; written before `epoch`.
    pub epoch_at_us: AtomicU64,
    /// Ticks since the core began.
    pub ticks: AtomicU32,
    /// Set when reports may have been lost to a full channel: control then looks at every cell.
    pub look_at_all: AtomicBool,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Client connections now.
    pub connections: AtomicU64,
    /// Of those, idle between requests.
    pub idle: AtomicU64,
    /// Exchanges ended, own answers included.
    pub exchanges: AtomicU64,
    /// Own answers by class 4xx, 5xx.
    pub own_answers: [AtomicU64; 2],
    /// Requests sent again to another or the same endpoint.
    pub retries: AtomicU64,
    /// Pooled backend connections now.
    pub pooled: AtomicU64,
    /// Backend connections opened.
    pub connects: AtomicU64,
    /// Log lines lost to a full queue.
    pub log_dropped: AtomicU64,
    /// Exchanges that got no log line because they were not picked (`log.sample`).
    pub log_sampled_out: AtomicU64,
    /// accept failed for want of descriptors.
    pub accept_failures: AtomicU64,
    /// Sessions ended by a panic (a bug of ours; the connection was closed).
    pub panics: AtomicU64,
    /// Buffers in use now.
    pub buffers: AtomicU64,
    /// The latest exchanges that went wrong.
    pub failures: Failures,
    /// The latest messages that were refused.
    pub malformed: Malformed,
    /// Attempts that went out on a pooled connection.
    pub pool_hits: AtomicU64,
    /// Attempts that found none they could use.
    pub pool_misses: AtomicU64,
    /// Exchanges that ended without a cluster; those with one are counted there.
    pub ends: Ends,
    /// How late each tick came.
    pub lag: Histogram,
    /// Microseconds that the core's thread has had a CPU, as of the latest tick.
    pub cpu_us: AtomicU64,
    /// The same as thousandths of the time between the latest two ticks.
    pub busy_permille: AtomicU32,
}
