//! What is known of one endpoint: the published state, and the cells in which each core counts.

use super::histogram::Histogram;
use super::table::OnTimeout;
use crate::limits::{CORE_SKEW_TICKS, FAILURES_TO_DOWN, WEIGHT_ONE};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
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

/// The names of all standings, at [`State::index`].
pub const STANDINGS: [&str; 4] = ["up", "down", "drain", "maint"];

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

    /// The place of its standing in [`STANDINGS`].
    pub fn index(self) -> usize {
        self.standing as usize
    }

    /// Whether it takes traffic.
    pub fn is_up(self) -> bool {
        self.standing == Standing::Up
    }
}

/// What one core counts about one endpoint. One writer (the core), read by control: relaxed loads and stores only.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreCell {
    /// Exchanges that are with this endpoint now.
    pub in_flight: AtomicU32,
    /// Connect errors and resets before a head since the last head, in a row.
    pub failures_in_row: AtomicU32,
    /// Tick (seconds since the process began) at which the latest response head came, plus 1; 0 is never.
    pub head_tick: AtomicU32,
    /// The latest request that timed out was sent at this tick, plus 1; 0 is never. Set only if no head came to this
    /// core since that request was sent.
    pub timeout_sent_tick: AtomicU32,
    /// A report about this cell is on its way to control: 1. Control clears it before it reads the cell. The one field
    /// that two threads write: both sides `swap` it (sequentially consistent), the core after its counters, control
    /// before it reads them, or a report could be lost between them. Touched on failures only.
    pub reported: AtomicU32,
    /// Requests sent.
    pub requests: AtomicU64,
    /// Response heads by class: 1xx.. 5xx at index 0..4.
    pub statuses: [AtomicU64; 5],
    /// Connect errors.
    pub connect_errors: AtomicU64,
    /// Resets or closes before a head, and malformed heads.
    pub resets: AtomicU64,
    /// Response timeouts.
    pub timeouts: AtomicU64,
    /// Requests that were retried elsewhere after failing here.
    pub retries: AtomicU64,
    /// Requests sent although it was not up, since its cluster fails open.
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
    /// Changes of the published standing, by the one that it came to. Control alone writes and reads them.
    pub flips: [AtomicU64; STANDINGS.len()],
}

impl Cells {
    /// For this many cores; allocates nothing yet.
    pub fn new(cores: usize) -> Cells {
        Cells { cores, cells: OnceLock::new(), flips: Default::default() }
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

/// What one core's cell says of health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    failures: u32,
    /// Response heads so far. They order what ticks are too coarse for: if it has not changed, no head came.
    heads: u64,
    head_tick: u32,
    timeout_sent_tick: u32,
    timeouts: u64,
}

impl CoreCell {
    /// Counters of one core are read one by one, not as a whole. The failures come first: a head that comes in between
    /// is then seen (and clears them), and none is missed that came before them.
    fn read(&self) -> Reading {
        let failures = self.failures_in_row.load(Acquire);
        Reading {
            failures,
            timeout_sent_tick: self.timeout_sent_tick.load(Acquire),
            timeouts: self.timeouts.load(Acquire),
            head_tick: self.head_tick.load(Relaxed),
            heads: self.statuses.iter().map(|s| s.load(Relaxed)).sum(),
        }
    }
}

/// Why an endpoint should be marked down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// So many connect errors or resets before a head, in a row.
    Failures(u32),
    /// A request timed out, and no response head has come since it was sent.
    Silent,
    /// A request timed out, and the cluster marks on any timeout.
    Timeout,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Failures(n) => write!(f, "{n} connect errors or resets in a row"),
            Fault::Silent => f.write_str("a response timeout, and no response head since that request was sent"),
            Fault::Timeout => f.write_str("a response timeout"),
        }
    }
}

/// Judges one endpoint by the cells of all cores. Cells belong to their cores and are never reset by others, so a judge
/// remembers what has had its consequence already.
///
/// The order of events on different cores is known only to about a second. Where it is in doubt, a head counts as the
/// later one: then a mark comes some failures late, but no endpoint that answers is ever marked.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    seen: Vec<Seen>,
    /// Tick at which the endpoint was last known to be well by other means than a head (a probe), plus 1.
    well_tick: u32,
}

