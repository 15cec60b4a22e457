//! Answers as text for people.

use super::Part;
use crate::config::answer::{BackendStatus, StateWord, Status};
use crate::config::orders::Wish;
use crate::config::receipt::{Errors, Receipt, Routes, Slow};
use crate::config::stories::Why;
use crate::status_page::span;
use std::fmt::Write as _;

/// What runs.
pub(super) fn status(status: &Status, part: Part) -> String {
    match part {
        Part::All => {
            let parts = [summary(status), backends(status), workers(status), counters(status)];
            parts.join("\n")
        }
        Part::Backends => backends(status),
        Part::Workers => workers(status),
        Part::Counters => counters(status),
    }
}

/// Which host and path leads where.
pub(super) fn routes(routes: &Routes) -> String {
    let mut rows = vec![row(["ROUTE", "CLUSTER"])];
    rows.extend(routes.routes.iter().map(|(route, cluster)| row([route, cluster])));
    aligned(&rows)
}

/// What went wrong lately.
pub(super) fn errors(errors: &Errors) -> String {
    let mut rows = vec![row(["TIME", "STATUS", "REASON", "CLIENT", "REQUEST", "BACKEND", "ID"])];
    for one in &errors.errors {
        let backend = match (&one.cluster, &one.backend) {
            (Some(cluster), Some(backend)) => format!("{cluster}/{backend}"),
            (Some(cluster), None) => cluster.clone(),
            _ => "-".to_owned(),
        };
        rows.push(row([
            crate::access_log::rfc3339(one.at),
            one.status.to_string(),
            one.reason.clone(),
            one.client.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{} {}{}", one.method, one.host, one.path),
            backend,
            one.request_id.clone().unwrap_or_else(|| "-".to_owned()),
        ]));
    }
    let mut text = format!("{}{} in all, {} shown\n", aligned(&rows), errors.total, errors.errors.len());
    text.push_str(&malformed(errors));
    text
}

/// The stories of exchanges.
pub(super) fn stories(why: &Why) -> String {
    let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
    let mut text = String::new();
    for one in &why.stories {
        let (at, host, path) = (crate::access_log::rfc3339(one.at), &one.host, &one.path);
        let client = one.client.as_deref().unwrap_or("-");
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{at}  {} {host}{path}  from {client}, worker {}, generation {}",
            one.method, one.core, one.generation
        );
        let _ = writeln!(text, "  id        {}", if one.request_id.is_empty() { "none" } else { &one.request_id });
        let space = if one.detail.is_empty() { "" } else { "  " };
        let _ = writeln!(text, "  end       {} {}{space}{}", one.status, one.reason, one.detail);
        let _ = writeln!(text, "  bytes     {} of the request's body, {} to the client", one.received, one.bytes);
        if let Some(cluster) = &one.cluster {
            let _ = writeln!(text, "  cluster   {cluster}");
        }
        if !one.phases.is_empty() {
            let phases: Vec<String> = one.phases.iter().map(|(name, us)| format!("{name} {}", ms(*us))).collect();
            let _ = writeln!(text, "  time      {}", phases.join(", "));
        }
        for (nth, attempt) in one.attempts.iter().enumerate() {
            let connection = match attempt.reused {
                Some(true) => "a pooled connection",
                Some(false) => "a new connection",
                None => "no connection",
            };
            let _ = writeln!(
                text,
                "  attempt {} {} ({}), {connection}, {}: {}",
                nth + 1,
                attempt.backend,
                attempt.endpoint,
                ms(attempt.took_us),
                attempt.outcome
            );
            let handed = attempt.handed.map_or("all of what was there".to_owned(), |bytes| format!("{bytes} bytes"));
            let kernel = match (attempt.acknowledged, attempt.received) {
                (Some(acknowledged), Some(received)) => {
                    format!("; on this connection {acknowledged} bytes were acknowledged and {received} came back")
                }
                _ => String::new(),
            };
            let _ = writeln!(text, "            handed over: {handed}{kernel}");
            if !attempt.then.is_empty() {
                let _ = writeln!(text, "            {}", attempt.then);
            }
        }
    }
    text
}

