//! Smooth weighted round robin, with weights that may change at any time.
//!
//! Backends of equal weight form a class. Among classes runs the smooth algorithm that nginx made known: each pick adds to
//! every class its weight (that of one member times the members), takes the class with most credit, and takes the sum of
//! all weights off it. Within a class it goes round. So a pick costs the number of different weights, not of backends: one
//! step for a thousand equal ones. Over a cycle (as many picks as the sum of weights) each backend is picked exactly as
//! often as its weight says, and picks of one backend are spread over the cycle.
//!
//! When weights change (a backend goes down, comes back, or is slowly started), classes are formed anew, and what each
//! backend is owed goes with it, as a part of a pick, so that it means the same under other weights: its part of its class's
//! credit, more the sooner its turn would have come, and what a place in the round could not express before. Within a class
//! the one goes first that is owed most. A backend that comes back is owed half a pick at most, another part of one on each
//! core: it gets its share, no burst, and the cores do not meet there.

use super::Tried;

/// Steps of advance that stagger the classes at the begin, over all classes: bounds the work of making one.
const STAGGER_STEPS_MAX: usize = 4096;

/// The golden ratio as a part of 2^64: its multiples are spread evenly, however many there are.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One core's place in the rounds.
#[derive(Debug)]
pub(super) struct RoundRobin {
    /// Heavy first.
    classes: Vec<Class>,
    /// Indices of the backends, class by class; those without weight come last, in no class.
    members: Box<[u32]>,
    /// By index of the backend.
    known: Box<[Known]>,
    /// Where in a round this core begins, and where it puts those who come: a part of 2^64.
    part: u64,
}

/// What is known of one backend.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Its class, or `NO_CLASS`.
    class: u32,
    /// What it is owed beyond what its class's credit and its place say, in picks; while classes are formed anew, all that
    /// it is owed. Over all backends the sum is 0.
    owed: f64,
}

const NO_CLASS: u32 = u32::MAX;

#[derive(Debug)]
struct Class {
    weight: u32,
    /// Its part of `members`.
    start: u32,
    end: u32,
    /// Where the search for the next member begins.
    next: u32,
    /// In units of weight; over all classes the sum is 0.
    credit: i64,
}

impl Class {
    fn len(&self) -> u32 {
        self.end - self.start
    }

    /// What its credit and the place of the member at `at` say that this one is owed, in picks: in a round of its class,
    /// the next one is behind its share by half a pick, the last one before it.
    fn owes(&self, at: u32, total: f64) -> f64 {
        let len = f64::from(self.len());
        let turn = f64::from((at + self.len() - self.next) % self.len());
        self.credit as f64 / total / len + ((len - 1.0) / 2.0 - turn) / len
    }
}

impl RoundRobin {
    /// Weights by index; 0 is no candidate. Cores begin at places that are far apart, so that the first requests after a
    /// start or a reload do not all go to the same backend.
    pub(super) fn new(weights: &[u32], core: usize) -> RoundRobin {
        let n = weights.len();
        let mut round_robin = RoundRobin {
            classes: Vec::with_capacity(n),
            members: (0..n as u32).collect(),
            known: vec![Known { class: NO_CLASS, owed: 0.0 }; n].into(),
            part: (core as u64).wrapping_mul(GOLDEN),
        };
        round_robin.form(weights);
        round_robin.stagger();
        round_robin
    }

    /// For other weights of the same backends. Allocates nothing.
    pub(super) fn prepare(&mut self, weights: &[u32]) {
        let total = self.total() as f64;
        for class in &self.classes {
            for at in class.start..class.end {
                self.known[self.members[at as usize] as usize].owed += class.owes(at, total);
            }
        }
        let come = part_of(self.part, 1 << 32) as f64 / (1u64 << 32) as f64 - 0.5;
        for (known, weight) in self.known.iter_mut().zip(weights) {
            match (known.class, *weight) {
                (_, 0) => known.owed = 0.0,
                (NO_CLASS, _) => known.owed = come,
                _ => {}
            }
        }
        self.form(weights);
        self.give_credit();
    }

    pub(super) fn pick(&mut self, tried: &Tried) -> Option<usize> {
        let class = match &self.classes[..] {
            [] => return None,
            [_] => 0,
            _ => self.pick_class(tried)?,
        };
        let Class { start, end, next, .. } = self.classes[class];
        let free = |at: &u32| !tried.has(self.members[*at as usize] as usize);
        let found = (next..end).chain(start..next).find(free)?;
        self.classes[class].next = if found + 1 == end { start } else { found + 1 };
        Some(self.members[found as usize] as usize)
    }

