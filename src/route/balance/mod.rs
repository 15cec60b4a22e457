//! The choice of a backend: one algorithm, one file. State is per core and cluster.
//!
//! An algorithm sees only weights; 0 is no candidate. Who is a candidate is decided here, from the published states: the
//! up backends that are no backups, then, if all of those were tried or there are none, the up backups. Where a cluster
//! fails open, those that are down are candidates, too; what the operator has taken out of traffic never is.
//!
//! States change rarely, so each balancer keeps its own copy of its cluster's and prepares for them. The first pick of an
//! epoch compares the copy with the snapshot, and prepares again only if they differ.

mod hash;
mod least_conn;
mod random;
mod round_robin;

pub use hash::key as hash_key;

use super::BackendId;
use super::health::{Standing, State};
use super::table::{Balance, Cluster};
use crate::limits::TRIED_MAX;
use hash::{Bound, Rendezvous};
use least_conn::LeastConn;
use random::Random;
use round_robin::RoundRobin;
use std::sync::atomic::Ordering::Relaxed;

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

    /// Whether one more can be added without any being forgotten.
    pub fn has_room(&self) -> bool {
        usize::from(self.len) < TRIED_MAX
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

/// What an exchange asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Those that are not to be picked again.
    pub tried: &'a Tried,
    /// What stays with one backend where the cluster hashes; without one the pick is random.
    pub key: Option<u64>,
    /// Exchanges of this core that are with the cluster now, this one not counted.
    pub in_flight: u32,
    /// That of the snapshot which the states are of, at least 1.
    pub epoch: u64,
}

/// A backend for an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index into `cluster.backends`.
    pub index: usize,
    /// It is not up: the cluster fails open.
    pub fail_open: bool,
}

/// One core's balancing state for one cluster.
#[derive(Debug)]
pub struct Balancer {
    core: usize,
    seed: u64,
    /// What it was made for.
    balance: Balance,
    ids: Box<[BackendId]>,
    /// The states that it has prepared for.
    states: Box<[State]>,
    /// The latest epoch whose states are those; 0 is none.
    epoch: u64,
    /// The cluster fails open.
    open: bool,
    primaries: Tier,
    /// Only where there are any.
    backups: Option<Tier>,
}

/// Primaries or backups.
#[derive(Debug)]
struct Tier {
    /// By index of the backend; 0 is no candidate.
    weights: Box<[u32]>,
    algorithm: Algorithm,
}

#[derive(Debug)]
enum Algorithm {
    RoundRobin(RoundRobin),
    Random(Random),
    LeastConn(LeastConn),
    Hash {
        rendezvous: Rendezvous,
        percent: u32,
        /// For requests without key.
        spread: LeastConn,
    },
}

impl Tier {
    fn new(cluster: &Cluster, weights: Box<[u32]>, core: usize, seed: u64) -> Tier {
        let algorithm = match &cluster.policy.balance {
            Balance::RoundRobin => Algorithm::RoundRobin(RoundRobin::new(&weights, core)),
            Balance::Random => Algorithm::Random(Random::new(&weights, seed)),
            Balance::LeastConn => Algorithm::LeastConn(LeastConn::new(&weights, seed)),
            Balance::Hash(hash) => Algorithm::Hash {
                rendezvous: Rendezvous::new(&cluster.backends, &weights),
                percent: hash.bounded_load,
                spread: LeastConn::new(&weights, seed),
            },
        };
        Tier { weights, algorithm }
    }

    fn prepare(&mut self, weights: impl Iterator<Item = u32>) {
        self.weights.iter_mut().zip(weights).for_each(|(to, from)| *to = from);
        let weights = &self.weights;
        match &mut self.algorithm {
            Algorithm::RoundRobin(a) => a.prepare(weights),
            Algorithm::Random(a) => a.prepare(weights),
            Algorithm::LeastConn(a) => a.prepare(weights),
            Algorithm::Hash { rendezvous, spread, .. } => {
                rendezvous.prepare(weights);
                spread.prepare(weights);
            }
        }
    }

