//! Simulation: the real sessions on a net in memory, between virtual clients and backends that misbehave.
//!
//! One seed decides all of it: the machines, the table, the timeouts, who says what and when, what breaks, and what control
//! changes meanwhile. `cargo test --test sim` runs `SEEDS` of them (256 unless told); `SEED=7 cargo test --test sim` runs
//! one and tells its story.

mod backend;
mod client;
mod dice;
mod ledger;
mod lines;
mod plan;
mod regressions;
mod scenario;
mod wire;

use scenario::{Shown, run};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Threads that run seeds; each seed is one thread's.
const THREADS: usize = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed; a panic is a violation.
fn outcome(seed: u64, verbose: bool) -> Shown {
    catch_unwind(AssertUnwindSafe(|| run(seed, verbose))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default();
        Shown { violations: vec![format!("panic: {text}")], ..Shown::default() }
    })
}

#[test]
fn seeds() {
    if let Some(seed) = number("SEED") {
        let shown = outcome(seed, true);
        assert!(shown.violations.is_empty(), "seed {seed}: {shown:#?}");
        return;
    }
    let seeds = number("SEEDS").unwrap_or(256);
    let next = AtomicU64::new(0);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let shown = outcome(seed, false);
                    all.lock().unwrap().push((seed, shown));
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap();
    all.sort_by_key(|(seed, _)| *seed);
    let sum = |of: fn(&Shown) -> u64| all.iter().map(|(_, shown)| of(shown)).sum::<u64>();
    let (completed, failed) = (sum(|shown| shown.completed as u64), sum(|shown| shown.failed as u64));
    let (starved, listeners) = (sum(|shown| shown.accept_failures), sum(|shown| shown.listeners.into()));
    println!("{seeds} seeds: {completed} exchanges served, {failed} ended by a fault or refused");
    println!("accept failed {starved} times, {listeners} listeners came by reload");
    let (waited, in_vain) = (sum(|shown| shown.waited), sum(|shown| shown.waited_in_vain));
    println!("{waited} requests waited for their turn, {in_vain} of them in vain");
    let bad: Vec<_> = all.iter().filter(|(_, shown)| !shown.violations.is_empty()).collect();
    for (seed, shown) in &bad {
        println!("seed {seed}: replay with SEED={seed} cargo test --test sim");
        shown.violations.iter().take(4).for_each(|violation| println!("    {violation}"));
    }
    assert!(bad.is_empty(), "{} of {seeds} seeds fail", bad.len());
    let lively = [starved, listeners, waited, in_vain].iter().all(|n| *n > 0);
    assert!(seeds < 100 || lively, "the scenario has become tame");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 14, 159] {
        assert_eq!(outcome(seed, false), outcome(seed, false), "seed {seed}");
    }
}
