//! What a config would do, without running it.

use super::resolve;
use super::running::{Machine, Running, Wanted, read_config};
use crate::config::answer::{Code, Error};
use crate::config::{Address, Plan, check};
use crate::diff::{Diff, Side, diff};
use crate::publish::Snapshot;
use crate::route::skip::in_flight;
use crate::supervisor::{Resolutions, Supervisor, restart_keys};
use crate::worker::net::machine;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What workers would run on by this config, with every backend up. Of names only those of the cluster that `matters` are
/// looked up; for each that does not resolve, the reason is returned.
///
/// # Errors
/// The faults of the config, or what is wrong with the file.
pub fn snapshot(
    file: &Path,
    matters: impl FnOnce(&Snapshot) -> Option<String>,
) -> Result<(Snapshot, Vec<String>), String> {
    let text = read_config(file)?;
    let plan = check::load(&text, &file.to_string_lossy()).map_err(|faults| faults.to_string())?;
    let snapshot = up(&plan, Resolutions::default())?;
    let (names, failures) = look_up(&plan, matters(&snapshot).as_ref());
    Ok((if names == Resolutions::default() { snapshot } else { up(&plan, names)? }, failures))
}

/// A config to be compared with another. No name is looked up: see [`with_names`].
///
/// # Errors
/// The faults of the config.
pub fn side(text: &str, file: &str) -> Result<Side, String> {
    let plan = check::load(text, file).map_err(|faults| faults.to_string())?;
    of_plan(plan, text, file)
}

/// The same side with the addresses of the names that these clusters have; and the reason of each that does not resolve.
///
/// # Errors
/// A bug, in words.
pub fn with_names<'a>(
    side: Side,
    clusters: impl IntoIterator<Item = &'a String>,
) -> Result<(Side, Vec<String>), String> {
    let (names, failures) = look_up(&side.plan, clusters);
    Ok((Side { table: up(&side.plan, names)?.table, ..side }, failures))
}

/// The keys for which the second config needs a restart of a process that runs the first, on as many cores as here are.
pub fn restart(old: &Side, new: &Side) -> Vec<String> {
    let cores = old.plan.workers.unwrap_or_else(|| machine::usable_cores().len());
    restart_keys(&old.plan, &new.plan, cores).iter().map(ToString::to_string).collect()
}

/// What a reload would change against what runs, and the plan that it would be. Takes its time with a large config.
///
/// # Errors
/// The faults of the config.
pub(super) fn reload(
    running: &Running,
    wanted: Wanted,
    machine: Machine,
    now: &Snapshot,
) -> Result<(Plan, Diff), Error> {
    let failed = |why: String| Error::new(Code::Failed, why);
    let shown = |running: &Running| running.file().to_string_lossy().into_owned();
    let (next, plan) = running.with(wanted, machine)?;
    let old = side(running.text(), &shown(running)).map_err(failed)?;
    let new = of_plan(plan, next.text(), &shown(&next)).map_err(failed)?;
    let mut under_way: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (cluster, backend) in now.table.clusters().iter().flat_map(|c| c.backends.iter().map(move |b| (c, b))) {
        *under_way.entry((&cluster.name, &backend.name)).or_default() += in_flight(backend);
    }
    let in_flight = |cluster: &str, backend: &str| under_way.get(&(cluster, backend)).copied().unwrap_or_default();
    let mut diff = diff(&old, &new, Some(&in_flight));
    diff.restart = restart_keys(&old.plan, &new.plan, machine.cores).iter().map(ToString::to_string).collect();
    Ok((new.plan, diff))
}

fn of_plan(plan: Plan, text: &str, file: &str) -> Result<Side, String> {
    let shown = check::show(text, file).map_err(|faults| faults.to_string())?;
    let shown = serde_json::from_str(&shown).map_err(|e| e.to_string())?;
    Ok(Side { table: up(&plan, Resolutions::default())?.table, shown, plan })
}

fn up(plan: &Plan, names: Resolutions) -> Result<Snapshot, String> {
    Supervisor::new(plan.clone(), 1, names)
        .map(|supervisor| supervisor.snapshot())
        .map_err(|refusal| refusal.to_string())
}

/// The addresses of all names that these clusters have.
fn look_up<'a>(plan: &Plan, clusters: impl IntoIterator<Item = &'a String>) -> (Resolutions, Vec<String>) {
    let of = |name: &String| plan.clusters.get(name).into_iter().flat_map(|cluster| &cluster.backends);
    let backends = clusters.into_iter().flat_map(of);
    let names: BTreeSet<&String> =
        backends.filter_map(|b| if let Address::Name(name, _) = &b.address { Some(name) } else { None }).collect();
    let mut known = Resolutions::default();
    let mut failures = Vec::new();
    for name in names {
        let answer = resolve::system(name).map_err(|e| e.to_string());
        failures.extend(answer.as_ref().err().map(|why| format!("{name}: {why}")));
        known.record(name, answer);
    }
    (known, failures)
}