    fn pick(&mut self, cluster: &Cluster, core: usize, ask: Ask<'_>) -> Option<usize> {
        let Ask { tried, key, in_flight, .. } = ask;
        let weights = &self.weights;
        match (&mut self.algorithm, key) {
            (Algorithm::RoundRobin(a), _) => a.pick(tried),
            (Algorithm::Random(a), _) => a.pick(weights, tried),
            (Algorithm::LeastConn(a) | Algorithm::Hash { spread: a, .. }, None) | (Algorithm::LeastConn(a), _) => {
                a.pick(weights, tried, |i| load(cluster, i))
            }
            (Algorithm::Hash { rendezvous, percent, .. }, Some(key)) => {
                // What this core has counted is near enough: if each core keeps within the bound, all of them do.
                let cell = |i: usize| cluster.backends[i].cells.all().get(core);
                let load = |i: usize| cell(i).map_or(0, |cell| cell.in_flight.load(Relaxed));
                rendezvous.pick(key, tried, Bound { percent: *percent, in_flight }, load)
            }
        }
    }
}

impl Balancer {
    /// With all backends up. `core` staggers where round robin begins; `seed` feeds the random algorithms (another for
    /// each core, or all cores make the same choices).
    pub fn new(cluster: &Cluster, core: usize, mut seed: u64) -> Balancer {
        let states: Box<[State]> = cluster.backends.iter().map(|b| State::up(b.weight)).collect();
        let weights = |backups| {
            cluster
                .backends
                .iter()
                .zip(&states)
                .map(move |(b, s)| if b.backup == backups { s.weight } else { 0 })
                .collect()
        };
        let primaries = Tier::new(cluster, weights(false), core, random::next(&mut seed));
        let any = cluster.backends.iter().any(|b| b.backup);
        let backups = any.then(|| Tier::new(cluster, weights(true), core, random::next(&mut seed)));
        let ids = cluster.backends.iter().map(|b| b.id).collect();
        let balance = cluster.policy.balance.clone();
        Balancer { core, seed, balance, ids, states, epoch: 0, open: false, primaries, backups }
    }

    /// Goes on with the cluster of another table: to be called when the table has changed. Keeps its place if algorithm
    /// and backends are the same, else begins anew.
    pub fn refit(&mut self, cluster: &Cluster) {
        let same = self.balance == cluster.policy.balance
            && self.backups.is_some() == cluster.backends.iter().any(|b| b.backup)
            && self.ids.iter().eq(cluster.backends.iter().map(|b| &b.id));
        self.epoch = 0;
        if same {
            // Who is a backup, or when it fails open, may be another.
            self.prepare(cluster);
        } else {
            *self = Balancer::new(cluster, self.core, random::next(&mut self.seed));
        }
    }

    /// Picks a backend that was not tried; `None` if there is none (a caller that may go back to a tried one asks again
    /// with an empty `tried`). `states` is the whole snapshot's, of the table that `cluster` is of; if it is too short for
    /// it, nothing is up. Allocates nothing, unless the cluster has another size than at `new` or `refit`.
    pub fn pick(&mut self, cluster: &Cluster, states: &[State], ask: Ask<'_>) -> Option<Pick> {
        if cluster.backends.len() != self.states.len() {
            self.refit(cluster);
        }
        let end = cluster.first_state.checked_add(self.states.len())?;
        let states = states.get(cluster.first_state..end)?;
        if self.epoch != ask.epoch {
            self.epoch = ask.epoch;
            if self.states[..] != *states {
                self.states.copy_from_slice(states);
                self.prepare(cluster);
            }
        }
        let index = match self.primaries.pick(cluster, self.core, ask) {
            Some(index) => index,
            None => self.backups.as_mut()?.pick(cluster, self.core, ask)?,
        };
        Some(Pick { index, fail_open: self.open && !states[index].is_up() })
    }

    /// All candidates as of the latest pick, primaries first.
    pub fn candidates(&self) -> impl Iterator<Item = Pick> {
        let tiers = [Some(&self.primaries), self.backups.as_ref()].into_iter().flatten();
        let indices = tiers.flat_map(|tier| tier.weights.iter().enumerate().filter(|(_, w)| **w > 0).map(|(i, _)| i));
        indices.map(|index| Pick { index, fail_open: self.open && !self.states[index].is_up() })
    }

    /// Decides who is a candidate.
    fn prepare(&mut self, cluster: &Cluster) {
        let open = fails_open(cluster, &self.states);
        self.open = open;
        let takes = |state: &State| state.is_up() || open && state.standing == Standing::Down;
        let all = || cluster.backends.iter().zip(&self.states);
        let weights = |backups| all().map(move |(b, s)| if b.backup == backups && takes(s) { s.weight } else { 0 });
        self.primaries.prepare(weights(false));
        if let Some(tier) = &mut self.backups {
            tier.prepare(weights(true));
        }
    }
}

