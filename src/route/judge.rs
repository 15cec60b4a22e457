//! Judges one endpoint by the cells of all cores.

use super::failure_rate::{Totals, Window};
use super::health::CoreCell;
use super::health_policy::HealthPolicy;
use super::table::OnTimeout;
use crate::limits::CORE_SKEW_TICKS;
use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// What one core's cell says of health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    failures: u32,
    /// Response heads so far. They order what ticks are too coarse for: if it has not changed, no head came.
    heads: u64,
    /// Those of them that end a row of failures.
    good_heads: u64,
    head_tick: u32,
    timeouts: u64,
    /// Tick, epoch and heads of the latest silent timeout.
    silent: (u32, u64, u64),
}

impl CoreCell {
    /// Counters of one core are read one by one, not as a whole. The failures come first: a head that comes in between
    /// is then seen (and clears them), and none is missed that came before them.
    fn read(&self) -> Reading {
        let failures = self.failures_in_row.load(Acquire);
        let heads = self.heads();
        Reading {
            failures,
            timeouts: self.timeouts.load(Acquire),
            silent: (
                self.timeout_sent_tick.load(Acquire),
                self.timeout_epoch.load(Relaxed),
                self.timeout_heads.load(Relaxed),
            ),
            head_tick: self.head_tick.load(Relaxed),
            heads,
            // A bad head is counted as bad first: at worst this is one too few for a moment, never one too many.
            good_heads: heads.saturating_sub(self.bad_statuses.load(Relaxed)),
        }
    }
}

impl Reading {
    /// Whether a request of this core has timed out since its latest head, and was sent after it, too.
    fn is_silent(&self) -> bool {
        self.silent.0 != 0 && self.silent.2 == self.heads
    }
}

/// Why an endpoint should be marked down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// So many connect errors or resets before a head, in a row; some may be statuses that count as failures.
    Failures {
        /// How many.
        count: u32,
        /// Whether the cluster counts statuses.
        statuses: bool,
    },
    /// Of so many requests that ended within the cluster's window, so many failed.
    Rate {
        /// Failed ones.
        failed: u64,
        /// All.
        ended: u64,
        /// Seconds.
        within: u32,
    },
    /// A request timed out, and no response head has come since it was sent.
    Silent,
    /// A request timed out, and the cluster marks on any timeout.
    Timeout,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Failures { count, statuses: false } => write!(f, "{count} connect errors or resets in a row"),
            Fault::Failures { count, statuses: true } => {
                write!(f, "{count} connect errors, resets or bad statuses in a row")
            }
            Fault::Rate { failed, ended, within } => write!(f, "{failed} of {ended} requests failed within {within} s"),
            Fault::Silent => f.write_str("a response timeout, and no response head since that request was sent"),
            Fault::Timeout => f.write_str("a response timeout"),
        }
    }
}

impl Fault {
    /// One of each kind, with the numbers that it would have by default.
    pub const KINDS: [Fault; 5] = [
        Fault::Failures { count: 3, statuses: false },
        Fault::Failures { count: 3, statuses: true },
        Fault::Rate { failed: 10, ended: 20, within: 10 },
        Fault::Silent,
        Fault::Timeout,
    ];

    /// What to do about it.
    pub fn cure(self) -> &'static str {
        match self {
            Fault::Failures { statuses: false, .. } => {
                "Look whether it runs and its own log. `health.failures` sets how many in a row it takes."
            }
            Fault::Failures { statuses: true, .. } => {
                "Look whether it runs and its own log. `health.failures` sets how many in a row it takes, \
                 `health.statuses` which statuses count."
            }
            Fault::Rate { .. } => "Look at its own log. `health.rate` sets the share, of how many, within what time.",
            Fault::Silent => {
                "It hangs: look what it is at. `timeouts.head` sets how long a response may take; a backend that \
                 answers others meanwhile is not marked for this."
            }
            Fault::Timeout => {
                "`timeouts.head` sets how long a response may take; `health.on_timeout` that any timeout marks it, \
                 also while it answers others."
            }
        }
    }
}

