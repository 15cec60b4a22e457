//! Weighted random, and the generator behind it.

use super::Tried;

/// Draws before a draw among the untried is counted out instead: with few backends and a heavy one tried, repeated
/// drawing could go on for long.
const DRAWS_MAX: usize = 8;

/// Each candidate is drawn with a chance of its weight in the sum of their weights.
#[derive(Debug)]
pub(super) struct Random {
    seed: u64,
    /// Indices of the candidates: those with a weight.
    candidates: Vec<u32>,
    /// Sums of the weights of `candidates[..=i]`; empty if all weights are equal.
    sums: Vec<u64>,
}

impl Random {
    /// Weights by index; 0 is no candidate.
    pub(super) fn new(weights: &[u32], seed: u64) -> Random {
        let n = weights.len();
        let mut random = Random { seed, candidates: Vec::with_capacity(n), sums: Vec::with_capacity(n) };
        random.prepare(weights);
        random
    }

    /// For other weights of the same backends. Allocates nothing.
    pub(super) fn prepare(&mut self, weights: &[u32]) {
        self.candidates.clear();
        self.sums.clear();
        self.candidates.extend((0..weights.len() as u32).filter(|i| weights[*i as usize] > 0));
        let weight = |i: &u32| weights[*i as usize];
        if self.candidates.windows(2).any(|w| weight(&w[0]) != weight(&w[1])) {
            self.sums.extend(self.candidates.iter().scan(0, |sum, i| {
                *sum += u64::from(weight(i));
                Some(*sum)
            }));
        }
    }

    pub(super) fn pick(&mut self, weights: &[u32], tried: &Tried) -> Option<usize> {
        self.draw(weights, |i| tried.has(i))
    }

    /// Draws among the candidates that are not `barred`. A barred draw is thrown away and made again, which leaves the
    /// shares of the others as they are; counting out has the same shares, only slower.
    pub(super) fn draw(&mut self, weights: &[u32], barred: impl Fn(usize) -> bool) -> Option<usize> {
        let total = self.sums.last().copied().unwrap_or(self.candidates.len() as u64);
        if total == 0 {
            return None;
        }
        for _ in 0..DRAWS_MAX {
            let point = below(&mut self.seed, total);
            let equal = self.sums.is_empty();
            let at = if equal { point as usize } else { self.sums.partition_point(|sum| *sum <= point) };
            let index = self.candidates[at] as usize;
            if !barred(index) {
                return Some(index);
            }
        }
        let free = || self.candidates.iter().map(|i| *i as usize).filter(|i| !barred(*i));
        let total: u64 = free().map(|i| u64::from(weights[i])).sum();
        if total == 0 {
            return None;
        }
        let mut point = below(&mut self.seed, total);
        free().find(|i| {
            let weight = u64::from(weights[*i]);
            let hit = point < weight;
            point = point.saturating_sub(weight);
            hit
        })
    }
}

/// The next number of a SplitMix64 sequence (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014):
/// passes the usual batteries, has no bad seeds, and is five operations.
pub(super) fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*seed)
}

/// A number in which every bit depends on every bit of `z`: the finisher of SplitMix64, one to one.
pub(super) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number below `bound` (at least 1), without bias: by multiplication, drawing again in the few cases that would
/// favour small numbers (Lemire: Fast Random Integer Generation in an Interval, 2019).
pub(super) fn below(seed: &mut u64, bound: u64) -> u64 {
    loop {
        let product = u128::from(next(seed)) * u128::from(bound);
        let low = product as u64;
        if low >= bound || low >= bound.wrapping_neg() % bound {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_is_even_and_stays_below() {
        let mut seed = 1;
        for bound in [1, 2, 3, 7, 10] {
            let mut counts = vec![0usize; bound as usize];
            for _ in 0..10_000 * bound {
                counts[below(&mut seed, bound) as usize] += 1;
            }
            assert!(counts.iter().all(|n| n.abs_diff(10_000) < 600), "{bound}: {counts:?}");
        }
        assert!((0..1000).all(|_| below(&mut seed, u64::MAX) < u64::MAX));
    }

    #[test]
    fn counting_out_has_the_same_shares() {
        // Index 0 has nearly all the weight and is barred: nearly every draw ends in counting out.
        let weights = [u32::MAX, 1, 3];
        let mut random = Random::new(&weights, 9);
        let mut counts = [0usize; 3];
        for _ in 0..40_000 {
            counts[random.draw(&weights, |i| i == 0).unwrap()] += 1;
        }
        assert!(counts[0] == 0 && counts[1].abs_diff(10_000) < 600, "{counts:?}");
        assert_eq!(random.draw(&weights, |_| true), None);
    }
}
