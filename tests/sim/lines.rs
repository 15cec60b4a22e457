//! What the access log says of a seed, against what its clients have seen.
//!
//! Each connection has an address of its own, and its exchanges are logged in their order: so each line belongs to one
//! request of one client, and each request that was served has one line.

use super::ledger::{Entry, Ledger, Seen};
use super::plan::Manner;
use serde_json::Value;
use std::collections::HashMap;

/// One line, as far as it is judged.
#[derive(Debug)]
struct Line {
    client: String,
    method: String,
    host: String,
    path: String,
    status: u16,
    bytes: u64,
    cluster: Option<String>,
    retries: u64,
    reason: String,
}

impl Line {
    fn parse(text: &str) -> Option<Line> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text = |key: &str| value[key].as_str().map(str::to_string);
        Some(Line {
            client: text("client")?,
            method: text("method")?,
            host: text("host")?,
            path: text("path")?,
            status: value["status"].as_u64()?.try_into().ok()?,
            bytes: value["bytes"].as_u64()?,
            cluster: text("cluster"),
            retries: value["retries"].as_u64()?,
            reason: text("reason")?,
        })
    }
}

/// Judges a whole log. `exchanges` have ended on all cores; of their lines so many were dropped.
pub fn judge(log: &str, ledger: &Ledger, exchanges: u64, dropped: u64) {
    let mut by_client: HashMap<String, Vec<Line>> = HashMap::new();
    let mut count = 0;
    for text in log.lines() {
        count += 1;
        match Line::parse(text) {
            Some(line) => by_client.entry(line.client.clone()).or_default().push(line),
            None => ledger.violation(format!("no line of a log: {text}")),
        }
    }
    if count + dropped != exchanges {
        ledger.violation(format!("{count} lines and {dropped} dropped ones tell of {exchanges} exchanges"));
    }
    if dropped > 0 {
        // Which of them are missing cannot be known.
        return;
    }
    for (client, ids) in ledger.connections.borrow().iter() {
        let lines = by_client.remove(&client.to_string()).unwrap_or_default();
        connection(&lines, ids, ledger);
    }
    for line in by_client.into_values().flatten() {
        ledger.violation(format!("a line of nobody: {line:?}"));
    }
}

/// The lines of one connection, in order, against its requests.
fn connection(lines: &[Line], ids: &[usize], ledger: &Ledger) {
    let entries = ledger.entries.borrow();
    let mut wrong = Vec::new();
    for (k, line) in lines.iter().enumerate() {
        let verdict = match ids.get(k).map(|id| &entries[*id]) {
            Some(entry) => judge_line(line, entry, ledger),
            // Tunnel bytes that came behind an upgrade which was refused are a request, and a malformed one.
            None if k == ids.len() && ids.last().is_some_and(|id| entries[*id].plan.script.switch) => Ok(()),
            None => Err("is about no request"),
        };
        if let Err(why) = verdict {
            wrong.push(format!("a line {why}: {line:?}; {:?}", ids.get(k).map(|id| &entries[*id])));
        }
    }
    for id in ids.iter().skip(lines.len()) {
        let entry = &entries[*id];
        if entry.arrivals > 0 || entry.seen.status.is_some() {
            wrong.push(format!("an exchange has no line: {entry:?}"));
        }
    }
    drop(entries);
    wrong.into_iter().for_each(|what| ledger.violation(what));
}

