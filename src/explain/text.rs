//! Explanations for people.

use super::{BackendSeen, ClusterSeen, Explanation};
use std::fmt::Write as _;

/// Width of the names of lines.
const WIDTH: usize = 10;
/// Rules shown of those that were beaten or missed, and backends; the JSON form has all.
const SHOWN: usize = 20;

/// The explanation as lines.
pub fn text(told: &Explanation) -> String {
    let mut out = String::new();
    line(&mut out, "listener", told.listener.as_deref().unwrap_or("none"));
    if told.answer.as_ref().is_none_or(|answer| answer.fault.is_none()) {
        let trusted = if told.trusted { " (the peer is a trusted proxy)" } else { "" };
        line(&mut out, "client", &format!("{}{trusted}", told.client.as_deref().unwrap_or("has no address")));
        line(&mut out, "host", if told.host.is_empty() { "none" } else { &told.host });
        line(&mut out, "path", if told.path.is_empty() { "/" } else { &told.path });
    }
    if let Some(rule) = &told.rule {
        line(&mut out, "rule", rule);
    }
    list(&mut out, "beaten", told.beaten.iter().map(|b| format!("{}  (by a {})", b.rule, b.by)));
    list(&mut out, "missed", told.missed.iter().map(|rule| format!("{rule}  (the path is another)")));
    if let Some(cluster) = &told.cluster {
        of_cluster(&mut out, cluster);
    }
    if let Some(answer) = &told.answer {
        line(&mut out, "answer", &format!("{} {}  {}", answer.status, answer.reason, answer.detail));
        if let Some((at, clause)) = &answer.fault {
            line(&mut out, "", &format!("at byte {at} of the head; {clause}"));
        }
    }
    if let Some(head) = &told.forwarded {
        for (nth, field) in head.lines().filter(|l| !l.is_empty()).enumerate() {
            line(&mut out, if nth == 0 { "goes on as" } else { "" }, field);
        }
    }
    out
}

/// The same for programs.
pub fn json(told: &Explanation) -> String {
    format!("{:#}", serde_json::json!(told))
}

fn of_cluster(out: &mut String, cluster: &ClusterSeen) {
    let key = match cluster.key {
        Some(key) => format!(", key {key:016x}"),
        None if cluster.balance.starts_with("hash") => ", and the request has no key: by load".to_owned(),
        None => String::new(),
    };
    line(out, "cluster", &format!("{}, {}{key}", cluster.name, cluster.balance));
    let width = cluster.backends.iter().map(|b| b.name.len()).max().unwrap_or(0);
    let one = |b: &BackendSeen| {
        let mut text = format!("{:width$}  {}  ", b.name, b.endpoint);
        // Writing into a string cannot fail.
        let _ = match &b.skipped {
            None if b.state == "up" => write!(text, "candidate, weight {}", b.weight),
            None => write!(text, "{}, and a candidate: the cluster fails open", b.state),
            Some(skipped) => write!(text, "skipped: {skipped}"),
        };
        if let (Some(_), Some(seconds)) = (&b.skipped, b.seconds) {
            let _ = write!(text, " for {seconds} s");
        }
        if let (Some(_), Some(why)) = (&b.skipped, &b.why) {
            let _ = write!(text, " ({why})");
        }
        text
    };
    list(out, "backends", cluster.backends.iter().map(one));
    let picked = cluster.pick.and_then(|index| cluster.backends.get(index));
    let pick = match (&cluster.waits, picked) {
        (Some(why), _) => format!("it waits: {why}"),
        (None, Some(backend)) => format!("{}  {}", backend.name, backend.endpoint),
        (None, None) if cluster.backends.iter().any(|b| b.candidate) => "one of the candidates".to_owned(),
        (None, None) => "nobody".to_owned(),
    };
    line(out, "pick", &pick);
}

fn list(out: &mut String, name: &str, items: impl Iterator<Item = String>) {
    let items: Vec<String> = items.collect();
    for (nth, item) in items.iter().take(SHOWN).enumerate() {
        line(out, if nth == 0 { name } else { "" }, item);
    }
    if items.len() > SHOWN {
        line(out, "", &format!("and {} more", items.len() - SHOWN));
    }
}

fn line(out: &mut String, name: &str, value: &str) {
    // Writing into a string cannot fail.
    let _ = writeln!(out, "{name:WIDTH$}  {}", value.trim_end());
}