/// What makes the workers work.
pub(super) fn slow(slow: &Slow) -> String {
    let percent = |part: u64, whole: u64| part * 100 / whole.max(1);
    let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
    let mut text = String::new();
    for core in &slow.cores {
        let (ran, waited) = (percent(core.cpu_us, core.took_us), percent(core.waited_us, core.took_us));
        let _ = writeln!(
            text,
            "worker {}: in {} it ran for {ran} % and waited for its CPU for {waited} %; longest turn so far {}; {} connections at work",
            core.core,
            ms(core.took_us),
            ms(core.longest_turn_us),
            core.connections
        );
        if core.hogs.is_empty() {
            continue;
        }
        let mut rows =
            vec![row(["SHARE", "CLIENT", "LISTENER", "CLUSTER", "REQUESTS", "RECEIVED", "SENT", "LONGEST STRETCH"])];
        for hog in &core.hogs {
            let bytes = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n} B"));
            rows.push(row([
                format!("{}.{} %", hog.share_permille / 10, hog.share_permille % 10),
                hog.client.clone(),
                hog.listener.clone(),
                hog.cluster.clone().unwrap_or_else(|| "-".to_owned()),
                hog.requests.to_string(),
                bytes(hog.received),
                bytes(hog.sent),
                ms(hog.longest_us),
            ]));
        }
        for line in aligned(&rows).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    for core in &slow.silent {
        let _ = writeln!(text, "worker {core} has not answered in time");
    }
    text
}

/// The messages that were refused: of each side and reason the newest.
fn malformed(errors: &Errors) -> String {
    let mut text = String::new();
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for one in &errors.malformed {
        let kind = (one.side.as_str(), one.reason.as_str());
        if kinds.contains(&kind) {
            continue;
        }
        kinds.push(kind);
        let alike =
            errors.malformed.iter().filter(|other| (other.side.as_str(), other.reason.as_str()) == kind).count();
        let time = crate::access_log::rfc3339(one.at);
        let _ = writeln!(text, "\n{time} {} from {}: {} {}", one.side, one.peer, one.status, one.reason);
        let _ = writeln!(text, "  {} ({})", one.detail, one.clause);
        let lead = format!("  byte {}: ", one.offset);
        let (blank, width) = ("", lead.len() + one.column);
        let _ = writeln!(text, "{lead}{}\n{blank:width$}^", one.around);
        let mut told = vec![format!("listener {}, worker {}, number {}", one.listener, one.core, one.number)];
        if one.left_out > 0 {
            told.push(format!("{} bytes of body before this line left out", one.left_out));
        }
        if one.masked > 0 {
            told.push(format!("{} bytes of secrets masked", one.masked));
        }
        if one.partial {
            told.push("what is kept does not have the fault by itself".to_owned());
        }
        if alike > 1 {
            told.push(format!("{} more like it kept", alike - 1));
        }
        let _ = writeln!(text, "  {}", told.join("; "));
    }
    if errors.malformed_total > 0 {
        let (all, kept) = (errors.malformed_total, errors.malformed.len());
        let _ = writeln!(text, "\n{all} refused messages in all, {kept} kept");
    }
    text
}