fn judge_line(line: &Line, entry: &Entry, ledger: &Ledger) -> Result<(), &'static str> {
    let plan = &entry.plan;
    if entry.began_us.is_none() || entry.unserved {
        return Err("is about a request that was not served");
    }
    let malformed = matches!(plan.manner, Manner::Malformed(_));
    if line.path.is_empty() {
        let refused =
            ["REJECTED", "TLS_HELLO", "CLIENT_TIMEOUT", "CLIENT_TRUNCATED", "DRAINED"].contains(&line.reason.as_str());
        if !refused || line.cluster.is_some() || entry.arrivals > 0 {
            return Err("tells nothing of a request that was understood");
        }
    } else if malformed {
        return Err("tells of a request that is none");
    } else {
        let host = plan.cluster.map_or("nobody.test".into(), |c| format!("c{c}.test"));
        if (&*line.method, &line.host, &line.path) != (plan.method, &host, &format!("/x/{}", plan.id)) {
            return Err("is about another request");
        }
        let unknown = line.cluster.is_none() && line.reason == "NO_ROUTE";
        if !unknown && line.cluster != plan.cluster.map(|c| format!("c{c}")) {
            return Err("names another cluster");
        }
        let retries = plan.cluster.map_or(0, |c| ledger.rules.policies[c].retries);
        if line.retries > u64::from(retries) || entry.arrivals as u64 > line.retries + 1 {
            return Err("counts other retries");
        }
    }
    if line.reason == "FAIL_OPEN"
        && !plan.cluster.is_some_and(|c| ledger.rules.policies[c].fail_open > 0 || line.retries > 0)
    {
        return Err("fails open where that is not wanted");
    }
    agree(line, &entry.seen, plan.expect || plan.script.interims > 0)?;
    // Who has left by itself knows neither how it would have ended nor how much would have come.
    let left = matches!(
        plan.manner,
        Manner::CutRequest { .. } | Manner::GoAway { .. } | Manner::CutResponse { .. } | Manner::StopReading
    );
    if left { Ok(()) } else { ended(line, &entry.seen) }
}

/// Status and bytes, against what the client has seen of the response.
fn agree(line: &Line, seen: &Seen, interims: bool) -> Result<(), &'static str> {
    if line.bytes < seen.bytes as u64 {
        return Err("counts fewer bytes than came");
    }
    if line.status != 0 && line.bytes == 0 {
        return Err("has a status without bytes");
    }
    if line.status == 0 && line.bytes > 0 && !interims {
        return Err("has bytes without a status");
    }
    if seen.status.is_some_and(|status| status != line.status) {
        return Err("has another status than the response");
    }
    Ok(())
}

/// The reason, against how the response ended.
fn ended(line: &Line, seen: &Seen) -> Result<(), &'static str> {
    let Some(status) = seen.status else { return Ok(()) };
    let reasons: &[&str] = match (seen.own, status) {
        (false, 101) => &["TUNNEL", "TUNNEL_IDLE", "DRAINED", "CLIENT_ABORT"],
        (true, 404) => &["NO_ROUTE"],
        (true, 408) => &["CLIENT_TIMEOUT", "CLIENT_SLOW"],
        (true, 413) => &["BODY_TOO_LARGE"],
        (true, 502) => &["CONNECT_FAILED", "BACKEND_CLOSED", "BAD_RESPONSE"],
        (true, 503) => &["NO_BACKEND", "BUSY", "DRAINED", "QUEUE_FULL", "QUEUE_TIMEOUT"],
        (true, 504) => &["CONNECT_TIMEOUT", "BACKEND_TIMEOUT"],
        (true, 400) => &["REJECTED", "TLS_HELLO", "CLIENT_TRUNCATED"],
        (true, 401..) => &["REJECTED"],
        // Of the last kind is garbage that is a good response to a HEAD.
        (false, _) | (true, _) if seen.whole => &["OK"],
        _ => &[
            "CLIENT_ABORT",
            "CLIENT_TIMEOUT",
            "CLIENT_SLOW",
            "CLIENT_TRUNCATED",
            "BODY_TOO_LARGE",
            "REJECTED",
            "BACKEND_TRUNCATED",
            "BACKEND_STALLED",
            "BAD_RESPONSE",
            "DRAINED",
        ],
    };
    // By a backend that is down: the cluster fails open, or a retry had nobody left who is up.
    let last_resort = line.reason == "FAIL_OPEN" && reasons.contains(&"OK");
    if !reasons.contains(&line.reason.as_str()) && !last_resort {
        return Err("has a reason that does not fit");
    }
    if seen.whole && status != 101 && line.bytes != seen.bytes as u64 {
        return Err("counts more bytes than the response has");
    }
    Ok(())
}