/// Whether so few are up that those that are down get requests, too: less than `Policy::fail_open` percent of the
/// primaries, by configured weight (the weight of one that is slowly started says nothing of what will be up). Those that
/// the operator has taken out do not count. While no primary is up, but a backup, the backups are enough.
pub fn fails_open(cluster: &Cluster, states: &[State]) -> bool {
    let percent = u64::from(cluster.policy.fail_open);
    if percent == 0 {
        return false;
    }
    let sum = |standing: Standing, backup: bool| -> u64 {
        let those = cluster.backends.iter().zip(states).filter(|(b, s)| b.backup == backup && s.standing == standing);
        those.map(|(b, _)| u64::from(b.weight)).sum()
    };
    match sum(Standing::Up, false) {
        0 => sum(Standing::Up, true) == 0,
        up => up * 100 < percent * (up + sum(Standing::Down, false)),
    }
}

/// Exchanges that are with this backend now, over all cores. Reads other cores' cells, writes none.
fn load(cluster: &Cluster, index: usize) -> u64 {
    let cells = cluster.backends[index].cells.all();
    cells.iter().map(|c| u64::from(c.in_flight.load(Relaxed))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::{Hash, HashBy, tests::cluster};
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU64;

    const ALL: [Balance; 4] = [Balance::RoundRobin, Balance::Random, Balance::LeastConn, BY_PATH];
    const BY_PATH: Balance = Balance::Hash(Hash { by: HashBy::Path, bounded_load: 125 });

    /// As if each pick had a new epoch.
    fn ask(tried: &Tried, key: Option<u64>) -> Ask<'_> {
        static EPOCH: AtomicU64 = AtomicU64::new(1);
        Ask { tried, key, in_flight: 0, epoch: EPOCH.fetch_add(1, Relaxed) }
    }

    fn pick(balancer: &mut Balancer, cluster: &Cluster, states: &[State], tried: &Tried) -> Option<usize> {
        balancer.pick(cluster, states, ask(tried, None)).map(|p| p.index)
    }

    fn counts(balancer: &mut Balancer, cluster: &Cluster, states: &[State], picks: usize) -> Vec<usize> {
        let mut counts = vec![0; cluster.backends.len()];
        for _ in 0..picks {
            counts[pick(balancer, cluster, states, &Tried::default()).unwrap()] += 1;
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
            let empty = cluster(0, balance.clone(), 5, &[]);
            let some = cluster(0, balance, 5, &[1, 1]);
            let mut balancer = Balancer::new(&empty, 0, 1);
            assert_eq!(pick(&mut balancer, &empty, &[State::up(1); 5], &Tried::default()), None);
            assert_eq!(pick(&mut balancer, &some, &[State::up(1); 6], &Tried::default()), None);
            assert!(pick(&mut balancer, &some, &[State::up(1); 7], &Tried::default()).is_some());
        }
    }

    #[test]
    fn refit_keeps_the_place_of_an_unchanged_cluster() {
        let three = cluster(0, Balance::RoundRobin, 0, &[1, 1, 1]);
        let mut balancer = Balancer::new(&three, 0, 1);
        let first = pick(&mut balancer, &three, &[State::up(1); 3], &Tried::default()).unwrap();
        let mut moved = cluster(0, Balance::RoundRobin, 0, &[1, 1, 1]);
        moved.first_state = 2;
        balancer.refit(&moved);
        let second = pick(&mut balancer, &moved, &[State::up(1); 5], &Tried::default()).unwrap();
        assert_eq!(second, (first + 1) % 3);
        let heavier = cluster(0, Balance::RoundRobin, 0, &[1, 1, 4]);
        balancer.refit(&heavier);
        let got = counts(&mut balancer, &heavier, &[1, 1, 4].map(State::up), 60);
        assert!(got.iter().zip([10, 10, 40]).all(|(got, want)| got.abs_diff(want) <= 1), "{got:?}");
    }

    #[test]
    fn refit_notices_other_backends_and_backups() {
        let two = cluster(0, Balance::RoundRobin, 0, &[1, 1]);
        let mut balancer = Balancer::new(&two, 0, 1);
        let mut backup = cluster(0, Balance::RoundRobin, 0, &[1, 1]);
        backup.backends[0].backup = true;
        balancer.refit(&backup);
        assert_eq!(counts(&mut balancer, &backup, &[State::up(1); 2], 10), [0, 10]);
        backup.backends[0].backup = false;
        backup.backends[1].backup = true;
        balancer.refit(&backup);
        assert_eq!(counts(&mut balancer, &backup, &[State::up(1); 2], 10), [10, 0]);
        let others = cluster(0, Balance::RoundRobin, 7, &[1, 1]);
        balancer.refit(&others);
        assert_eq!(counts(&mut balancer, &others, &[State::up(1); 9], 10), [5, 5]);
    }

    #[test]
    fn states_count_from_their_epoch_on() {
        let two = cluster(0, Balance::RoundRobin, 0, &[1, 1]);
        let mut balancer = Balancer::new(&two, 0, 1);
        let none = Tried::default();
        let mut states = [State::up(1), State::new(Standing::Down, 1)];
        for epoch in 1..10 {
            states.reverse();
            for _ in 0..3 {
                let pick = balancer.pick(&two, &states, Ask { epoch, ..ask(&none, None) }).unwrap();
                assert!(states[pick.index].is_up());
            }
        }
        // A refit may be to another table, and looks again.
        balancer.refit(&two);
        states.reverse();
        let pick = balancer.pick(&two, &states, Ask { epoch: 9, ..ask(&none, None) }).unwrap();
        assert!(states[pick.index].is_up());
    }

    #[test]
    fn backups_only_when_no_primary_is_left() {
        for balance in ALL {
            let mut cluster = cluster(0, balance, 0, &[1, 1, 1, 1]);
            cluster.backends[1].backup = true;
            cluster.backends[3].backup = true;
            let mut balancer = Balancer::new(&cluster, 0, 1);
            let mut states = [State::up(1); 4];
            for keyed in [None, Some(5)] {
                let mut order = Vec::new();
                let mut tried = Tried::default();
                loop {
                    let asked = ask(&tried, keyed);
                    let Some(pick) = balancer.pick(&cluster, &states, asked) else { break };
                    assert!(!pick.fail_open);
                    order.push(pick.index % 2);
                    tried.add(pick.index);
                }
                assert_eq!(order, [0, 0, 1, 1]);
            }
            states[0].standing = Standing::Drain;
            assert_eq!(counts(&mut balancer, &cluster, &states, 10), [0, 0, 10, 0]);
            states[2].standing = Standing::Down;
            let got = counts(&mut balancer, &cluster, &states, 100);
            assert!(got[1] > 0 && got[3] > 0 && got[1] + got[3] == 100, "{got:?}");
        }
    }

    /// Who can be picked, as letters; in upper case who is so by failing open alone.
    fn candidates(primaries: &str, backups: &str, fail_open: u32) -> String {
        let all: Vec<char> = primaries.chars().chain(backups.chars()).collect();
        let mut found: Vec<String> = Vec::new();
        for balance in ALL {
            let mut cluster = cluster(0, balance, 0, &vec![1; all.len()]);
            cluster.policy.fail_open = fail_open;
            cluster.backends[primaries.len()..].iter_mut().for_each(|b| b.backup = true);
            let standing = |c: &char| match c {
                'u' => Standing::Up,
                'd' => Standing::Down,
                'n' => Standing::Drain,
                _ => Standing::Maint,
            };
            let states: Vec<State> = all.iter().map(|c| State::new(standing(c), 1)).collect();
            let mut balancer = Balancer::new(&cluster, 0, 1);
            let mut picked = vec!['-'; all.len()];
            for key in 0..200 {
                let key = (key % 2 == 0).then(|| hash_key(&[key]));
                let none = Tried::default();
                let asked = ask(&none, key);
                if let Some(pick) = balancer.pick(&cluster, &states, asked) {
                    assert_eq!(pick.fail_open, all[pick.index] != 'u');
                    let letter = all[pick.index];
                    picked[pick.index] = if pick.fail_open { letter.to_ascii_uppercase() } else { letter };
                }
            }
            found.push(picked.into_iter().collect());
        }
        assert!(found.windows(2).all(|w| w[0] == w[1]), "{found:?}");
        found.remove(0)
    }

    #[test]
    fn fails_open_below_the_share_and_only_to_those_that_are_down() {
        for (primaries, backups, percent, want) in [
            ("uudd", "", 0, "uu--"),
            ("uudd", "", 50, "uu--"),
            ("uudd", "", 51, "uuDD"),
            ("uuud", "", 100, "uuuD"),
            ("uuuu", "", 100, "uuuu"),
            // Those that the operator has taken out do not count, and are never picked.
            ("udnm", "", 50, "u---"),
            ("udnm", "", 51, "uD--"),
            ("unmm", "", 100, "u---"),
            ("nm", "", 100, "--"),
            ("dnm", "", 1, "D--"),
            ("dnm", "", 0, "---"),
            // Backups take over from primaries that are all down, and do not count among them.
            ("dd", "u", 100, "--u"),
            ("dd", "d", 1, "DD-"),
            ("nm", "d", 1, "--D"),
            ("ud", "u", 51, "uD-"),
            ("ud", "d", 50, "u--"),
        ] {
            assert_eq!(candidates(primaries, backups, percent), want, "{primaries} {backups} {percent}");
        }
    }

    #[test]
    fn one_that_is_slowly_started_counts_in_full() {
        let mut cluster = cluster(0, Balance::RoundRobin, 0, &[1, 1]);
        cluster.policy.fail_open = 50;
        let states = [State { standing: Standing::Up, weight: 1 }, State::new(Standing::Down, 1)];
        let mut balancer = Balancer::new(&cluster, 0, 1);
        assert_eq!(counts(&mut balancer, &cluster, &states, 10), [10, 0]);
    }

    #[test]
    fn weights_are_those_of_the_states() {
        for balance in ALL {
            // As configured they are equal.
            let cluster = cluster(0, balance, 0, &[1, 1]);
            let mut balancer = Balancer::new(&cluster, 0, 3);
            for (weight, want) in [(256, 5_000), (128, 3_333), (1, 39), (2560, 9_090)] {
                let states = [State { standing: Standing::Up, weight }, State::up(1)];
                let mut loads = [0u32; 2];
                let mut first = 0;
                for key in 0..10_000u32 {
                    let none = Tried::default();
                    let asked = ask(&none, Some(hash_key(&key.to_le_bytes())));
                    let index = balancer.pick(&cluster, &states, asked).unwrap().index;
                    loads[index] += 1;
                    cluster.backends[index].cells.core(0).in_flight.store(loads[index], Relaxed);
                    first += usize::from(index == 0);
                }
                (0..2).for_each(|i| cluster.backends[i].cells.core(0).in_flight.store(0, Relaxed));
                assert!(first.abs_diff(want) < 160, "{:?} {weight}: {first}", cluster.policy.balance);
            }
        }
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
            counts[pick(&mut balancer, &cluster, &[1000, 1, 3].map(State::up), &tried).unwrap()] += 1;
        }
        assert!(counts[0] == 0 && counts[1].abs_diff(10_000) < 600, "{counts:?}");
    }

    #[test]
    fn least_conn_takes_the_less_loaded_for_its_weight() {
        let cluster = cluster(0, Balance::LeastConn, 0, &[1, 3]);
        let mut balancer = Balancer::new(&cluster, 0, 7);
        let mut in_flight = [0u32; 2];
        for _ in 0..400 {
            let i = pick(&mut balancer, &cluster, &[1, 3].map(State::up), &Tried::default()).unwrap();
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
            which in 0usize..4,
            backends in prop::collection::vec((1u32..6, 0u8..4, any::<bool>()), 1..40),
            first in 0usize..4,
            seed in any::<u64>(),
            core in 0usize..9,
            key in any::<Option<u64>>(),
        ) {
            let weights: Vec<u32> = backends.iter().map(|b| b.0).collect();
            let cluster = cluster(1, ALL[which].clone(), first, &weights);
            let mut balancer = Balancer::new(&cluster, core, seed);
            let mut states = vec![State::new(Standing::Down, 1); first];
            let standings = [Standing::Up, Standing::Down, Standing::Drain, Standing::Maint];
            states.extend(backends.iter().map(|b| State::new(standings[b.1 as usize], b.0)));
            let mut tried = Tried::default();
            backends.iter().enumerate().filter(|(_, b)| b.2).take(TRIED_MAX).for_each(|(i, _)| tried.add(i));
            // Until nothing is left, each pick tried and so never made again.
            let mut left = (0..backends.len()).filter(|i| states[first + i].is_up() && !tried.has(*i)).count();
            while left > 0 && tried.len < TRIED_MAX as u8 {
                let i = balancer.pick(&cluster, &states, Ask { in_flight: 3, ..ask(&tried, key) }).unwrap().index;
                prop_assert!(states[first + i].is_up() && !tried.has(i));
                tried.add(i);
                left -= 1;
            }
            prop_assert_eq!(balancer.pick(&cluster, &states, Ask { in_flight: 3, ..ask(&tried, key) }).is_some(), left > 0);
        }
    }
}