/// One core's cell as last seen, and what of it no longer counts.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    at: Reading,
    /// Of the failures in the current row, those that were before a head on another core, or had their consequence.
    settled: u32,
}

impl Judge {
    /// Looks at the cells now; `now_tick` counts the seconds since the process began, like the ticks in the cells.
    ///
    /// Three failures in a row, over all cores: a core's own row is exact, its next head ends it. A head on another core
    /// ends what was known of the row at the last look, and also what came since, if the head is so recent that it may
    /// have been later. A timeout marks if the request was sent after the last head of every core, with
    /// `limits::CORE_SKEW_TICKS` in favour of the head (the core's own heads are exact again).
    pub fn look(&mut self, cells: &[CoreCell], on_timeout: OnTimeout, now_tick: u32) -> Option<Fault> {
        self.seen.resize(cells.len(), Seen::default());
        let readings: Vec<Reading> = cells.iter().map(CoreCell::read).collect();
        let failures = self.failures(&readings, now_tick);
        let timeout = match on_timeout {
            OnTimeout::Any => readings.iter().zip(&self.seen).any(|(r, s)| r.timeouts != s.at.timeouts),
            OnTimeout::Silent => (0..readings.len()).any(|core| self.silent(&readings, core)),
        };
        for (seen, reading) in self.seen.iter_mut().zip(readings) {
            seen.at = reading;
        }
        if failures >= FAILURES_TO_DOWN {
            Some(Fault::Failures(failures))
        } else if timeout {
            Some(if on_timeout == OnTimeout::Any { Fault::Timeout } else { Fault::Silent })
        } else {
            None
        }
    }

    /// What the cells say now has had its consequence: only what comes after it counts from here on.
    pub fn settle(&mut self, cells: &[CoreCell]) {
        self.seen = cells.iter().map(CoreCell::read).map(|at| Seen { at, settled: at.failures }).collect();
    }

    /// Settles, and takes the endpoint for well at `now_tick`: requests sent before that say nothing of it any more.
    pub fn settle_well(&mut self, cells: &[CoreCell], now_tick: u32) {
        self.settle(cells);
        self.well_tick = now_tick.saturating_add(1);
    }

    /// Failures that count, over all cores; notes which do not.
    fn failures(&mut self, readings: &[Reading], now_tick: u32) -> u32 {
        let risen = |i: usize, seen: &[Seen]| readings[i].heads != seen[i].at.heads;
        let heads: Vec<usize> = (0..readings.len()).filter(|i| risen(*i, &self.seen)).collect();
        let recent = |i: usize| readings[i].head_tick.saturating_add(CORE_SKEW_TICKS) > now_tick;
        let mut sum = 0u32;
        for (i, reading) in readings.iter().enumerate() {
            let seen = &mut self.seen[i];
            if heads.contains(&i) || reading.failures < seen.settled {
                // A new row: all of it is after this core's own head.
                (seen.settled, seen.at.failures) = (0, 0);
            }
            if heads.iter().any(|h| *h != i && recent(*h)) {
                seen.settled = reading.failures;
            } else if heads.iter().any(|h| *h != i) {
                seen.settled = seen.at.failures.min(reading.failures);
            }
            sum = sum.saturating_add(reading.failures - seen.settled);
        }
        sum
    }