/// Proof of a change.
pub(super) fn receipt(receipt: &Receipt) -> String {
    let mut text = format!(
        "generation {}, epoch {}, on {} of {} workers ({} ms)\n  {}\n  running config: sha256 {}, {} patches over the file\n",
        receipt.generation,
        receipt.epoch,
        receipt.acknowledged,
        receipt.workers,
        receipt.took_ms,
        receipt.claim,
        receipt.hash,
        receipt.patches
    );
    let acks: Vec<String> = receipt.acks.iter().map(|ack| format!("{} after {} us", ack.core, ack.after_us)).collect();
    let _ = writeln!(text, "  taken over by worker {}", acks.join(", "));
    for (what, names) in &receipt.changed {
        let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let more = names.len().saturating_sub(NAMES_SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(text, "  {}: {shown}{more}", what.replace('_', " "));
    }
    match receipt.saved {
        Some(true) => text.push_str("  saved: it survives a restart\n"),
        Some(false) => text.push_str("  NOT saved: it does not survive a restart\n"),
        None => {}
    }
    if receipt.left.as_ref().is_some_and(Vec::is_empty) {
        text.push_str("  drained: nothing is left on what was taken away\n");
    }
    for warning in &receipt.warnings {
        let _ = writeln!(text, "  warning: {warning}");
    }
    text
}

/// Names of one kind in a receipt for people.
const NAMES_SHOWN: usize = 20;

fn summary(status: &Status) -> String {
    let state = if status.draining { "draining" } else { "serving" };
    let mut text = format!(
        "ringway {}, {state} for {}, {}, generation {}, epoch {}\n",
        status.version,
        span(status.uptime),
        status.driver,
        status.generation,
        status.epoch
    );
    for (name, listener) in &status.listeners {
        let _ = writeln!(text, "listener {name} on {}", listener.address);
    }
    text
}

fn backends(status: &Status) -> String {
    let now = status.since + status.uptime;
    let mut rows =
        vec![row(["CLUSTER", "BACKEND", "ADDRESS", "STATE", "SINCE", "REQUESTS", "5XX", "FAILED", "NOW", "WHY"])];
    for (cluster, entry) in &status.clusters {
        if let Some(pause) = &entry.paused {
            let why = pause.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let left = span(pause.until.saturating_sub(now));
            let why = format!("paused by {} for {left} more{why}", pause.who);
            rows.push(row([
                cluster,
                "-",
                "-",
                "PAUSED",
                &span(now.saturating_sub(pause.since)),
                "-",
                "-",
                "-",
                "-",
                &why,
            ]));
        }
        if entry.queued + entry.queue_full + entry.queue_timeouts > 0 {
            let waited = format!("of {} requests that had to wait", entry.waited);
            let lost = format!("{} were too many and {} took too long", entry.queue_full, entry.queue_timeouts);
            let why = format!("{waited}, {lost}");
            rows.push(row([cluster, "-", "-", "queue", "-", "-", "-", "-", &entry.queued.to_string(), &why]));
        }
        for (name, b) in &entry.backends {
            rows.push(row([
                cluster,
                name,
                &b.endpoint,
                word(b.state),
                &span(now.saturating_sub(b.since)),
                &b.requests.to_string(),
                &b.statuses[4].to_string(),
                &(b.connect_errors + b.resets + b.timeouts).to_string(),
                &b.max_conns.map_or_else(|| b.in_flight.to_string(), |most| format!("{}/{most}", b.in_flight)),
                &why(b, now),
            ]));
        }
        for (name, why) in &entry.unresolved {
            rows.push(row([cluster, name, "-", "?", "-", "-", "-", "-", "-", &format!("does not resolve: {why}")]));
        }
        if entry.backends.is_empty() && entry.unresolved.is_empty() {
            rows.push(row([cluster, "-", "-", "empty", "-", "-", "-", "-", "-", "every request is answered with 503"]));
        }
    }
    aligned(&rows)
}

fn word(state: StateWord) -> &'static str {
    match state {
        StateWord::Up => "up",
        StateWord::Down => "DOWN",
        StateWord::Drain => "drain",
        StateWord::Maint => "maint",
        StateWord::Other => "?",
    }
}

/// Why a backend is in its state, layer by layer.
fn why(b: &BackendStatus, now: u64) -> String {
    let mut parts: Vec<String> = b.why.iter().cloned().collect();
    if b.observed != b.state {
        parts.insert(0, format!("observed {}", word(b.observed)));
    }
    if let Some(at) = b.next_probe {
        parts.push(format!("probe in {}", span(at.saturating_sub(now))));
    }
    for said in &b.overrides {
        let what = match said.set {
            Wish::Drain => "drained".to_owned(),
            Wish::Maint => "in maintenance".to_owned(),
            Wish::Weight(weight) => format!("weight {weight}"),
            Wish::Up => "up".to_owned(),
        };
        let mut part = format!("{what} by {} {} ago", said.who, span(now.saturating_sub(said.since)));
        if let Some(until) = said.until {
            let _ = write!(part, " for {} more", span(until.saturating_sub(now)));
        }
        if let Some(why) = &said.why {
            let _ = write!(part, ": {why}");
        }
        parts.push(part);
    }
    parts.join("; ")
}

