//! The same key to the same backend: weighted rendezvous hashing (Thaler, Ravishankar 1998; weights: Schindelhauer,
//! Schomaker 2005) with bounded load (Mirrokni, Thorup, Zadimoghaddam 2016).
//!
//! Each backend gets a number from the hash of its name and address and the key; the best number wins. So all cores, and
//! all Ringways with the same backends, agree without a word; a backend that goes takes only its own keys along, to the
//! second best of each; one that comes, or gains weight, takes keys only for itself. A retry goes to the next best.
//!
//! A pick looks at every candidate, a few nanoseconds each: 0.1 us with 3 backends, 0.2 with 20, 1 with 200, where a whole
//! request costs tens. A table (Maglev) would be one look of 20 ns, but 256 KiB per cluster and core, made anew on each
//! change of a state: 2 to 5 ms in which the core serves nobody, each second while a backend is slowly started, against
//! 0.2 to 5 us here; and with some keys moved that need not. `benches/balance.rs` has the figures.

use super::Tried;
use super::random::mix;
use crate::limits::HASH_LOAD_FREE;
use crate::route::table::Backend;

/// The key that stands for these bytes, for [`super::Ask::key`]. Stable: with another one after an upgrade, all keys would
/// move to other backends.
pub fn key(bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    // The length tells those apart that differ only in the zeros that fill up the last word.
    bytes.chunks(8).fold(mix(bytes.len() as u64 ^ 0x5269_6e67_7761_7921), |hash, chunk| mix(hash ^ word(chunk)))
}

/// The candidates of one cluster.
#[derive(Debug)]
pub(super) struct Rendezvous {
    /// By index of the backend.
    seeds: Box<[u64]>,
    candidates: Vec<Candidate>,
    weight_sum: u64,
    equal: bool,
}

/// What a pick looks at.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    seed: u64,
    index: u32,
    weight: u32,
}

/// How much a backend may have of what the whole cluster has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Of its share by weight; 0 is no bound.
    pub percent: u32,
    /// Exchanges with the cluster now, this one not counted.
    pub in_flight: u32,
}

impl Bound {
    /// Whether a backend that has `load` exchanges may have one more: then it is at most its share of all, this one
    /// counted, times the factor, rounded up.
    fn admits(self, load: u32, weight: u32, weight_sum: u64) -> bool {
        let most = u128::from(self.percent) * (u128::from(self.in_flight) + 1) * u128::from(weight);
        self.percent == 0 || load < HASH_LOAD_FREE || u128::from(load) * u128::from(weight_sum) * 100 < most
    }
}

impl Rendezvous {
    /// Weights by index; 0 is no candidate.
    pub(super) fn new(backends: &[Backend], weights: &[u32]) -> Rendezvous {
        let seed = |b: &Backend| mix(key(b.name.as_bytes()) ^ key(b.endpoint.to_string().as_bytes()).rotate_left(32));
        let mut rendezvous = Rendezvous {
            seeds: backends.iter().map(seed).collect(),
            candidates: Vec::with_capacity(backends.len()),
            weight_sum: 0,
            equal: true,
        };
        rendezvous.prepare(weights);
        rendezvous
    }

    /// For other weights of the same backends. Allocates nothing.
    pub(super) fn prepare(&mut self, weights: &[u32]) {
        self.candidates.clear();
        let all = self.seeds.iter().zip(weights).enumerate().filter(|(_, (_, weight))| **weight > 0);
        self.candidates.extend(all.map(|(i, (seed, weight))| Candidate {
            seed: *seed,
            index: i as u32,
            weight: *weight,
        }));
        self.weight_sum = self.candidates.iter().map(|c| u64::from(c.weight)).sum();
        self.equal = self.candidates.windows(2).all(|w| w[0].weight == w[1].weight);
    }

