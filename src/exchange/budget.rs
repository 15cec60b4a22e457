//! How many retries a cluster affords: a bucket of tokens, a retry takes one.
//!
//! Each first attempt puts a part of a token in, and time does, too. What was put in is kept for about
//! `limits::RETRY_BUDGET_SECONDS`. So a cluster that serves many requests has many tokens when one of its backends dies
//! with all it had, and a cluster that is out as a whole gets a few more requests than its clients make, not several times
//! as many. Per core: cores share what time puts in, and each has what its own requests do.

use crate::limits::RETRY_BUDGET_SECONDS;
use std::cell::Cell;

/// A token, in parts so small that a percentage of it, and a core's share of it, are whole numbers.
const TOKEN: u64 = 100 * 1024;

/// What puts tokens in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Tokens per hundred first attempts.
    pub percent: u32,
    /// Tokens a second, all cores together.
    pub min_per_second: u32,
    /// Number of cores, at least 1.
    pub cores: usize,
}

impl Rule {
    /// What one first attempt puts in.
    fn attempt(self) -> u64 {
        u64::from(self.percent) * TOKEN / 100
    }

    /// What a second puts in on one core.
    fn second(self) -> u64 {
        u64::from(self.min_per_second) * TOKEN / self.cores.max(1) as u64
    }

    /// What may be there without any request: never less than one retry, where time puts anything in.
    fn reserve(self) -> u64 {
        let kept = self.second() * RETRY_BUDGET_SECONDS;
        if kept > 0 { kept.max(TOKEN) } else { 0 }
    }
}

/// One core's bucket for one cluster.
#[derive(Debug)]
pub struct Budget {
    /// First attempts that have put nothing in yet.
    attempts: Cell<u64>,
    tokens: Cell<u64>,
    /// What attempts have put in lately; a tenth of it is forgotten each second.
    lately: Cell<u64>,
    /// The latest tick that was seen.
    at: Cell<u32>,
}

impl Budget {
    /// With what is there without any request; `now` in ticks (seconds).
    pub fn new(rule: Rule, now: u32) -> Budget {
        Budget { attempts: Cell::new(0), tokens: Cell::new(rule.reserve()), lately: Cell::new(0), at: Cell::new(now) }
    }

    /// A first attempt is made.
    #[inline]
    pub fn attempt(&self) {
        self.attempts.set(self.attempts.get().wrapping_add(1));
    }

    /// Takes a token for a retry; `false` if there is none.
    pub fn take(&self, rule: Rule) -> bool {
        self.settle(rule);
        let left = self.tokens.get().checked_sub(TOKEN);
        self.tokens.set(left.unwrap_or(self.tokens.get()));
        left.is_some()
    }

    /// Time passes. To be called about each second, or what attempts put in would be kept for longer than it should.
    pub fn tick(&self, rule: Rule, now: u32) {
        self.settle(rule);
        let seconds = now.saturating_sub(self.at.replace(now));
        for _ in 0..seconds.min(4 * RETRY_BUDGET_SECONDS as u32) {
            self.lately.set(self.lately.get() - self.lately.get() / RETRY_BUDGET_SECONDS);
        }
        let put = self.tokens.get().saturating_add(u64::from(seconds) * rule.second());
        self.tokens.set(put.min(rule.reserve().saturating_add(self.lately.get())));
    }

    /// Puts in what the attempts since the last time are worth.
    fn settle(&self, rule: Rule) {
        let put = self.attempts.take().saturating_mul(rule.attempt());
        self.tokens.set(self.tokens.get().saturating_add(put));
        self.lately.set(self.lately.get().saturating_add(put));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USUAL: Rule = Rule { percent: 20, min_per_second: 10, cores: 2 };

    /// Tokens that are there now.
    fn tokens(budget: &Budget, rule: Rule) -> u64 {
        (0..).take_while(|_| budget.take(rule)).count() as u64
    }

    #[test]
    fn a_quiet_cluster_affords_its_reserve() {
        let budget = Budget::new(USUAL, 0);
        assert_eq!(tokens(&budget, USUAL), 50);
        budget.tick(USUAL, 1);
        assert_eq!(tokens(&budget, USUAL), 5);
        budget.tick(USUAL, 1000);
        assert_eq!(tokens(&budget, USUAL), 50, "no more than ten seconds are kept");
    }

    #[test]
    fn five_requests_afford_a_retry() {
        let rule = Rule { min_per_second: 0, ..USUAL };
        let budget = Budget::new(rule, 0);
        assert!(!budget.take(rule));
        (0..4).for_each(|_| budget.attempt());
        assert!(!budget.take(rule));
        budget.attempt();
        assert!(budget.take(rule) && !budget.take(rule));
    }

    #[test]
    fn nothing_affords_nothing() {
        let rule = Rule { percent: 0, min_per_second: 0, cores: 1 };
        let budget = Budget::new(rule, 0);
        (0..1000).for_each(|_| budget.attempt());
        budget.tick(rule, 100);
        assert!(!budget.take(rule));
    }

    #[test]
    fn each_of_a_thousand_cores_has_a_retry_at_least() {
        let rule = Rule { cores: 1000, ..USUAL };
        let budget = Budget::new(rule, 0);
        assert_eq!(tokens(&budget, rule), 1);
        budget.tick(rule, 99);
        assert_eq!(tokens(&budget, rule), 0);
        budget.tick(rule, 100);
        assert_eq!(tokens(&budget, rule), 1);
    }

    #[test]
    fn load_keeps_ten_seconds_of_its_share_and_then_forgets_it() {
        let budget = Budget::new(USUAL, 0);
        for second in 1..=100 {
            (0..1000).for_each(|_| budget.attempt());
            budget.tick(USUAL, second);
        }
        // Nine seconds of 200, and the reserve.
        let Budget { tokens: cell, .. } = &budget;
        let kept = cell.get() / TOKEN;
        assert!((1800..=1850).contains(&kept), "{kept}");
        budget.tick(USUAL, 130);
        let kept = cell.get() / TOKEN;
        assert!((100..=150).contains(&kept), "{kept}");
    }

    #[test]
    fn an_outage_gets_its_percentage_and_no_more() {
        let rule = Rule { cores: 1, ..USUAL };
        let budget = Budget::new(rule, 0);
        let mut retries = 0;
        for second in 1..=100 {
            for _ in 0..1000 {
                budget.attempt();
                // Each of them fails and would be tried three more times.
                retries += (0..3).filter(|_| budget.take(rule)).count();
            }
            budget.tick(rule, second);
        }
        assert!((20_000..=21_200).contains(&retries), "{retries}");
    }

    proptest! {
        #[test]
        fn no_more_is_taken_than_was_put_in(
            percent in 0u32..300,
            min_per_second in 0u32..100,
            cores in 1usize..5,
            steps in prop::collection::vec((0u32..2000, 0u32..500, 0u32..4), 1..60),
        ) {
            let rule = Rule { percent, min_per_second, cores };
            let budget = Budget::new(rule, 0);
            let (mut now, mut taken, mut attempts) = (0, 0u64, 0u64);
            for (requests, wanted, seconds) in steps {
                (0..requests).for_each(|_| budget.attempt());
                attempts += u64::from(requests);
                taken += (0..wanted).filter(|_| budget.take(rule)).count() as u64;
                now += seconds;
                budget.tick(rule, now);
                let put = rule.reserve() + attempts * rule.attempt() + u64::from(now) * rule.second();
                prop_assert!(taken * TOKEN <= put);
                prop_assert!(budget.tokens.get() <= rule.reserve() + budget.lately.get());
            }
        }
    }
}
