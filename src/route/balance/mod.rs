//! The choice of a backend: one algorithm, one file. State is per core and cluster.
//!
//! An algorithm sees only backends that are up and not tried. What is up changes rarely, so each balancer keeps its own
//! copy of its cluster's states and prepares for them; a pick compares the copy with the snapshot (a few vector
//! instructions per hundred backends) and prepares again only if they differ.

mod least_conn;
mod random;
mod round_robin;

use super::health::State;
use super::table::{Balance, Cluster};
use crate::limits::TRIED_MAX;
use least_conn::LeastConn;
use random::Random;
use round_robin::RoundRobin;

/// The backends an exchange has tried. Holds up to `limits::TRIED_MAX`; of more, the oldest are forgotten (and may be
/// tried again), so that an exchange with more retries than that still ends by its own count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    indices: [u32; TRIED_MAX],
    len: u8,
    oldest: u8,
}

impl Tried {
    /// Adds `cluster.backends[index]`.
    pub fn add(&mut self, index: usize) {
        if self.has(index) {
            return;
        }
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if (self.len as usize) < TRIED_MAX {
            self.indices[self.len as usize] = index;
            self.len += 1;
        } else {
            self.indices[self.oldest as usize] = index;
            self.oldest = (self.oldest + 1) % TRIED_MAX as u8;
        }
    }

    /// Whether it was tried.
    #[inline]
    pub fn has(&self, index: usize) -> bool {
        self.indices().any(|i| i == index)
    }

    /// Whether nothing was tried: the case of nearly all picks.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn indices(&self) -> impl Iterator<Item = usize> {
        self.indices[..self.len as usize].iter().map(|i| *i as usize)
    }
}

/// One core's balancing state for one cluster.
#[derive(Debug)]
pub struct Balancer {
    core: usize,
    seed: u64,
    /// What it was made for: the algorithm, and the weights by index.
    balance: Balance,
    weights: Box<[u32]>,
    /// The states that the algorithm has prepared for.
    states: Box<[State]>,
    algorithm: Algorithm,
}

#[derive(Debug)]
enum Algorithm {
    RoundRobin(RoundRobin),
    Random(Random),
    LeastConn(LeastConn),
}

impl Algorithm {
    fn new(balance: Balance, weights: &[u32], core: usize, seed: u64) -> Algorithm {
        match balance {
            Balance::RoundRobin => Algorithm::RoundRobin(RoundRobin::new(weights, core)),
            Balance::Random => Algorithm::Random(Random::new(weights, seed)),
            Balance::LeastConn => Algorithm::LeastConn(LeastConn::new(weights, seed)),
        }
    }
}

impl Balancer {
    /// `core` staggers where round robin begins; `seed` feeds the random algorithms (another for each core, or all
    /// cores make the same choices).
    pub fn new(cluster: &Cluster, core: usize, seed: u64) -> Balancer {
        let states: Box<[State]> = cluster.backends.iter().map(|b| State::up(b.weight)).collect();
        let weights: Box<[u32]> = states.iter().map(|s| s.weight).collect();
        let algorithm = Algorithm::new(cluster.policy.balance, &weights, core, seed);
        Balancer { core, seed, balance: cluster.policy.balance, weights, states, algorithm }
    }

    /// Goes on with the cluster of another table: to be called when the table has changed. Keeps its place if algorithm
    /// and size are the same, else begins anew.
    pub fn refit(&mut self, cluster: &Cluster) {
        if self.balance != cluster.policy.balance || self.weights.len() != cluster.backends.len() {
            *self = Balancer::new(cluster, self.core, random::next(&mut self.seed));
        }
    }

