//! The less loaded of two: power of two choices (Mitzenmacher 2001).
//!
//! Looking at all backends would cost a line of memory per backend and core, and would send all cores to the same idle
//! backend at once. Two random ones are nearly as good and never form a herd.

use super::Tried;
use super::random::Random;

/// Draws two different backends by weight and takes the one with less load for its weight.
#[derive(Debug)]
pub(super) struct LeastConn {
    random: Random,
}

impl LeastConn {
    /// Weights by index; 0 is no candidate.
    pub(super) fn new(weights: &[u32], seed: u64) -> LeastConn {
        LeastConn { random: Random::new(weights, seed) }
    }

    /// For other weights of the same backends. Allocates nothing.
    pub(super) fn prepare(&mut self, weights: &[u32]) {
        self.random.prepare(weights);
    }

    /// `load` tells how many exchanges are with a backend now.
    pub(super) fn pick(&mut self, weights: &[u32], tried: &Tried, load: impl Fn(usize) -> u64) -> Option<usize> {
        let first = self.random.draw(weights, |i| tried.has(i))?;
        let Some(second) = self.random.draw(weights, |i| i == first || tried.has(i)) else {
            return Some(first);
        };
        // The load each would have with this exchange, so that of two idle ones the heavier is the less loaded.
        let (a, b) = (u128::from(load(first)) + 1, u128::from(load(second)) + 1);
        Some(if b * u128::from(weights[first]) < a * u128::from(weights[second]) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_the_lower_load_per_weight() {
        let weights = [1, 2];
        let mut least = LeastConn::new(&weights, 3);
        for (loads, want) in [([0, 0], 1), ([0, 1], 0), ([1, 4], 0), ([1, 2], 1), ([5, 0], 1)] {
            // (0+1)/1 against (1+1)/2 is a tie, which the first draw decides; the others have one answer.
            let picks: Vec<_> =
                (0..50).map(|_| least.pick(&weights, &Tried::default(), |i| loads[i]).unwrap()).collect();
            if loads == [0, 1] {
                assert!(picks.contains(&0) && picks.contains(&1));
            } else {
                assert!(picks.iter().all(|i| *i == want), "{loads:?}");
            }
        }
    }

    #[test]
    fn with_one_left_it_takes_that() {
        let mut least = LeastConn::new(&[1, 1], 3);
        let mut tried = Tried::default();
        tried.add(0);
        assert_eq!(least.pick(&[1, 1], &tried, |_| 9), Some(1));
        tried.add(1);
        assert_eq!(least.pick(&[1, 1], &tried, |_| 0), None);
    }
}
