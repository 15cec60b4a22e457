//! Whether every core still ticks, as seen from control.

use crate::limits;
use std::time::{Duration, Instant};

const SILENT: Duration = Duration::from_secs(limits::CORE_SILENT_SECONDS);
/// Control looks at least once a second. Longer without a look means that control itself stood still (a stopped process,
/// a suspended machine), and then nothing is known of the cores.
const LOOK: Duration = Duration::from_secs(3);

/// The latest ticks of all cores, and when each was first seen.
#[derive(Debug)]
pub(super) struct Pulses {
    cores: Vec<(u32, Instant)>,
    looked: Instant,
}

impl Pulses {
    pub(super) fn new(cores: usize, now: Instant) -> Pulses {
        Pulses { cores: vec![(0, now); cores], looked: now }
    }

    /// Looks at the ticks of all cores. To be called at least once a second.
    pub(super) fn look(&mut self, ticks: impl Iterator<Item = u32>, now: Instant) {
        let blind = now.saturating_duration_since(self.looked) > LOOK;
        self.looked = now;
        for ((seen, since), tick) in self.cores.iter_mut().zip(ticks) {
            if *seen != tick || blind {
                (*seen, *since) = (tick, now);
            }
        }
    }

    /// The cores that have not ticked for too long, with the seconds.
    pub(super) fn silent(&self, now: Instant) -> Vec<(usize, u64)> {
        let age = |since: &Instant| now.saturating_duration_since(*since);
        let silent = self.cores.iter().enumerate().filter(|(_, (_, since))| age(since) >= SILENT);
        silent.map(|(core, (_, since))| (core, age(since).as_secs())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_without_ticks_is_named_and_a_sleep_of_control_blames_nobody() {
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let mut pulses = Pulses::new(3, begin);
        for s in 1..=10 {
            pulses.look([s as u32, 7, 0].into_iter(), at(s));
            let expected: &[(usize, u64)] = match s {
                0..=4 => &[],
                5 => &[(2, 5)],
                _ => &[(1, s - 1), (2, s)],
            };
            assert_eq!(pulses.silent(at(s)), expected, "{s}");
        }
        pulses.look([10, 7, 0].into_iter(), at(100));
        assert_eq!(pulses.silent(at(100)), []);
        pulses.look([11, 8, 0].into_iter(), at(101));
        assert_eq!(pulses.silent(at(101)), []);
    }
}
