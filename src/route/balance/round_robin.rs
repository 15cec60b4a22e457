//! Smooth weighted round robin.
//!
//! Backends of equal weight form a class. Among classes runs the smooth algorithm that nginx made known: each pick adds to
//! every class its weight (that of one member times the members that are up), takes the class with most credit, and takes
//! the sum of all weights off it. Within a class it goes round. So a pick costs the number of different weights, not of
//! backends: one step for a thousand equal ones. Over a cycle (as many picks as the sum of weights) each backend that is
//! up is picked exactly as often as its weight says, and picks of one backend are spread over the cycle.
//!
//! When states change, all credit is forgotten and the places within the classes are kept: a backend that comes back has
//! saved nothing up, so it gets its share and no burst.

use super::Tried;
use crate::route::health::State;

/// Steps of advance that stagger the classes at the begin, over all classes: bounds the work of making one.
const STAGGER_STEPS_MAX: usize = 4096;

/// One core's place in the rounds.
#[derive(Debug)]
pub(super) struct RoundRobin {
    classes: Box<[Class]>,
    /// Indices of the backends, class by class.
    members: Box<[u32]>,
    /// Class by index of the backend.
    class_of: Box<[u32]>,
}

#[derive(Debug)]
struct Class {
    weight: u32,
    /// Its part of `members`.
    start: u32,
    end: u32,
    /// Where the search for the next member begins.
    next: u32,
    /// Members that are up.
    up: u32,
    credit: i64,
}

impl RoundRobin {
    /// With all backends up. Cores begin at places that are far apart, so that the first requests after a start or a
    /// reload do not all go to the same backend.
    pub(super) fn new(weights: &[u32], core: usize) -> RoundRobin {
        let mut members: Vec<u32> = (0..weights.len() as u32).collect();
        // Heavy first; stable, so that equal ones go round in the operator's order.
        members.sort_by_key(|i| std::cmp::Reverse(weights[*i as usize]));
        let mut class_of = vec![0; weights.len()];
        let mut classes: Vec<Class> = Vec::new();
        for (at, index) in members.iter().enumerate() {
            let weight = weights[*index as usize];
            let at = at as u32;
            match classes.last_mut() {
                Some(class) if class.weight == weight => (class.end, class.up) = (at + 1, class.up + 1),
                _ => classes.push(Class { weight, start: at, end: at + 1, next: at, up: 1, credit: 0 }),
            }
            class_of[*index as usize] = classes.len() as u32 - 1;
        }
        let mut round_robin =
            RoundRobin { classes: classes.into(), members: members.into(), class_of: class_of.into() };
        round_robin.stagger(core);
        round_robin
    }

    /// For other states of the same backends.
    pub(super) fn prepare(&mut self, states: &[State]) {
        for class in &mut self.classes {
            let members = &self.members[class.start as usize..class.end as usize];
            class.up = members.iter().filter(|i| states[**i as usize].is_up()).count() as u32;
            class.credit = 0;
        }
    }

    pub(super) fn pick(&mut self, states: &[State], tried: &Tried) -> Option<usize> {
        let class = match &self.classes[..] {
            [] => return None,
            [_] => 0,
            _ => self.pick_class(states, tried)?,
        };
        let Class { start, end, next, .. } = self.classes[class];
        let found = (next..end).chain(start..next).find(|at| {
            let index = self.members[*at as usize] as usize;
            states[index].is_up() && !tried.has(index)
        })?;
        self.classes[class].next = if found + 1 == end { start } else { found + 1 };
        Some(self.members[found as usize] as usize)
    }

