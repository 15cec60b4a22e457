//! The share of requests that failed within the latest seconds, from counters that only rise.

use super::health::CoreCell;
use super::health_policy::FailureRate;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

/// Samples that a window is made of: it is exact to a tenth of its length, or to a second.
const SAMPLES: u32 = 10;

/// How many requests have ended, and how many of them badly, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    ended: u64,
    failed: u64,
}

impl Totals {
    /// Sums over the cells of all cores. A client that went away ends a request without being counted.
    pub(super) fn of(cells: &[CoreCell]) -> Totals {
        cells.iter().fold(Totals::default(), |sum, cell| {
            let broken =
                [&cell.connect_errors, &cell.resets, &cell.timeouts].map(|c| c.load(Relaxed)).iter().sum::<u64>();
            // Bad heads before all heads: none of them is then missing among the ended.
            let bad = cell.bad_statuses.load(Relaxed);
            Totals { ended: sum.ended + broken + cell.heads(), failed: sum.failed + broken + bad }
        })
    }
}

/// What was counted at the begin of the window, and at times within it; oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    samples: VecDeque<(u32, Totals)>,
}

impl Window {
    /// What was counted until now does not count any more.
    pub(super) fn restart(&mut self, totals: Totals, now_tick: u32) {
        self.samples.clear();
        self.samples.push_back((now_tick, totals));
    }

    /// To be called about each second.
    pub(super) fn sample(&mut self, totals: Totals, rate: FailureRate, now_tick: u32) {
        let apart = (rate.within / SAMPLES).max(1);
        if self.samples.back().is_none_or(|(at, _)| now_tick >= at.saturating_add(apart)) {
            self.samples.push_back((now_tick, totals));
        }
        // The window begins at the latest sample that is as old as it.
        while self.samples.get(1).is_some_and(|(at, _)| at.saturating_add(rate.within) <= now_tick) {
            self.samples.pop_front();
        }
    }

    /// Failed and ended requests within the window, if they are enough for a mark.
    pub(super) fn look(&mut self, totals: Totals, rate: FailureRate, now_tick: u32) -> Option<(u64, u64)> {
        self.sample(totals, rate, now_tick);
        let (_, begin) = self.samples.front()?;
        let ended = totals.ended.saturating_sub(begin.ended);
        // The counters of a core are read one by one: one that failed may be seen before it has ended.
        let failed = totals.failed.saturating_sub(begin.failed).min(ended);
        let enough = ended >= u64::from(rate.requests) && failed * 100 >= ended * u64::from(rate.percent);
        enough.then_some((failed, ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: FailureRate = FailureRate { percent: 50, requests: 20, within: 10 };

    /// Looks each second after so many good and bad ends; gives when it marks first.
    fn marks_at(seconds: &[(u64, u64)]) -> Option<usize> {
        let (mut window, mut totals) = (Window::default(), Totals::default());
        window.sample(totals, RATE, 0);
        seconds.iter().enumerate().position(|(i, (good, bad))| {
            totals = Totals { ended: totals.ended + good + bad, failed: totals.failed + bad };
            window.look(totals, RATE, i as u32 + 1).is_some()
        })
    }

    #[test]
    fn half_of_twenty_within_ten_seconds() {
        assert_eq!(marks_at(&[(10, 10)]), Some(0));
        assert_eq!(marks_at(&[(11, 9)]), None);
        assert_eq!(marks_at(&[(0, 19)]), None);
        assert_eq!(marks_at(&[(2, 2); 20]), Some(4));
        assert_eq!(marks_at(&[(0, 1); 100]), None, "no ten seconds have twenty");
        assert_eq!(marks_at(&[(1, 1); 100]), Some(9));
    }

    #[test]
    fn old_ones_fade() {
        let mut seconds = vec![(1000, 0)];
        seconds.extend([(0, 20); 15]);
        assert_eq!(marks_at(&seconds), Some(10), "as soon as the good ones are out of the window");
        let mut seconds = vec![(0, 19)];
        seconds.extend([(0, 0); 12]);
        seconds.extend([(0, 19)]);
        assert_eq!(marks_at(&seconds), None);
    }

    #[test]
    fn a_restart_forgets() {
        let mut window = Window::default();
        window.sample(Totals::default(), RATE, 0);
        let totals = Totals { ended: 100, failed: 100 };
        assert_eq!(window.look(totals, RATE, 1), Some((100, 100)));
        window.restart(totals, 1);
        assert_eq!(window.look(totals, RATE, 1), None);
        assert_eq!(window.look(Totals { ended: 119, failed: 119 }, RATE, 2), None);
        assert_eq!(window.look(Totals { ended: 120, failed: 120 }, RATE, 2), Some((20, 20)));
        assert!(window.samples.len() <= SAMPLES as usize + 2);
    }
}