    /// One step of the smooth algorithm, among classes with a member that was not tried.
    fn pick_class(&mut self, tried: &Tried) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for i in 0..self.classes.len() {
            let mut free = self.classes[i].len();
            if !tried.is_empty() {
                // A tried backend may have gone down meanwhile, or away; then it is no member.
                let member = |t: &usize| self.known.get(*t).is_some_and(|known| known.class == i as u32);
                free -= tried.indices().filter(member).count() as u32;
            }
            if free == 0 {
                continue;
            }
            let weight = i64::from(free) * i64::from(self.classes[i].weight);
            total += weight;
            self.classes[i].credit += weight;
            if best.is_none_or(|b| self.classes[i].credit > self.classes[b].credit) {
                best = Some(i);
            }
        }
        self.classes[best?].credit -= total;
        best
    }

    /// Sum of all weights.
    fn total(&self) -> i64 {
        self.classes.iter().map(|c| i64::from(c.len()) * i64::from(c.weight)).sum()
    }

    /// Forms the classes, without credit.
    fn form(&mut self, weights: &[u32]) {
        let Self { classes, members, known, .. } = self;
        // Among equals that are owed the same the operator's order.
        members.sort_unstable_by(|a, b| {
            let by_weight = weights[*b as usize].cmp(&weights[*a as usize]);
            by_weight.then(known[*b as usize].owed.total_cmp(&known[*a as usize].owed)).then(a.cmp(b))
        });
        classes.clear();
        for (at, index) in members.iter().enumerate() {
            let (at, weight) = (at as u32, weights[*index as usize]);
            if weight == 0 {
                known[*index as usize].class = NO_CLASS;
                continue;
            }
            match classes.last_mut() {
                Some(class) if class.weight == weight => class.end = at + 1,
                _ => classes.push(Class { weight, start: at, end: at + 1, next: at, credit: 0 }),
            }
            known[*index as usize].class = classes.len() as u32 - 1;
        }
    }

    /// Turns what the members are owed into credit, and keeps what is left of it. Who has come or gone has brought or left
    /// a debt or a gain, which all share by their weights.
    fn give_credit(&mut self) {
        let total = self.total() as f64;
        let shared: f64 = self.known.iter().map(|k| k.owed).sum::<f64>() / total;
        let mut sum = 0;
        for class in &mut self.classes {
            let members = &self.members[class.start as usize..class.end as usize];
            let share = shared * f64::from(class.weight);
            let owed: f64 = members.iter().map(|i| self.known[*i as usize].owed - share).sum();
            class.credit = (owed * total).round() as i64;
            sum += class.credit;
            for at in class.start..class.end {
                let known = &mut self.known[self.members[at as usize] as usize];
                known.owed -= share + class.owes(at, total);
            }
        }
        if let Some(first) = self.classes.first_mut() {
            // What rounding has left over.
            first.credit -= sum;
        }
    }

    /// Moves on by a part of the round that differs between cores.
    fn stagger(&mut self) {
        for class in &mut self.classes {
            class.next += part_of(self.part, u64::from(class.len())) as u32;
        }
        if self.classes.len() > 1 {
            let weight = |c: &Class| u64::from(c.len()) * u64::from(c.weight);
            let cycle = self.total() as u64 / self.classes.iter().map(weight).fold(0, gcd);
            let steps = part_of(self.part, cycle.min((STAGGER_STEPS_MAX / self.classes.len()) as u64));
            for _ in 0..steps {
                self.pick_class(&Tried::default());
            }
        }
    }
}