fn workers(status: &Status) -> String {
    let mut rows = vec![row([
        "WORKER",
        "LOAD",
        "LAG",
        "CONNECTIONS",
        "IDLE",
        "BUSY",
        "EXCHANGES",
        "HANDED OUT/IN",
        "MOVED OUT/IN",
        "POOLED",
        "BUFFERS",
        "PIPES",
        "EPOCH",
        "LONGEST TURN",
        "OVER 5 MS",
    ])];
    let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
    for w in &status.workers {
        let [core, connections, idle, busy, exchanges] =
            [w.core as u64, w.connections, w.idle, w.busy, w.exchanges].map(|n| n.to_string());
        let [pooled, buffers, pipes, epoch, over] =
            [w.pooled, w.buffers, w.pipes, w.epoch, w.turns_over_5ms].map(|n| n.to_string());
        let load = format!("{}.{} %", w.load_permille / 10, w.load_permille % 10);
        let [handed, moved] = [[w.handed_out, w.handed_in], [w.moved_out, w.moved_in]].map(|[o, i]| format!("{o}/{i}"));
        let [lag, longest] = [w.lag_us, w.longest_turn_us].map(ms);
        rows.push(row([
            core,
            load,
            lag,
            connections,
            idle,
            busy,
            exchanges,
            handed,
            moved,
            pooled,
            buffers,
            pipes,
            epoch,
            longest,
            over,
        ]));
    }
    aligned(&rows)
}

fn counters(status: &Status) -> String {
    let rows: Vec<Vec<String>> =
        status.counters.iter().map(|(name, n)| row([name.replace('_', " "), n.to_string()])).collect();
    aligned(&rows)
}

fn row<S: ToString, const N: usize>(cells: [S; N]) -> Vec<String> {
    cells.iter().map(S::to_string).collect()
}

/// Columns two spaces apart.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::answer::{ClusterStatus, Worker};
    use std::collections::BTreeMap;

    #[test]
    fn times_are_short() {
        assert_eq!(span(0), "0s");
        assert_eq!(span(59), "59s");
        assert_eq!(span(61), "1m 1s");
        assert_eq!(span(90_000), "1d 1h");
    }

    #[test]
    fn the_table_tells_who_is_down_since_when_and_why() {
        let mut status = Status::new();
        (status.since, status.uptime, status.generation) = (1000, 100, 7);
        status.workers.push(Worker { core: 0, exchanges: 42, ..Worker::default() });
        let down = BackendStatus {
            endpoint: "127.0.0.1:1".into(),
            state: StateWord::Down,
            since: 1090,
            why: Some("3 connect errors or resets in a row".into()),
            next_probe: Some(1120),
            ..BackendStatus::default()
        };
        let backends = BTreeMap::from([("b1".to_owned(), down), ("b2".to_owned(), BackendStatus::default())]);
        let unresolved = BTreeMap::from([("b3".to_owned(), "db.internal: no such name".to_owned())]);
        status.clusters.insert("app".into(), ClusterStatus { backends, unresolved, ..ClusterStatus::default() });
        status.clusters.insert("none".into(), ClusterStatus::default());
        let text = super::status(&status, Part::All);
        let line = |word: &str| text.lines().find(|l| l.contains(word)).unwrap_or_else(|| panic!("{word} in\n{text}"));
        assert!(line("b1").contains("DOWN   10s"), "{text}");
        assert!(line("b1").ends_with("3 connect errors or resets in a row; probe in 20s"));
        assert!(line("b3").ends_with("does not resolve: db.internal: no such name"));
        assert!(line("none").contains("503"));
        assert!(text.starts_with("ringway ") && text.contains("generation 7") && text.contains("42"));
    }
}