    /// Whether this core has a timeout that is news, of a request after which no head came to any core.
    fn silent(&self, readings: &[Reading], core: usize) -> bool {
        let sent = readings[core].timeout_sent_tick;
        let well = |tick: u32| tick != 0 && tick.saturating_add(CORE_SKEW_TICKS) > sent;
        sent != self.seen[core].at.timeout_sent_tick
            && readings[core].head_tick <= sent
            && !well(self.well_tick)
            && readings.iter().enumerate().all(|(i, r)| i == core || !well(r.head_tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        cells: Cells,
        judge: Judge,
        on_timeout: OnTimeout,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { cells: Cells::new(3), judge: Judge::default(), on_timeout: OnTimeout::Silent }
        }
        fn fail(&self, core: usize) {
            self.cells.core(core).failures_in_row.fetch_add(1, Relaxed);
        }
        fn head(&self, core: usize, tick: u32) {
            let cell = self.cells.core(core);
            cell.failures_in_row.store(0, Relaxed);
            cell.head_tick.store(tick + 1, Relaxed);
            cell.statuses[1].fetch_add(1, Relaxed);
        }
        fn timeout(&self, core: usize, sent: u32) {
            let cell = self.cells.core(core);
            cell.timeout_sent_tick.store(sent + 1, Relaxed);
            cell.timeouts.fetch_add(1, Relaxed);
        }
        fn look(&mut self, now: u32) -> Option<Fault> {
            self.judge.look(self.cells.all(), self.on_timeout, now)
        }
    }

    #[test]
    fn untouched_cells_say_nothing() {
        let mut b = Bench::new();
        assert_eq!(b.look(0), None);
        assert_eq!(b.cells.all().len(), 0);
    }

    #[test]
    fn three_in_a_row_on_one_core_or_over_several() {
        for cores in [[0, 0, 0], [0, 1, 2], [1, 1, 0]] {
            let mut b = Bench::new();
            b.head(0, 5);
            b.head(1, 5);
            for (i, core) in cores.into_iter().enumerate() {
                b.fail(core);
                let want = (i == 2).then_some(Fault::Failures(3));
                assert_eq!(b.look(100), want, "{cores:?} {i}");
            }
        }
    }

    #[test]
    fn a_head_on_any_core_ends_the_row() {
        for head in 0..3 {
            let mut b = Bench::new();
            for round in 0..10 {
                b.fail(0);
                b.fail(1);
                assert_eq!(b.look(100 + round), None, "{head} {round}");
                b.head(head, 100 + round);
                assert_eq!(b.look(100 + round), None, "{head} {round}");
            }
        }
    }

    #[test]
    fn a_head_that_may_be_later_ends_the_row_but_an_old_one_does_not() {
        let mut b = Bench::new();
        b.head(1, 100);
        (0..3).for_each(|_| b.fail(0));
        assert_eq!(b.look(100), None);
        let mut b = Bench::new();
        b.head(1, 100);
        (0..3).for_each(|_| b.fail(0));
        assert_eq!(b.look(103), Some(Fault::Failures(3)));
    }

    #[test]
    fn flaky_on_two_cores_is_not_down() {
        let mut b = Bench::new();
        for i in 0..100 {
            b.fail(0);
            assert_eq!(b.look(7), None, "{i}");
            b.head(1, 7);
        }
        // But once the heads end, three more are enough.
        b.look(7);
        (0..3).for_each(|_| b.fail(0));
        assert_eq!(b.look(7), Some(Fault::Failures(3)));
    }

    #[test]
    fn a_timeout_marks_only_if_no_core_had_a_head_since() {
        for (heads, want) in [
            ([None, None, None], true),
            ([Some(50), Some(10), Some(40)], true),
            ([None, Some(51), None], false),
            ([None, Some(49), None], false),
            ([None, Some(47), None], true),
            ([Some(60), None, None], false),
        ] {
            let mut b = Bench::new();
            heads.iter().enumerate().filter_map(|(i, h)| h.map(|h| (i, h))).for_each(|(i, h)| b.head(i, h));
            b.timeout(0, 50);
            assert_eq!(b.look(80), want.then_some(Fault::Silent), "{heads:?}");
            assert_eq!(b.look(81), None, "only once");
        }
    }

    #[test]
    fn any_timeout_if_told_so() {
        let mut b = Bench { on_timeout: OnTimeout::Any, ..Bench::new() };
        b.head(1, 60);
        b.timeout(0, 50);
        assert_eq!(b.look(80), Some(Fault::Timeout));
        assert_eq!(b.look(80), None);
    }

    #[test]
    fn what_is_settled_does_not_count_again() {
        let mut b = Bench::new();
        (0..5).for_each(|_| b.fail(0));
        b.timeout(1, 10);
        b.judge.settle(b.cells.all());
        b.fail(0);
        b.fail(2);
        assert_eq!(b.look(50), None);
        b.fail(1);
        assert_eq!(b.look(50), Some(Fault::Failures(3)));
    }

    #[test]
    fn a_request_sent_before_the_endpoint_was_well_again_is_no_news() {
        let mut b = Bench::new();
        b.fail(0);
        b.judge.settle_well(b.cells.all(), 60);
        b.timeout(0, 59);
        assert_eq!(b.look(90), None);
        b.timeout(0, 63);
        assert_eq!(b.look(93), Some(Fault::Silent));
    }
}
