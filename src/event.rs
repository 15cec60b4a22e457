//! What control tells a worker, what a worker tells control, and the cells in which a worker counts.
//!
//! Control to worker: a message in the core's channel, then its doorbell. Worker to control: state that sticks (cells,
//! [`CoreStats`]) first, then a message as a hint, then control's doorbell; a full channel loses hints, never state.

use crate::config::ListenerId;
use crate::cores::Order;
use crate::malformed::Malformed;
use crate::publish::Snapshot;
use crate::route::counts::Ends;
use crate::route::histogram::Histogram;
use crate::route::{BackendId, ClusterId};
use crate::stories::Stories;
use crossbeam_channel::Sender;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
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
    /// Give newcomers and connections to another core.
    Even(Order),
    /// Measure from now on what each connection costs. To be followed by [`ToWorker::Hogs`].
    Weigh,
    /// Tell which connections cost most since then, and measure no longer.
    Hogs {
        /// Has room for an answer of every core.
        answer: Sender<Hogs>,
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

/// What made one core work, for as long as it was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hogs {
    /// The core.
    pub core: usize,
    /// Microseconds for which it was measured.
    pub took_us: u64,
    /// Of those, its thread had a CPU.
    pub cpu_us: u64,
    /// Of those, it waited for one.
    pub waited_us: u64,
    /// The longest turn since the process began.
    pub longest_turn_us: u64,
    /// Connections that had something to do.
    pub connections: usize,
    /// What they cost together, as [`Hog::cost_us`].
    pub cost_us: u64,
    /// Those that cost most, the dearest first.
    pub named: Vec<Hog>,
}

/// What one connection cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hog {
    /// Where it came in.
    pub listener: ListenerId,
    /// The client; `None` on Unix listeners.
    pub peer: Option<SocketAddr>,
    /// Where its requests went, if that was seen.
    pub cluster: Option<ClusterId>,
    /// Requests before its latest busy period.
    pub served: u32,
    /// Bytes that the client has sent and received since it connected, if the kernel counts them.
    pub carried: Option<[u64; 2]>,
    /// CPU time of its task, and an estimate of what the kernel did for it meanwhile.
    pub cost_us: u64,
    /// The longest call of its task.
    pub longest_us: u64,
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

/// Upper bounds of the buckets of turns in microseconds, inclusive, ascending. One more bucket has no bound.
pub const TURN_BOUNDS_US: [u64; 10] = [250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000];

/// How long the turns of an event loop were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnTimes {
    /// Turns by bucket, not accumulated; the last one is beyond all bounds.
    pub buckets: [u64; TURN_BOUNDS_US.len() + 1],
    /// All turns together, microseconds.
    pub sum_us: u64,
    /// The longest one.
    pub longest_us: u64,
}

impl TurnTimes {
    /// Turns that took longer than this bound, which is one of [`TURN_BOUNDS_US`].
    pub fn over(&self, bound_us: u64) -> u64 {
        let buckets = self.buckets.iter().enumerate();
        buckets.filter(|(i, _)| i.checked_sub(1).is_some_and(|i| TURN_BOUNDS_US[i] >= bound_us)).map(|(_, n)| n).sum()
    }
}

/// The same as a core shows it to control.
#[derive(Debug, Default)]
pub struct Turns {
    buckets: [AtomicU64; TURN_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
    longest_us: AtomicU64,
}

impl Turns {
    /// Shows these.
    pub fn store(&self, times: &TurnTimes) {
        for (shown, n) in self.buckets.iter().zip(times.buckets) {
            shown.store(n, Relaxed);
        }
        self.sum_us.store(times.sum_us, Relaxed);
        self.longest_us.store(times.longest_us, Relaxed);
    }

    /// What is shown.
    pub fn load(&self) -> TurnTimes {
        TurnTimes {
            buckets: std::array::from_fn(|i| self.buckets[i].load(Relaxed)),
            sum_us: self.sum_us.load(Relaxed),
            longest_us: self.longest_us.load(Relaxed),
        }
    }
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
    /// Connections that are busy now: as many slots are taken.
    pub busy: AtomicU64,
    /// Pipes in use now.
    pub pipes: AtomicU64,
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
    pub stories: Stories,
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
    /// How long the turns of its event loop were, as of the latest tick.
    pub turns: Turns,
    /// Microseconds that the core's thread has had a CPU, as of the latest tick.
    pub cpu_us: AtomicU64,
    /// The same as thousandths of the time between the latest two ticks.
    pub busy_permille: AtomicU32,
    /// Thousandths of that time in which it had a CPU or waited for one.
    pub load_permille: AtomicU32,
    /// How late the latest tick came.
    pub late_us: AtomicU64,
    /// Newcomers given to other cores.
    pub handed_out: AtomicU64,
    /// Newcomers of other cores.
    pub handed_in: AtomicU64,
    /// Connections given to other cores between two requests.
    pub moved_out: AtomicU64,
    /// Connections of other cores, taken over between two requests.
    pub moved_in: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::counts::{ClusterEnds, Ends};
    use crate::route::health::CoreCell;
    use crate::route::waits::{WaitCell, Waits};

    /// Two lines: processors fetch them in pairs.
    const LINES: usize = 128;

    /// The first and the last line that something lies on.
    fn lines<T>(of: &T) -> (usize, usize) {
        let begin = std::ptr::from_ref(of).addr();
        (begin / LINES, (begin + size_of::<T>() - 1) / LINES)
    }

    #[test]
    fn what_cores_count_in_shares_no_line_with_another_core() {
        fn alone<T>() -> bool {
            align_of::<T>().is_multiple_of(LINES) && size_of::<T>().is_multiple_of(LINES)
        }
        assert!(alone::<CoreStats>() && alone::<CoreCell>() && alone::<WaitCell>() && alone::<Ends>());
        let (ends, waits) = (ClusterEnds::new(3), Waits::new(3));
        for (one, other) in [(0, 1), (1, 2)] {
            assert!(lines(ends.core(one)).1 < lines(ends.core(other)).0);
            assert!(lines(waits.core(one)).1 < lines(waits.core(other)).0);
        }
        // The counts beside an `Arc`'s own are written by whoever clones it.
        let stats: Arc<CoreStats> = Arc::default();
        assert!(std::ptr::from_ref(&*stats).addr().is_multiple_of(LINES));
    }
}