/// The part of `n`; `part` is in 2^64ths.
fn part_of(part: u64, n: u64) -> u64 {
    ((u128::from(part) * u128::from(n)) >> 64) as u64
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: Tried = Tried { indices: [0; crate::limits::TRIED_MAX], len: 0, oldest: 0 };

    fn picks(rr: &mut RoundRobin, n: usize) -> Vec<usize> {
        (0..n).map(|_| rr.pick(&NONE).unwrap()).collect()
    }

    #[test]
    fn heavy_ones_are_spread_over_the_cycle() {
        for unit in [1, 256] {
            let mut rr = RoundRobin::new(&[5, 1, 1].map(|w| w * unit), 0);
            assert_eq!(picks(&mut rr, 7), [0, 1, 0, 0, 0, 2, 0]);
        }
    }

    #[test]
    fn cores_begin_apart() {
        let begin = |core| RoundRobin::new(&[1; 100], core).pick(&NONE).unwrap();
        let begins: std::collections::BTreeSet<_> = (0..16).map(begin).collect();
        assert_eq!(begins.len(), 16);
        assert!(begins.iter().zip(begins.iter().skip(1)).all(|(a, b)| b - a <= 12), "{begins:?}");
        let two = |core| RoundRobin::new(&[1; 2], core).pick(&NONE).unwrap();
        assert_ne!(two(0), two(1));
    }

    #[test]
    fn the_share_of_one_that_is_down_goes_to_all_others() {
        let mut rr = RoundRobin::new(&[1; 4], 0);
        rr.prepare(&[1, 0, 1, 1]);
        let got = picks(&mut rr, 300);
        for i in [0, 2, 3] {
            assert_eq!(got.iter().filter(|p| **p == i).count(), 100);
        }
        rr.prepare(&[0; 4]);
        assert_eq!(rr.pick(&NONE), None);
        rr.prepare(&[0, 0, 7, 0]);
        assert_eq!(picks(&mut rr, 3), [2; 3]);
    }

    #[test]
    fn one_that_comes_back_gets_no_burst() {
        for weights in [[3u32, 3, 3], [1, 5, 3]] {
            let total: u32 = weights.iter().sum();
            for back in 0..3 {
                let mut rr = RoundRobin::new(&weights, 1);
                let mut without = weights;
                without[back] = 0;
                rr.prepare(&without);
                picks(&mut rr, 1000);
                rr.prepare(&weights);
                let got = picks(&mut rr, total as usize);
                let times = got.iter().filter(|p| **p == back).count();
                assert!(times.abs_diff(weights[back] as usize) <= 1, "{weights:?} {back} {got:?}");
                // Not one after the other, unless it has more than half of all.
                let in_row = got.windows(2).filter(|w| w[0] == back && w[1] == back).count();
                assert!(in_row == 0 || 2 * weights[back] > total, "{weights:?} {back} {got:?}");
            }
        }
    }

    #[test]
    fn cores_meet_one_that_comes_back_at_different_times() {
        let first = |core| {
            let mut rr = RoundRobin::new(&[256; 10], core);
            let mut without = [256; 10];
            without[4] = 0;
            rr.prepare(&without);
            picks(&mut rr, 90);
            rr.prepare(&[256; 10]);
            picks(&mut rr, 10).iter().position(|p| *p == 4).unwrap()
        };
        let mut by_place = [0; 10];
        (0..100).for_each(|core| by_place[first(core)] += 1);
        assert!(by_place.iter().all(|n| *n <= 25), "{by_place:?}");
    }

    #[test]
    fn changes_that_come_with_every_pick_starve_nobody() {
        // The unchanged ones differ in weight: forgetting all credit would give each pick to the heaviest.
        let mut rr = RoundRobin::new(&[512, 256, 256, 1], 0);
        let mut counts = [0; 4];
        for ramp in 0..4000 {
            rr.prepare(&[512, 256, 256, 1 + ramp % 2]);
            counts[rr.pick(&NONE).unwrap()] += 1;
        }
        assert!((1990..=2000).contains(&counts[0]) && counts[1] >= 990 && counts[2] >= 990, "{counts:?}");
    }

    #[test]
    fn a_retry_takes_another_and_the_cycle_stays_nearly_fair() {
        let mut rr = RoundRobin::new(&[4, 2, 1, 1], 0);
        for _ in 0..1000 {
            let first = rr.pick(&NONE).unwrap();
            let mut tried = Tried::default();
            tried.add(first);
            assert_ne!(rr.pick(&tried), Some(first));
        }
        // What the retries moved is bounded: no class owes more than a few cycles.
        assert!(rr.classes.iter().all(|c| c.credit.abs() <= 8 * 4), "{:?}", rr.classes);
    }

    proptest! {
        #[test]
        fn exactly_the_weights_over_a_cycle(
            weights in prop::collection::vec(prop_oneof![4 => 1u32..8, 1 => Just(0)], 1..30),
            core in 0usize..70,
            before in 0usize..50,
        ) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let mut rr = RoundRobin::new(&weights, core);
            picks(&mut rr, before);
            let cycle: u32 = weights.iter().sum();
            for _ in 0..3 {
                let got = picks(&mut rr, cycle as usize);
                for (i, weight) in weights.iter().enumerate() {
                    prop_assert_eq!(got.iter().filter(|p| **p == i).count(), *weight as usize);
                }
            }
        }

        /// Each backend is at any time within a few picks of its share, whatever the weights do.
        #[test]
        fn fair_while_weights_change(
            rounds in prop::collection::vec((prop::collection::vec(prop_oneof![
                3 => Just(256u32), 2 => 1u32..1024, 1 => Just(0)], 6), 1usize..40), 1..30),
            core in 0usize..9,
        ) {
            let mut rr = RoundRobin::new(&rounds[0].0, core);
            let (mut got, mut due) = ([0u32; 6], [0f64; 6]);
            for (weights, picks) in &rounds {
                rr.prepare(weights);
                let total: u32 = weights.iter().sum();
                prop_assert_eq!(rr.classes.iter().map(|c| c.credit).sum::<i64>(), 0);
                // Who is away is owed nothing; what was left open goes to the others.
                let mut left = 0.0;
                for (i, _) in weights.iter().enumerate().filter(|(_, w)| **w == 0) {
                    left += due[i] - f64::from(got[i]);
                    due[i] = f64::from(got[i]);
                }
                for (i, weight) in weights.iter().enumerate().filter(|_| total > 0) {
                    due[i] += left * f64::from(*weight) / f64::from(total);
                }
                for _ in 0..*picks {
                    let Some(i) = rr.pick(&NONE) else { break };
                    prop_assert!(weights[i] > 0);
                    got[i] += 1;
                    for (due, weight) in due.iter_mut().zip(weights) {
                        *due += f64::from(*weight) / f64::from(total);
                    }
                    for i in 0..6 {
                        prop_assert!((f64::from(got[i]) - due[i]).abs() < 3.0, "{} {:?} {:?}", i, got, due);
                    }
                }
            }
        }
    }
}
