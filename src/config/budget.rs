//! Whether a plan fits the limit of open files: numbers in, verdict out (docs/CONFIG.md, "Descriptors").
//!
//! Each worker has an equal share of what the process does not need for itself. A client connection costs two
//! descriptors, its own and its backend connection's; idle pooled connections cost one each, and a worker never keeps
//! more of them than it may have client connections. A pipe for spliced bodies costs two; pipes only make large bodies
//! cheaper, so no plan is refused for their sake: they take a part of what is free, or what is left.

use super::Plan;
use super::value::Refusal;
use crate::limits::{CONNECTIONS_MAX, DESCRIPTORS_PROCESS, DESCRIPTORS_WORKER, PIPES_MAX};

/// What a worker may hold, and what that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Client connections per worker.
    pub connections_per_worker: usize,
    /// Idle backend connections per worker, all backends together.
    pub pooled_per_worker: usize,
    /// Pipes per worker.
    pub pipes_per_worker: usize,
    /// Descriptors that the whole process needs when all of it is used.
    pub descriptors: u64,
}

/// Computes what `plan` needs with so many workers (at least 1), where the process may open `open_files_max` files.
/// Where the operator gave no number of connections, the largest that fits is taken.
pub fn descriptors_needed(plan: &Plan, workers: usize, open_files_max: u64) -> Result<Budget, Refusal> {
    let workers = workers.max(1) as u64;
    let overhead = DESCRIPTORS_WORKER + plan.listeners.len() as u64;
    let share = (open_files_max.saturating_sub(DESCRIPTORS_PROCESS) / workers).saturating_sub(overhead);
    let pools = plan
        .clusters
        .values()
        .map(|c| u64::from(c.policy.pool_max).saturating_mul(c.backends.len() as u64))
        .fold(0, u64::saturating_add);
    let total = |per_worker: u64| DESCRIPTORS_PROCESS + workers * (overhead + cost(per_worker, pools));
    let budget = |per_worker: u64| {
        let pipes = (share.saturating_sub(cost(per_worker, pools)) / 2).min(PIPES_MAX as u64);
        Budget {
            connections_per_worker: per_worker as usize,
            pooled_per_worker: pools.min(per_worker) as usize,
            pipes_per_worker: pipes as usize,
            descriptors: total(per_worker) + workers * 2 * pipes,
        }
    };
    let fitting = largest(share, pools);
    match plan.connections {
        None if fitting == 0 => Err(Refusal::hint(
            format!(
                "with {workers} workers not even one connection each fits the limit of {open_files_max} open files"
            ),
            format!("raise it to {} at least (ulimit -n, LimitNOFILE=), or lower \"workers\"", total(1)),
        )),
        None => {
            // A sixteenth for pipes, but not the last connection.
            let pipes = (share / 32).min(PIPES_MAX as u64);
            let fitting = largest(share - 2 * pipes, pools).max(1);
            Ok(budget(fitting.min(u64::from(CONNECTIONS_MAX).div_ceil(workers))))
        }
        Some(connections) => {
            let per_worker = (connections as u64).div_ceil(workers).max(1);
            if per_worker <= fitting {
                return Ok(budget(per_worker));
            }
            Err(Refusal::hint(
                format!(
                    "{connections} connections with {workers} workers need {} descriptors, and the limit is {open_files_max} open files",
                    total(per_worker)
                ),
                format!(
                    "raise the limit (ulimit -n, LimitNOFILE=), or allow {} connections at most",
                    fitting * workers
                ),
            ))
        }
    }
}

/// Puts the numbers of [`descriptors_needed`] into the plan's settings.
pub fn apply(plan: &mut Plan, workers: usize, open_files_max: u64) -> Result<Budget, Refusal> {
    let budget = descriptors_needed(plan, workers, open_files_max)?;
    plan.settings.connections_per_worker = budget.connections_per_worker;
    plan.settings.pooled_per_worker = budget.pooled_per_worker;
    plan.settings.pipes_per_worker = budget.pipes_per_worker;
    Ok(budget)
}

/// Descriptors that so many client connections of one worker take.
fn cost(connections: u64, pools: u64) -> u64 {
    connections.saturating_mul(2).saturating_add(pools.min(connections))
}

/// The most client connections whose cost is within `share`.
fn largest(share: u64, pools: u64) -> u64 {
    // Either all pools can be full beside 2 descriptors a connection, or each connection takes 3.
    (share.saturating_sub(pools) / 2).max(share / 3).min(if pools >= share { share / 3 } else { u64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::load;

    fn plan(connections: &str, pool: u32) -> Plan {
        let text = format!(
            r#"{{"listeners": {{"a": "127.0.0.1:1", "b": "127.0.0.1:2"}},
                "clusters": {{"c": {{"backends": {{"x": "127.0.0.1:3", "y": "127.0.0.1:4"}}, "pool": {{"max": {pool}}}}}}},
                "routes": {{}}, "limits": {{"connections": {connections}}}}}"#
        );
        load(&text, "test").unwrap()
    }

    #[test]
    fn the_largest_that_fits_is_the_largest() {
        for share in 0..200 {
            for pools in 0..220 {
                let n = largest(share, pools);
                assert!(cost(n, pools) <= share && cost(n + 1, pools) > share, "{share} {pools} {n}");
            }
        }
    }

    #[test]
    fn the_default_is_what_the_limit_allows() {
        // (1216 - 192) / 2 - 16 - 2 = 494 a worker, 15 * 2 of them for pipes; with pools of 2 * 4: (494 - 30 - 8) / 2 = 228.
        let expected = Budget {
            connections_per_worker: 228,
            pooled_per_worker: 8,
            pipes_per_worker: 15,
            descriptors: 192 + 2 * (18 + 494),
        };
        assert_eq!(descriptors_needed(&plan("null", 4), 2, 1216), Ok(expected));
        // With large pools a third: 154.
        let budget = descriptors_needed(&plan("null", 1000), 2, 1216).unwrap();
        assert_eq!((budget.connections_per_worker, budget.pooled_per_worker), (154, 154));
        assert!(budget.descriptors <= 1216);
        assert!(descriptors_needed(&plan("null", 4), 2, 192).is_err());
        assert!(descriptors_needed(&plan("null", 4), 1, u64::MAX).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let mut plan = plan("1000", 4);
        let refusal = apply(&mut plan, 2, 1024).unwrap_err();
        assert_eq!(
            refusal.message,
            "1000 connections with 2 workers need 2244 descriptors, and the limit is 1024 open files"
        );
        assert!(refusal.suggestion.unwrap().ends_with("or allow 390 connections at most"));
        apply(&mut plan, 2, 4096).unwrap();
        assert_eq!((plan.settings.connections_per_worker, plan.settings.pooled_per_worker), (500, 8));
        assert_eq!(plan.settings.pipes_per_worker, PIPES_MAX);
    }

    #[test]
    fn pipes_have_what_is_left_and_refuse_nobody() {
        // 494 a worker, as above: 240 connections leave 6, and all that fit leave none.
        for (connections, pipes) in [("480", 3), ("486", 0), ("100", PIPES_MAX)] {
            let budget = descriptors_needed(&plan(connections, 4), 2, 1216).unwrap();
            assert_eq!(budget.pipes_per_worker, pipes);
            assert!(budget.descriptors <= 1216);
        }
        for open_files in 192 + 18..464 {
            if let Ok(budget) = descriptors_needed(&plan("null", 4), 1, open_files) {
                assert!(budget.connections_per_worker > 0 && budget.descriptors <= open_files);
            }
        }
    }
}