/// Judges one endpoint by the cells of all cores. Cells belong to their cores and are never reset by others, so a judge
/// remembers what has had its consequence already.
///
/// The order of events on different cores is known only to about a second. Where it is in doubt, a head counts as the
/// later one: then a mark comes some failures late, but no endpoint that answers is ever marked.
///
/// Silence needs no such doubt. Each core knows for certain whether a head came to it after it had sent a request that
/// then timed out. If that holds for every core that had a head at about the time in question, then the latest of these
/// requests was sent after all heads, and has timed out: nothing has come since, on any core.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    seen: Vec<Seen>,
    /// Epoch by which the endpoint takes traffic again since it was last known to be well by other means than a head (a
    /// probe). A request sent by an earlier one was sent before that.
    well_epoch: u64,
    /// For clusters that judge by the share of failures.
    window: Window,
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
    /// Failures in a row, over all cores: a core's own row is exact, its next good head ends it. A good head on another
    /// core ends what was known of the row at the last look, and also what came since, if the head is so recent that it
    /// may have been later. A timeout marks if no head at all has come to any core since a request was sent that timed
    /// out. The share of failures is that of all cores together.
    pub fn look(&mut self, cells: &[CoreCell], policy: &HealthPolicy, now_tick: u32) -> Option<Fault> {
        self.seen.resize(cells.len(), Seen::default());
        let mut readings: Vec<Reading> = cells.iter().map(CoreCell::read).collect();
        for (reading, seen) in readings.iter_mut().zip(&self.seen) {
            reading.good_heads = reading.good_heads.max(seen.at.good_heads);
        }
        let failures = self.failures(&readings, now_tick);
        let timeout = match policy.on_timeout {
            OnTimeout::Any => readings.iter().zip(&self.seen).any(|(r, s)| r.timeouts != s.at.timeouts),
            OnTimeout::Silent => (0..readings.len()).any(|core| self.silent(&readings, core)),
        };
        for (seen, reading) in self.seen.iter_mut().zip(readings) {
            seen.at = reading;
        }
        let rate = policy.rate.and_then(|rate| {
            let (failed, ended) = self.window.look(Totals::of(cells), rate, now_tick)?;
            Some(Fault::Rate { failed, ended, within: rate.within })
        });
        if failures >= policy.failures {
            Some(Fault::Failures { count: failures, statuses: !policy.statuses.is_empty() })
        } else if timeout {
            Some(if policy.on_timeout == OnTimeout::Any { Fault::Timeout } else { Fault::Silent })
        } else {
            rate
        }
    }

    /// Keeps the share of failures up to date: to be called about each second for a cluster that goes by it.
    pub fn sample(&mut self, cells: &[CoreCell], policy: &HealthPolicy, now_tick: u32) {
        if let Some(rate) = policy.rate {
            self.window.sample(Totals::of(cells), rate, now_tick);
        }
    }

    /// What the cells say now has had its consequence: only what comes after it counts from here on.
    pub fn settle(&mut self, cells: &[CoreCell], now_tick: u32) {
        self.seen = cells.iter().map(CoreCell::read).map(|at| Seen { at, settled: at.failures }).collect();
        self.window.restart(Totals::of(cells), now_tick);
    }

    /// Settles, and takes the endpoint for well: requests sent by an epoch before `epoch`, the one in which it takes
    /// traffic again, say nothing of it any more.
    pub fn settle_well(&mut self, cells: &[CoreCell], epoch: u64, now_tick: u32) {
        self.settle(cells, now_tick);
        self.well_epoch = epoch;
    }

    /// Failures that count, over all cores; notes which do not.
    fn failures(&mut self, readings: &[Reading], now_tick: u32) -> u32 {
        let risen = |i: usize, seen: &[Seen]| readings[i].good_heads != seen[i].at.good_heads;
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
        let (sent, epoch, _) = readings[core].silent;
        let before = |r: &Reading| r.head_tick == 0 || r.head_tick.saturating_add(CORE_SKEW_TICKS) <= sent;
        readings[core].timeouts != self.seen[core].at.timeouts
            && readings[core].is_silent()
            && epoch >= self.well_epoch
            && readings.iter().all(|r| r.is_silent() || before(r))
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::Cells;
    use super::*;

    struct Bench {
        cells: Cells,
        judge: Judge,
        policy: HealthPolicy,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { cells: Cells::new(3), judge: Judge::default(), policy: HealthPolicy::default() }
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
        /// A request sent at this tick, after the core's latest head, has timed out.
        fn timeout(&self, core: usize, sent: u32) {
            self.timeout_by(core, sent, 0);
        }
        fn timeout_by(&self, core: usize, sent: u32, epoch: u64) {
            let cell = self.cells.core(core);
            cell.timeout_sent_tick.store(sent + 1, Relaxed);
            cell.timeout_epoch.store(epoch, Relaxed);
            cell.timeout_heads.store(cell.heads(), Relaxed);
            cell.timeouts.fetch_add(1, Relaxed);
        }
        fn look(&mut self, now: u32) -> Option<Fault> {
            self.judge.look(self.cells.all(), &self.policy, now)
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
                let want = (i == 2).then_some(Fault::Failures { count: 3, statuses: false });
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
        assert_eq!(b.look(103), Some(Fault::Failures { count: 3, statuses: false }));
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
        assert_eq!(b.look(7), Some(Fault::Failures { count: 3, statuses: false }));
    }

    #[test]
    fn a_timeout_marks_only_if_no_core_had_a_head_since() {
        for (heads, want) in [
            ([None, None, None], true),
            ([Some(50), Some(10), Some(40)], true),
            ([None, Some(51), None], false),
            ([None, Some(49), None], false),
            ([None, Some(47), None], true),
        ] {
            let mut b = Bench::new();
            heads.iter().enumerate().filter_map(|(i, h)| h.map(|h| (i, h))).for_each(|(i, h)| b.head(i, h));
            b.timeout(0, 50);
            assert_eq!(b.look(80), want.then_some(Fault::Silent), "{heads:?}");
            assert_eq!(b.look(81), None, "only once");
        }
        // A head of the core itself, after the request was sent.
        let mut b = Bench::new();
        b.timeout(0, 50);
        b.head(0, 50);
        assert_eq!(b.look(80), None);
    }

    #[test]
    fn cores_that_went_silent_within_one_tick_mark_together() {
        let mut b = Bench::new();
        (0..3).for_each(|core| b.head(core, 50));
        b.timeout(0, 50);
        assert_eq!(b.look(53), None, "the others may have had their heads later");
        b.timeout(2, 50);
        assert_eq!(b.look(54), None);
        b.timeout(1, 51);
        assert_eq!(b.look(54), Some(Fault::Silent), "each core's request came after its own head");
    }

    #[test]
    fn a_head_anywhere_ends_the_silence_of_all() {
        let mut b = Bench::new();
        (0..3).for_each(|core| b.head(core, 50));
        b.timeout(0, 50);
        b.timeout(1, 50);
        b.look(53);
        b.head(1, 53);
        b.timeout(2, 51);
        assert_eq!(b.look(54), None);
        // A timeout that was no silence is news, but does not make old silence count.
        b.cells.core(1).timeouts.fetch_add(1, Relaxed);
        assert_eq!(b.look(55), None);
    }

    #[test]
    fn any_timeout_if_told_so() {
        let mut b = Bench::new();
        b.policy.on_timeout = OnTimeout::Any;
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
        b.judge.settle(b.cells.all(), 40);
        b.fail(0);
        b.fail(2);
        assert_eq!(b.look(50), None);
        b.fail(1);
        assert_eq!(b.look(50), Some(Fault::Failures { count: 3, statuses: false }));
    }

    #[test]
    fn a_request_sent_before_the_endpoint_was_well_again_is_no_news() {
        let mut b = Bench::new();
        b.fail(0);
        b.judge.settle_well(b.cells.all(), 7, 60);
        b.timeout_by(0, 60, 6);
        assert_eq!(b.look(90), None);
        b.timeout_by(0, 60, 7);
        assert_eq!(b.look(90), Some(Fault::Silent));
    }

    #[test]
    fn a_bad_status_is_a_failure_and_a_sign_of_life() {
        let mut b = Bench::new();
        let bad = |b: &Bench, core: usize| {
            let cell = b.cells.core(core);
            cell.failures_in_row.fetch_add(1, Relaxed);
            cell.head_tick.store(50, Relaxed);
            cell.bad_statuses.fetch_add(1, Relaxed);
            cell.statuses[4].fetch_add(1, Relaxed);
        };
        b.policy.statuses = b.policy.statuses.with(503);
        b.policy.failures = 4;
        for core in [0, 1, 0] {
            bad(&b, core);
            assert_eq!(b.look(50), None);
        }
        // Not silent: its heads are bad, but they come.
        b.timeout(2, 49);
        assert_eq!(b.look(50), None);
        b.head(1, 50);
        assert_eq!(b.look(50), None);
        (0..4).for_each(|_| bad(&b, 2));
        assert_eq!(b.look(51), Some(Fault::Failures { count: 4, statuses: true }));
    }

    #[test]
    fn a_share_marks_where_no_row_does() {
        use super::super::health_policy::FailureRate;
        let mut b = Bench::new();
        b.policy.rate = Some(FailureRate { percent: 50, requests: 10, within: 10 });
        b.judge.sample(b.cells.all(), &b.policy, 1);
        for round in 0..5 {
            assert_eq!(b.look(2), None, "{round}");
            b.head(1, 2);
            b.fail(0);
            b.cells.core(0).resets.fetch_add(1, Relaxed);
        }
        assert_eq!(b.look(2), Some(Fault::Rate { failed: 5, ended: 10, within: 10 }));
        b.judge.settle(b.cells.all(), 2);
        assert_eq!(b.look(3), None);
    }
}