    /// Picks an index into `cluster.backends`: up and not tried; `None` if there is none (a caller that may go back to
    /// a tried one asks again with an empty `tried`). `states` is the whole snapshot's, of the table that `cluster` is
    /// of; if it is too short for it, nothing is up. Allocates nothing, unless the cluster has another size than at
    /// `new` or `refit`, or weights have changed.
    pub fn pick(&mut self, cluster: &Cluster, states: &[State], tried: &Tried) -> Option<usize> {
        if cluster.backends.len() != self.weights.len() {
            self.refit(cluster);
        }
        let end = cluster.first_state.checked_add(self.weights.len())?;
        let states = states.get(cluster.first_state..end)?;
        if differ(&self.states, states) {
            self.states.copy_from_slice(states);
            if !self.weights.iter().copied().eq(states.iter().map(|s| s.weight)) {
                self.weights = states.iter().map(|s| s.weight).collect();
                let seed = random::next(&mut self.seed);
                self.algorithm = Algorithm::new(self.balance, &self.weights, self.core, seed);
            }
            match &mut self.algorithm {
                Algorithm::RoundRobin(a) => a.prepare(states),
                Algorithm::Random(a) => a.prepare(states, &self.weights),
                Algorithm::LeastConn(a) => a.prepare(states, &self.weights),
            }
        }
        match &mut self.algorithm {
            Algorithm::RoundRobin(a) => a.pick(states, tried),
            Algorithm::Random(a) => a.pick(&self.weights, tried),
            Algorithm::LeastConn(a) => a.pick(&self.weights, tried, |i| load(cluster, i)),
        }
    }
}

/// Exchanges that are with this backend now, over all cores. Reads other cores' cells, writes none.
fn load(cluster: &Cluster, index: usize) -> u64 {
    let cells = cluster.backends[index].cells.all();
    cells.iter().map(|c| u64::from(c.in_flight.load(std::sync::atomic::Ordering::Relaxed))).sum()
}

