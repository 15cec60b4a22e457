//! Differences for people.

use super::{ClusterChange, Diff, Replay};
use crate::config::differ::KeyChange;
use serde_json::Value;
use std::fmt::Write as _;

/// Lines shown of each list; the JSON form has all.
const SHOWN: usize = 50;
/// Classes shown of one cluster.
const CLASSES_SHOWN: usize = 5;

/// The differences as lines.
pub fn text(diff: &Diff) -> String {
    let mut out = String::new();
    let nowhere = |cluster: &Option<String>| cluster.as_deref().unwrap_or("nowhere (404)").to_owned();
    let routes = diff.routes.iter();
    list(
        &mut out,
        "requests that go elsewhere",
        routes.map(|c| format!("{}  {} -> {}", c.class, nowhere(&c.was), nowhere(&c.is))),
    );
    for (name, cluster) in &diff.clusters {
        of_cluster(&mut out, name, cluster);
    }
    list(&mut out, "listeners", diff.listeners.iter().map(key));
    list(&mut out, "settings", diff.settings.iter().map(key));
    list(&mut out, "needs a restart, a running process keeps it", diff.restart.iter().cloned());
    if diff.is_empty() {
        out.push_str("nothing differs\n");
    }
    // Writing into a string cannot fail.
    if let Some(why) = &diff.refused {
        let _ = writeln!(out, "a reload would be refused: {why}");
    }
    if let Some(touched) = &diff.touched {
        let _ = writeln!(
            out,
            "under way now: {} exchanges with backends that go away, which end there; no client connection is closed",
            touched.exchanges
        );
    }
    if let Some(replay) = &diff.replay {
        of_replay(&mut out, replay);
    }
    out
}

/// The same for programs.
pub fn json(diff: &Diff) -> String {
    format!("{:#}", serde_json::json!(diff))
}

fn of_cluster(out: &mut String, name: &str, cluster: &ClusterChange) {
    let (was, is) = cluster.capacity;
    let percent = match was {
        0 => String::new(),
        _ if was == is => String::new(),
        _ => format!(" ({:+.0} %)", 100.0 * (is as f64 - was as f64) / was as f64),
    };
    let _ = writeln!(out, "cluster {name} {}: weight {was} -> {is}{percent}", cluster.what);
    cluster.backends.iter().chain(&cluster.policy).take(SHOWN).for_each(|change| {
        let _ = writeln!(out, "  {}", key(change));
    });
    more(out, cluster.backends.len() + cluster.policy.len(), SHOWN);
    if !cluster.classes.is_empty() {
        let shown = cluster.classes.iter().take(CLASSES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let rest = cluster.classes.len().saturating_sub(CLASSES_SHOWN);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let _ = writeln!(out, "  it has and keeps {shown}{rest}");
    }
}

fn of_replay(out: &mut String, replay: &Replay) {
    let Replay { requests, moved, lost, gained, other_backend, without_key, share, unrouted, .. } = replay;
    let _ = writeln!(
        out,
        "replayed {requests} requests: {:.2} % would meet another backend\n  \
         {moved} another cluster, {lost} nowhere from now on, {gained} somewhere only now, {other_backend:.1} another \
         backend of the same cluster",
        100.0 * share
    );
    if *without_key > 0 {
        let _ = writeln!(out, "  {without_key} by a key that the log does not tell (field key): counted as by chance");
    }
    if *unrouted > 0 {
        let _ = writeln!(out, "  {unrouted} further lines are of requests that no config routes");
    }
    for (rule, count) in &replay.most {
        let _ = writeln!(out, "  {count}  {rule}");
    }
}

fn key(change: &KeyChange) -> String {
    let shown = |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), Value::to_string);
    format!("{}  {} -> {}", change.path, shown(&change.was), shown(&change.is))
}

fn list(out: &mut String, what: &str, lines: impl ExactSizeIterator<Item = String>) {
    let all = lines.len();
    if all > 0 {
        let _ = writeln!(out, "{what}: {all}");
        lines.take(SHOWN).for_each(|line| {
            let _ = writeln!(out, "  {line}");
        });
        more(out, all, SHOWN);
    }
}

fn more(out: &mut String, all: usize, shown: usize) {
    if all > shown {
        let _ = writeln!(out, "  and {} more", all - shown);
    }
}
