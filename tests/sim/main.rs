//! Simulation: the real sessions on a net in memory, between virtual clients and backends that misbehave.
//!
//! One seed decides all of it: the machines, the table, the timeouts, who says what and when, what breaks, and what control
//! changes meanwhile. `cargo test --test sim` runs `SEEDS` of them (256 unless told) from `FROM` on, with `STOP=1` only until
//! one fails; `SEED=7 cargo test --test sim` runs one and tells its story. `mutants/run.py` shows that bugs are found.

mod audit;
mod backend;
mod client;
mod config;
mod control;
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
use std::time::Instant;

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
    let (from, stop) = (number("FROM").unwrap_or(0), number("STOP").is_some());
    let (begun, next) = (Instant::now(), AtomicU64::new(from));
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let shown = outcome(seed, false);
                    if stop && !shown.violations.is_empty() {
                        next.store(u64::MAX / 2, Ordering::Relaxed);
                    }
                    all.lock().unwrap().push((seed, shown));
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap();
    all.sort_by_key(|(seed, _)| *seed);
    let sum = |of: fn(&Shown) -> u64| all.iter().map(|(_, shown)| of(shown)).sum::<u64>();
    let took = begun.elapsed().as_secs_f64();
    println!("{seeds} seeds in {took:.1} s, {:.0} a second", seeds as f64 / took);
    type Figure = fn(&Shown) -> u64;
    let figures: [(&str, Figure); 24] = [
        ("exchanges served", |s| s.completed as u64),
        ("exchanges ended by a fault, or refused", |s| s.failed as u64),
        ("times that the invariants were looked at", |s| s.steps),
        ("cores", |s| s.cores),
        ("retries", |s| s.retries),
        ("requests waited for their turn", |s| s.waited),
        ("of them in vain", |s| s.waited_in_vain),
        ("newcomers went to another core", |s| s.handed),
        ("connections moved to another core", |s| s.moved),
        ("failures to accept", |s| s.accept_failures),
        ("reloads", |s| s.control.reloads),
        ("patches", |s| s.control.patches),
        ("operators' words", |s| s.control.words),
        ("pauses and resumes", |s| s.control.pauses),
        ("answers of names", |s| s.control.answers),
        ("listeners opened", |s| s.control.listeners),
        ("publications", |s| s.control.publications),
        ("probes", |s| s.control.probes),
        ("marks up or down", |s| s.control.marks),
        ("faults of endpoints", |s| s.control.faults),
        ("standstills", |s| s.control.stalls),
        ("times without descriptors or memory", |s| s.control.wants),
        ("times that nothing remained on what was taken away", |s| s.control.drained_away),
        ("storms", |s| s.storms),
    ];
    let sums = figures.map(|(what, of)| (what, sum(of)));
    sums.iter().for_each(|(what, n)| println!("{n:>12} {what}"));
    let bad: Vec<_> = all.iter().filter(|(_, shown)| !shown.violations.is_empty()).collect();
    for (seed, shown) in &bad {
        println!("seed {seed}: replay with SEED={seed} cargo test --test sim");
        shown.violations.iter().take(4).for_each(|violation| println!("    {violation}"));
    }
    assert!(bad.is_empty(), "{} of {seeds} seeds fail", bad.len());
    let tame: Vec<_> = sums.iter().filter(|(_, n)| *n == 0).collect();
    assert!(seeds < 100 || tame.is_empty(), "the scenario has become tame: {tame:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 14, 159] {
        assert_eq!(outcome(seed, false), outcome(seed, false), "seed {seed}");
    }
}
