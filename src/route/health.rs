//! What is known of one endpoint: the published state, and the cells in which each core counts. What the cells mean is
//! `judge`'s to say.

use super::histogram::Histogram;
use super::permits::Permits;
use crate::limits::WEIGHT_ONE;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Whether an endpoint takes traffic, as published to the workers. As wide as a weight, so that states can be compared
/// many at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Standing {
    /// Takes traffic.
    #[default]
    Up = 0,
    /// Held down or being probed: takes none, unless the cluster fails open.
    Down = 1,
    /// Takes no new requests, by the operator's order; running ones end by themselves.
    Drain = 2,
    /// Out of service, by the operator's order.
    Maint = 3,
}

impl Standing {
    /// All of them, at their places in [`STATES`].
    pub const ALL: [Standing; STATES.len()] = [Standing::Up, Standing::Down, Standing::Drain, Standing::Maint];

    /// What that is, for operators.
    pub fn meaning(self) -> &'static str {
        match self {
            Standing::Up => "It takes traffic.",
            Standing::Down => "It is held down, or being probed: it takes none, unless its cluster fails open.",
            Standing::Drain => "It takes no new requests, by an operator's order; running ones end by themselves.",
            Standing::Maint => "It is out of service, by an operator's order: as drained, and not probed.",
        }
    }

    /// What to do about it.
    pub fn cure(self) -> &'static str {
        match self {
            Standing::Up => "Nothing.",
            Standing::Down => {
                "`ringway ctl backends` tells since when and why. A good probe brings it back; `ringway ctl backend up` \
                 has it probed at once."
            }
            Standing::Drain | Standing::Maint => {
                "`ringway ctl backends` tells who wished it and why; `ringway ctl backend up` takes that back."
            }
        }
    }
}

/// State of an endpoint as published to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether it takes traffic.
    pub standing: Standing,
    /// Its share against the others of its cluster, in parts of `limits::WEIGHT_ONE`; at least 1. What balancers go by:
    /// the configured weight is only where it comes from.
    pub weight: u32,
}

impl State {
    /// With all of a weight as operators give it.
    pub fn new(standing: Standing, weight: u32) -> State {
        State { standing, weight: weight.max(1).saturating_mul(WEIGHT_ONE) }
    }

    /// Up, with all of this weight.
    pub fn up(weight: u32) -> State {
        State::new(Standing::Up, weight)
    }

    /// Whether it takes traffic.
    pub fn is_up(self) -> bool {
        self.standing == Standing::Up
    }
}

/// The names of all states, at [`State::index`].
pub const STATES: [&str; 4] = ["up", "down", "drain", "maint"];

impl State {
    /// Its place in [`STATES`].
    pub fn index(self) -> usize {
        self.standing as usize
    }
}

/// What one core counts about one endpoint. One writer (the core), read by control: relaxed loads and stores only.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreCell {
    /// Exchanges that are with this endpoint now.
    pub in_flight: AtomicU32,
    /// Connect errors, resets before a head, and heads with a status that counts as a failure, since the last good head.
    pub failures_in_row: AtomicU32,
    /// Tick (seconds since the process began) at which the latest response head came, plus 1; 0 is never.
    pub head_tick: AtomicU32,
    /// The latest request that timed out was sent at this tick, plus 1; 0 is never. Set only if no head came to this
    /// core since that request was sent.
    pub timeout_sent_tick: AtomicU32,
    /// The epoch by which that request was sent.
    pub timeout_epoch: AtomicU64,
    /// Heads that this core had had when it was sent, and still had when it timed out. Where it equals [`CoreCell::heads`],
    /// the endpoint has been silent towards this core ever since: exact, by this core's own order of events.
    pub timeout_heads: AtomicU64,
    /// A report about this cell is on its way to control: 1. Control clears it before it reads the cell. The one field
    /// that two threads write: both sides `swap` it (sequentially consistent), the core after its counters, control
    /// before it reads them, or a report could be lost between them. Touched on failures only.
    pub reported: AtomicU32,
    /// Requests sent.
    pub requests: AtomicU64,
    /// Response heads by class: 1xx.. 5xx at index 0..4.
    pub statuses: [AtomicU64; 5],
    /// Of these, heads with a status that counts as a failure. Counted before the head itself is.
    pub bad_statuses: AtomicU64,
    /// Connect errors.
    pub connect_errors: AtomicU64,
    /// Resets or closes before a head, and malformed heads.
    pub resets: AtomicU64,
    /// Response timeouts.
    pub timeouts: AtomicU64,
    /// Requests that were retried elsewhere after failing here.
    pub retries: AtomicU64,
    /// Of [`CoreCell::requests`], those that were sent although it was not up: its cluster fails open, or a retry had nobody
    /// left who is up.
    pub fail_open: AtomicU64,
    /// Time from the begin of an attempt (before it connects) to its final response head.
    pub latency: Histogram,
    /// Pooled connections at the latest tick.
    pub pooled: AtomicU32,
}

/// The cells of one endpoint, one per core; made at first use, kept over reloads.
#[derive(Debug)]
pub struct Cells {
    cores: usize,
    cells: OnceLock<Box<[CoreCell]>>,
    /// Changes of the published state, by the state that it came to. Control alone writes and reads them.
    pub flips: [AtomicU64; STATES.len()],
    /// Who may have an exchange with it, where that is limited.
    pub permits: Permits,
}

impl Cells {
    /// For this many cores; allocates nothing yet.
    pub fn new(cores: usize) -> Cells {
        Cells { cores, cells: OnceLock::new(), flips: Default::default(), permits: Permits::default() }
    }

    /// For how many cores.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// One core's cell, made if this is the first use by any core.
    pub fn core(&self, core: usize) -> &CoreCell {
        &self.cells.get_or_init(|| (0..self.cores).map(|_| CoreCell::default()).collect())[core]
    }

    /// All cells, or none if no core has used this endpoint.
    pub fn all(&self) -> &[CoreCell] {
        self.cells.get().map_or(&[], |c| c)
    }
}

impl CoreCell {
    /// Response heads so far.
    pub fn heads(&self) -> u64 {
        self.statuses.iter().map(|s| s.load(Acquire)).sum()
    }
}