    /// The best for this key that was not tried and that `bound` admits; if it admits none of them, the best. `load`
    /// tells how many exchanges are with a backend now.
    pub(super) fn pick(&self, key: u64, tried: &Tried, bound: Bound, load: impl Fn(usize) -> u32) -> Option<usize> {
        let admits = |c: &Candidate| bound.admits(load(c.index as usize), c.weight, self.weight_sum);
        let free = |c: &Candidate| !tried.has(c.index as usize);
        let best = self.best(key, |c| free(c) && admits(c)).or_else(|| self.best(key, free))?;
        Some(best.index as usize)
    }

    /// `takes` is asked only of those that would be the best so far: of about ln(n) of n.
    fn best(&self, key: u64, takes: impl Fn(&Candidate) -> bool) -> Option<&Candidate> {
        let mut best = None;
        if self.equal {
            let mut most = 0;
            for candidate in &self.candidates {
                let hash = mix(key ^ candidate.seed);
                if hash >= most && takes(candidate) {
                    (most, best) = (hash, Some(candidate));
                }
            }
            return best;
        }
        let mut least = f64::INFINITY;
        for candidate in &self.candidates {
            // Evenly spread over (0, 1]; -ln of that, divided by the weight, is smallest with a chance of the weight's share.
            let part = ((mix(key ^ candidate.seed) >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64);
            let weight = f64::from(candidate.weight);
            // -ln(x) is at least 1 - x, which spares most of the logarithms.
            if 1.0 - part > least * weight {
                continue;
            }
            let cost = -part.ln() / weight;
            if cost < least && takes(candidate) {
                (least, best) = (cost, Some(candidate));
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::Balance;
    use crate::route::table::tests::cluster;
    use std::collections::BTreeMap;

    const KEYS: u64 = 100_000;
    const FREE: Bound = Bound { percent: 0, in_flight: 0 };

    fn keys() -> impl Iterator<Item = u64> {
        (0..KEYS).map(|i| key(format!("session-{i}").as_bytes()))
    }

    fn rendezvous(weights: &[u32]) -> Rendezvous {
        Rendezvous::new(&cluster(0, Balance::RoundRobin, 0, weights).backends, weights)
    }

    fn places(rendezvous: &Rendezvous) -> Vec<usize> {
        keys().map(|k| rendezvous.pick(k, &Tried::default(), FREE, |_| 0).unwrap()).collect()
    }

    fn shares(places: &[usize], n: usize) -> Vec<f64> {
        (0..n).map(|i| places.iter().filter(|p| **p == i).count() as f64 / places.len() as f64).collect()
    }

    #[test]
    fn keys_are_stable_and_differ() {
        assert_eq!(key(b""), 0xd08a_3d40_4e9c_7d79, "{:x}", key(b""));
        assert_eq!(key(b"203.0.113.7"), 0x2381_0c20_ed45_6792, "{:x}", key(b"203.0.113.7"));
        let all: std::collections::BTreeSet<u64> =
            (0..300).flat_map(|n| [vec![0; n], vec![b'a'; n]]).map(|b| key(&b)).collect();
        assert_eq!(all.len(), 599);
    }

    #[test]
    fn shares_follow_the_weights() {
        for weights in
            [vec![256; 3], vec![256; 20], vec![1, 2, 3, 4], vec![256, 512, 256, 2560], vec![65_535 << 8, 1 << 24]]
        {
            let total: u32 = weights.iter().sum();
            let got = shares(&places(&rendezvous(&weights)), weights.len());
            for (share, weight) in got.iter().zip(&weights) {
                let want = f64::from(*weight) / f64::from(total);
                assert!((share - want).abs() < 0.02 * want.max(0.1), "{weights:?}: {got:?}");
            }
        }
    }

    #[test]
    fn one_that_goes_takes_only_its_own_keys_along() {
        for weights in [vec![256; 5], vec![256, 512, 300, 256, 1000]] {
            let mut some = rendezvous(&weights);
            let before = places(&some);
            let mut without = weights.clone();
            without[2] = 0;
            some.prepare(&without);
            let after = places(&some);
            let mut heirs: BTreeMap<usize, usize> = BTreeMap::new();
            for (was, is) in before.iter().zip(&after) {
                if *was == 2 {
                    *heirs.entry(*is).or_default() += 1;
                } else {
                    assert_eq!(was, is);
                }
            }
            // All others inherit, each by its weight.
            let total: u32 = without.iter().sum();
            let moved: usize = heirs.values().sum();
            for (heir, keys) in heirs {
                let want = moved as f64 * f64::from(without[heir]) / f64::from(total);
                assert!((keys as f64 - want).abs() < 6.0 * want.sqrt(), "{heir}: {keys}, not {want}");
            }
            some.prepare(&weights);
            assert_eq!(places(&some), before);
        }
    }

    #[test]
    fn one_that_comes_or_gains_weight_takes_keys_only_for_itself() {
        let mut some = rendezvous(&[256; 10]);
        let mut weights = [256; 10];
        weights[7] = 0;
        some.prepare(&weights);
        let mut before = places(&some);
        for ramp in [1, 30, 128, 256, 700] {
            weights[7] = ramp;
            some.prepare(&weights);
            let after = places(&some);
            assert!(before.iter().zip(&after).all(|(was, is)| was == is || *is == 7));
            let want = f64::from(ramp) / f64::from(9 * 256 + ramp);
            assert!((shares(&after, 10)[7] - want).abs() < 0.003, "{ramp}");
            before = after;
        }
    }

    #[test]
    fn a_place_depends_on_name_and_address_alone() {
        let three = cluster(0, Balance::RoundRobin, 0, &[1, 1, 1]);
        let mut turned = cluster(0, Balance::RoundRobin, 0, &[1, 1, 1]);
        turned.backends.rotate_left(1);
        let (a, b) = (Rendezvous::new(&three.backends, &[1; 3]), Rendezvous::new(&turned.backends, &[1; 3]));
        assert!(places(&a).iter().zip(places(&b)).all(|(a, b)| *a == (b + 1) % 3));
    }

    #[test]
    fn a_retry_goes_to_the_next_best() {
        for weights in [vec![256; 6], vec![256, 512, 300, 256, 1000, 1]] {
            let some = rendezvous(&weights);
            for key in keys().take(200) {
                let mut tried = Tried::default();
                let mut without = weights.clone();
                while let Some(i) = some.pick(key, &tried, FREE, |_| 0) {
                    let mut others = rendezvous(&weights);
                    others.prepare(&without);
                    assert_eq!(others.pick(key, &Tried::default(), FREE, |_| 0), Some(i));
                    tried.add(i);
                    without[i] = 0;
                }
                assert!((0..6).all(|i| tried.has(i)));
            }
        }
    }

    #[test]
    fn load_is_bounded_even_for_a_single_key() {
        for (weights, percent) in [(vec![256; 4], 125), (vec![256, 512, 256], 150), (vec![256; 3], 100)] {
            let some = rendezvous(&weights);
            let total: u32 = weights.iter().sum();
            let mut loads = vec![0u32; weights.len()];
            for in_flight in 0..1000 {
                let i = some.pick(77, &Tried::default(), Bound { percent, in_flight }, |i| loads[i]).unwrap();
                loads[i] += 1;
                let share = f64::from(in_flight + 1) * f64::from(weights[i]) / f64::from(total);
                let most = (share * f64::from(percent) / 100.0).ceil().max(f64::from(HASH_LOAD_FREE));
                assert!(f64::from(loads[i]) <= most, "{weights:?} {loads:?}");
            }
            let best = some.pick(77, &Tried::default(), FREE, |_| 0).unwrap();
            assert!(loads.iter().enumerate().all(|(i, n)| i == best || n / weights[i] <= loads[best] / weights[best]));
        }
    }

    #[test]
    fn with_all_over_their_bound_the_best_is_taken() {
        let some = rendezvous(&[256; 3]);
        let bound = Bound { percent: 125, in_flight: 0 };
        let best = some.pick(5, &Tried::default(), FREE, |_| 0);
        assert_eq!(some.pick(5, &Tried::default(), bound, |_| 1000), best);
        assert_eq!(rendezvous(&[]).pick(5, &Tried::default(), bound, |_| 0), None);
    }
}