/// Without an early exit, so that it becomes vector code: nearly always all of it has to be compared anyway.
fn differ(a: &[State], b: &[State]) -> bool {
    a.iter().zip(b).fold(0, |bits, (a, b)| bits | (a.standing as u32 ^ b.standing as u32) | (a.weight ^ b.weight)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::health::Standing;
    use crate::route::table::tests::cluster;
    use proptest::prelude::*;
    use std::sync::atomic::Ordering::Relaxed;

    const ALL: [Balance; 3] = [Balance::RoundRobin, Balance::Random, Balance::LeastConn];

    fn counts(balancer: &mut Balancer, cluster: &Cluster, states: &[State], picks: usize) -> Vec<usize> {
        let mut counts = vec![0; cluster.backends.len()];
        for _ in 0..picks {
            counts[balancer.pick(cluster, states, &Tried::default()).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn tried_forgets_the_oldest() {
        let mut tried = Tried::default();
        assert!(tried.is_empty() && !tried.has(0));
        for i in 0..TRIED_MAX {
            tried.add(i);
            tried.add(i);
        }
        assert!((0..TRIED_MAX).all(|i| tried.has(i)));
        tried.add(100);
        tried.add(101);
        assert!(tried.has(100) && tried.has(101) && !tried.has(0) && !tried.has(1) && tried.has(2));
    }

    #[test]
    fn an_empty_cluster_and_foreign_states_pick_nothing() {
        for balance in ALL {
            let empty = cluster(0, balance, 5, &[]);
            let some = cluster(0, balance, 5, &[1, 1]);
            let mut balancer = Balancer::new(&empty, 0, 1);
            assert_eq!(balancer.pick(&empty, &[State::up(1); 5], &Tried::default()), None);
            assert_eq!(balancer.pick(&some, &[State::up(1); 6], &Tried::default()), None);
            assert!(balancer.pick(&some, &[State::up(1); 7], &Tried::default()).is_some());
        }
    }

    #[test]
    fn refit_keeps_the_place_of_an_unchanged_cluster() {
        let three = cluster(0, Balance::RoundRobin, 0, &[1, 1, 1]);
        let moved = cluster(0, Balance::RoundRobin, 2, &[1, 1, 1]);
        let mut balancer = Balancer::new(&three, 0, 1);
        let first = balancer.pick(&three, &[State::up(1); 3], &Tried::default()).unwrap();
        balancer.refit(&moved);
        let second = balancer.pick(&moved, &[State::up(1); 5], &Tried::default()).unwrap();
        assert_eq!(second, (first + 1) % 3);
        let heavier = cluster(0, Balance::RoundRobin, 0, &[1, 1, 4]);
        balancer.refit(&heavier);
        assert_eq!(counts(&mut balancer, &heavier, &[1, 1, 4].map(State::up), 6), [1, 1, 4]);
    }

    #[test]
    fn random_follows_the_weights_within_tolerance() {
        let cluster = cluster(0, Balance::Random, 0, &[1, 2, 3, 4, 10]);
        let mut states = [1, 2, 3, 4, 10].map(State::up);
        let mut balancer = Balancer::new(&cluster, 0, 42);
        let got = counts(&mut balancer, &cluster, &states, 100_000);
        for (i, weight) in [1.0, 2.0, 3.0, 4.0, 10.0].iter().enumerate() {
            let want = 100_000.0 * weight / 20.0;
            assert!((got[i] as f64 - want).abs() < 6.0 * f64::sqrt(want), "{i}: {got:?}");
        }
        states[4].standing = Standing::Down;
        let got = counts(&mut balancer, &cluster, &states, 100_000);
        assert!(got[4] == 0 && got[0].abs_diff(10_000) < 600 && got[3].abs_diff(40_000) < 1_200, "{got:?}");
    }

    #[test]
    fn random_without_the_tried_keeps_the_shares_of_the_others() {
        let cluster = cluster(0, Balance::Random, 0, &[1000, 1, 3]);
        let mut balancer = Balancer::new(&cluster, 0, 7);
        let mut tried = Tried::default();
        tried.add(0);
        let mut counts = [0usize; 3];
        for _ in 0..40_000 {
            counts[balancer.pick(&cluster, &[1000, 1, 3].map(State::up), &tried).unwrap()] += 1;
        }
        assert!(counts[0] == 0 && counts[1].abs_diff(10_000) < 600, "{counts:?}");
    }

    #[test]
    fn least_conn_takes_the_less_loaded_for_its_weight() {
        let cluster = cluster(0, Balance::LeastConn, 0, &[1, 3]);
        let mut balancer = Balancer::new(&cluster, 0, 7);
        let mut in_flight = [0u32; 2];
        for _ in 0..400 {
            let i = balancer.pick(&cluster, &[1, 3].map(State::up), &Tried::default()).unwrap();
            in_flight[i] += 1;
            cluster.backends[i].cells.core(i % 2).in_flight.store(in_flight[i], Relaxed);
        }
        assert!(in_flight[0].abs_diff(100) <= 2, "{in_flight:?}");
    }

    #[test]
    fn least_conn_avoids_a_busy_one_among_many() {
        let cluster = cluster(0, Balance::LeastConn, 0, &[1; 50]);
        cluster.backends[17].cells.core(1).in_flight.store(1000, Relaxed);
        let mut balancer = Balancer::new(&cluster, 0, 7);
        let counts = counts(&mut balancer, &cluster, &[State::up(1); 50], 10_000);
        assert_eq!(counts[17], 0);
        assert!(counts.iter().enumerate().all(|(i, n)| i == 17 || n.abs_diff(204) < 100), "{counts:?}");
    }

    proptest! {
        #[test]
        fn picks_an_up_and_untried_one_whenever_there_is_one(
            which in 0usize..3,
            backends in prop::collection::vec((1u32..6, 0u8..4, any::<bool>()), 1..40),
            first in 0usize..4,
            seed in any::<u64>(),
            core in 0usize..9,
        ) {
            let weights: Vec<u32> = backends.iter().map(|b| b.0).collect();
            let cluster = cluster(1, ALL[which], first, &weights);
            let mut balancer = Balancer::new(&cluster, core, seed);
            let mut states = vec![State::new(Standing::Down, 1); first];
            let standings = [Standing::Up, Standing::Down, Standing::Drain, Standing::Maint];
            states.extend(backends.iter().map(|b| State::new(standings[b.1 as usize], b.0)));
            let mut tried = Tried::default();
            backends.iter().enumerate().filter(|(_, b)| b.2).take(TRIED_MAX).for_each(|(i, _)| tried.add(i));
            // Until nothing is left, each pick tried and so never made again.
            let mut left = (0..backends.len()).filter(|i| states[first + i].is_up() && !tried.has(*i)).count();
            while left > 0 && tried.len < TRIED_MAX as u8 {
                let i = balancer.pick(&cluster, &states, &tried).unwrap();
                prop_assert!(states[first + i].is_up() && !tried.has(i));
                tried.add(i);
                left -= 1;
            }
            prop_assert_eq!(balancer.pick(&cluster, &states, &tried).is_some(), left > 0);
        }
    }
}
