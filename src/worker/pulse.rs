//! What a core can say of itself once a tick: how late the tick came, how much of the time since the last one it ran, and how
//! much of it had work.

use super::scales::Spent;
use std::cell::Cell;

const TICK_US: u64 = crate::limits::TICK_MS * 1000;

/// The ticks so far.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    last: Cell<Option<Last>>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    tick: u32,
    spent: Spent,
    /// The earliest moment at which tick 0 can have been, by all ticks so far: the core's clock tells whole ticks only.
    begin_us: u64,
}

/// One tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beat {
    /// Microseconds between the moment at which it was due and now.
    pub(super) late_us: u64,
    /// Thousandths of the time since the tick before that the core's thread had a CPU.
    pub(super) busy_permille: u32,
    /// Thousandths of that time in which it had a CPU or waited for one: in which something waited for it.
    pub(super) load_permille: u32,
}

impl Pulse {
    /// The core's clock has reached `tick`; the clock of `spent` runs with it. The first beat tells nothing.
    pub(super) fn beat(&self, tick: u32, spent: Spent) -> Beat {
        let begin_us = spent.at_us.saturating_sub(u64::from(tick) * TICK_US);
        let Some(last) = self.last.replace(Some(Last { tick, spent, begin_us })) else {
            return Beat::default();
        };
        let begin_us = begin_us.min(last.begin_us);
        self.last.set(Some(Last { tick, spent, begin_us }));
        let due_us = begin_us + (u64::from(last.tick) + 1) * TICK_US;
        let passed = spent.at_us.saturating_sub(last.spent.at_us).max(1);
        let permille = |us: u64| (us.min(passed) * 1000 / passed) as u32;
        let ran = spent.cpu_us.saturating_sub(last.spent.cpu_us);
        let waited = spent.waited_us.saturating_sub(last.spent.waited_us);
        Beat {
            late_us: spent.at_us.saturating_sub(due_us),
            busy_permille: permille(ran),
            load_permille: permille(ran + waited),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(at_us: u64, cpu_us: u64) -> Spent {
        Spent { at_us, cpu_us, waited_us: 0 }
    }

    #[test]
    fn lateness_counts_from_the_earliest_tick() {
        let pulse = Pulse::default();
        let second = |n: u64, late: u64| spent(5_000_000 + n * TICK_US + late, 500_000);
        assert_eq!(pulse.beat(1, second(1, 900)), Beat::default());
        assert_eq!(pulse.beat(2, second(2, 100)).late_us, 0);
        assert_eq!(pulse.beat(3, second(3, 400)).late_us, 300);
        // A stall of more than a tick: the count goes on by two, and the first of the two was due long ago.
        assert_eq!(pulse.beat(5, second(5, 600_100)).late_us, 1_600_000);
        assert_eq!(pulse.beat(6, second(6, 100)).late_us, 0);
    }

    #[test]
    fn busy_is_a_share() {
        let pulse = Pulse::default();
        pulse.beat(1, spent(1_000_000, 10));
        assert_eq!(pulse.beat(2, spent(2_000_000, 250_010)).busy_permille, 250);
        assert_eq!(pulse.beat(3, spent(3_000_000, 250_010)).busy_permille, 0);
        assert_eq!(pulse.beat(4, spent(4_000_000, 9_000_000)).busy_permille, 1000);
        assert_eq!(pulse.beat(4, spent(4_000_000, 0)).busy_permille, 0);
    }

    #[test]
    fn a_core_that_waits_for_its_cpu_has_work() {
        let pulse = Pulse::default();
        pulse.beat(1, spent(1_000_000, 0));
        let beat = pulse.beat(2, Spent { at_us: 2_000_000, cpu_us: 300_000, waited_us: 450_000 });
        assert_eq!((beat.busy_permille, beat.load_permille), (300, 750));
        let beat = pulse.beat(3, Spent { at_us: 3_000_000, cpu_us: 800_000, waited_us: 1_450_000 });
        assert_eq!((beat.busy_permille, beat.load_permille), (500, 1000));
    }
}
