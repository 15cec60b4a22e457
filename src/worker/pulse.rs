//! What a core can say of itself once a tick: how late the tick came, and how much of the time since the last one it ran.

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
    now_us: u64,
    cpu_us: u64,
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
}

impl Pulse {
    /// The core's clock has reached `tick`; `now_us` is a clock that runs with it, `cpu_us` the time that the thread has
    /// had a CPU. The first beat tells nothing.
    pub(super) fn beat(&self, tick: u32, now_us: u64, cpu_us: u64) -> Beat {
        let begin_us = now_us.saturating_sub(u64::from(tick) * TICK_US);
        let Some(last) = self.last.replace(Some(Last { tick, now_us, cpu_us, begin_us })) else {
            return Beat::default();
        };
        let begin_us = begin_us.min(last.begin_us);
        self.last.set(Some(Last { tick, now_us, cpu_us, begin_us }));
        let due_us = begin_us + (u64::from(last.tick) + 1) * TICK_US;
        let passed = now_us.saturating_sub(last.now_us).max(1);
        let busy = cpu_us.saturating_sub(last.cpu_us).min(passed);
        Beat { late_us: now_us.saturating_sub(due_us), busy_permille: (busy * 1000 / passed) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_counts_from_the_earliest_tick() {
        let pulse = Pulse::default();
        let second = |n: u64, late: u64| 5_000_000 + n * TICK_US + late;
        assert_eq!(pulse.beat(1, second(1, 900), 0), Beat::default());
        assert_eq!(pulse.beat(2, second(2, 100), 500_000).late_us, 0);
        assert_eq!(pulse.beat(3, second(3, 400), 500_000).late_us, 300);
        // A stall of more than a tick: the count goes on by two, and the first of the two was due long ago.
        assert_eq!(pulse.beat(5, second(5, 600_100), 500_000).late_us, 1_600_000);
        assert_eq!(pulse.beat(6, second(6, 100), 500_000).late_us, 0);
    }

    #[test]
    fn busy_is_a_share() {
        let pulse = Pulse::default();
        pulse.beat(1, 1_000_000, 10);
        assert_eq!(pulse.beat(2, 2_000_000, 250_010).busy_permille, 250);
        assert_eq!(pulse.beat(3, 3_000_000, 250_010).busy_permille, 0);
        assert_eq!(pulse.beat(4, 4_000_000, 9_000_000).busy_permille, 1000);
        assert_eq!(pulse.beat(4, 4_000_000, 0).busy_permille, 0);
    }
}