    /// One step of the smooth algorithm, among classes with a member that is up and not tried.
    fn pick_class(&mut self, states: &[State], tried: &Tried) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for i in 0..self.classes.len() {
            let mut free = self.classes[i].up;
            if !tried.is_empty() {
                // A tried backend may have gone down meanwhile; then it is not among those that are up.
                let counts = |t: &usize| self.class_of.get(*t) == Some(&(i as u32)) && states[*t].is_up();
                free -= tried.indices().filter(counts).count() as u32;
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

    /// Moves on by a part of the round that differs between cores: multiples of the golden ratio, which are spread
    /// evenly however many cores there are.
    fn stagger(&mut self, core: usize) {
        let part = (core as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let of = |n: u64| ((u128::from(part) * u128::from(n)) >> 64) as u64;
        for class in &mut self.classes {
            class.next = class.start + of(u64::from(class.end - class.start)) as u32;
        }
        if self.classes.len() > 1 {
            let total: u64 = self.classes.iter().map(|c| u64::from(c.up) * u64::from(c.weight)).sum();
            let states = vec![State::up(1); self.members.len()];
            for _ in 0..of(total.min((STAGGER_STEPS_MAX / self.classes.len()) as u64)) {
                self.pick_class(&states, &Tried::default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::health::Standing;
    use proptest::prelude::*;

    const NONE: Tried = Tried { indices: [0; crate::limits::TRIED_MAX], len: 0, oldest: 0 };

    fn picks(rr: &mut RoundRobin, states: &[State], n: usize) -> Vec<usize> {
        (0..n).map(|_| rr.pick(states, &NONE).unwrap()).collect()
    }

    #[test]
    fn heavy_ones_are_spread_over_the_cycle() {
        let mut rr = RoundRobin::new(&[5, 1, 1], 0);
        assert_eq!(picks(&mut rr, &[State::up(1); 3], 7), [0, 1, 0, 0, 0, 2, 0]);
    }

    #[test]
    fn cores_begin_apart() {
        let begin = |core| RoundRobin::new(&[1; 100], core).pick(&[State::up(1); 100], &NONE).unwrap();
        let begins: std::collections::BTreeSet<_> = (0..16).map(begin).collect();
        assert_eq!(begins.len(), 16);
        assert!(begins.iter().zip(begins.iter().skip(1)).all(|(a, b)| b - a <= 12), "{begins:?}");
        let two = |core| RoundRobin::new(&[1; 2], core).pick(&[State::up(1); 2], &NONE).unwrap();
        assert_ne!(two(0), two(1));
    }

    #[test]
    fn the_share_of_one_that_is_down_goes_to_all_others() {
        let mut rr = RoundRobin::new(&[1; 4], 0);
        let states = [State::up(1), State::new(Standing::Down, 1), State::up(1), State::up(1)];
        rr.prepare(&states);
        let got = picks(&mut rr, &states, 300);
        for i in [0, 2, 3] {
            assert_eq!(got.iter().filter(|p| **p == i).count(), 100);
        }
    }

    #[test]
    fn one_that_comes_back_gets_no_burst() {
        for weights in [[3u32, 3, 3], [1, 5, 3]] {
            let total: u32 = weights.iter().sum();
            for back in 0..3 {
                let mut rr = RoundRobin::new(&weights, 1);
                let mut states = [State::up(1); 3];
                states[back] = State::new(Standing::Down, 1);
                rr.prepare(&states);
                picks(&mut rr, &states, 1000);
                states[back] = State::up(1);
                rr.prepare(&states);
                let got = picks(&mut rr, &states, total as usize);
                let times = got.iter().filter(|p| **p == back).count();
                assert_eq!(times, weights[back] as usize, "{weights:?} {back} {got:?}");
                // Not one after the other, unless it has more than half of all.
                let in_row = got.windows(2).filter(|w| w[0] == back && w[1] == back).count();
                assert!(in_row == 0 || 2 * weights[back] > total, "{weights:?} {back} {got:?}");
            }
        }
    }

    #[test]
    fn a_retry_takes_another_and_the_cycle_stays_nearly_fair() {
        let weights = [4, 2, 1, 1];
        let states = [State::up(1); 4];
        let mut rr = RoundRobin::new(&weights, 0);
        for _ in 0..1000 {
            let first = rr.pick(&states, &NONE).unwrap();
            let mut tried = Tried::default();
            tried.add(first);
            assert_ne!(rr.pick(&states, &tried), Some(first));
        }
        // What the retries moved is bounded: no class owes more than a few cycles.
        assert!(rr.classes.iter().all(|c| c.credit.abs() <= 8 * 4), "{:?}", rr.classes);
    }

    proptest! {
        #[test]
        fn exactly_the_weights_over_a_cycle(
            weights in prop::collection::vec(1u32..8, 1..30),
            down in prop::collection::vec(any::<bool>(), 30),
            core in 0usize..70,
            before in 0usize..50,
        ) {
            let mut rr = RoundRobin::new(&weights, core);
            let mut states = vec![State::up(1); weights.len()];
            picks(&mut rr, &states, before);
            for (i, state) in states.iter_mut().enumerate().skip(1) {
                *state = if down[i] { State::new(Standing::Down, 1) } else { State::up(1) };
            }
            rr.prepare(&states);
            let share = |i: usize| if states[i].is_up() { weights[i] as usize } else { 0 };
            let cycle: usize = (0..weights.len()).map(share).sum();
            for _ in 0..3 {
                let got = picks(&mut rr, &states, cycle);
                for i in 0..weights.len() {
                    prop_assert_eq!(got.iter().filter(|p| **p == i).count(), share(i));
                }
            }
        }
    }
}
