//! `ringway ctl`: the other end of the control socket, for people and scripts.

use crate::config::answer::{Answer, Code, Error, Id, Outcome, Reloaded, StateWord, Status};
use crate::config::command::{Command, Hello, Reload, Request, VERSION};
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest a request may take: a reload waits for names and workers.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no good answer.
#[derive(Debug)]
pub enum Failure {
    /// The config that was sent is bad, with all its faults in text: exit code 2.
    Config(String),
    /// Anything else: exit code 1.
    Other(String),
}

/// Has the running process take over a config: `file`'s text, or the file it was started with. Returns what to print.
///
/// # Errors
/// See [`Failure`].
pub fn reload(socket: &Path, file: Option<&Path>) -> Result<String, Failure> {
    let mut args = Reload::default();
    if let Some(file) = file {
        let said = |e: io::Error| Failure::Other(format!("{}: {e}", file.display()));
        args.content = Some(std::fs::read_to_string(file).map_err(said)?);
        args.file = Some(std::path::absolute(file).map_err(said)?.to_string_lossy().into_owned());
    }
    let shown = file.map_or_else(|| "config".to_owned(), |file| file.display().to_string());
    let done: Reloaded = ask(socket, Command::Reload(args), &shown)?;
    let mut text = format!(
        "generation {} runs on {} of {} workers ({} ms)\n",
        done.generation, done.acknowledged, done.workers, done.took_ms
    );
    for (what, names) in &done.changed {
        let _ = writeln!(text, "  {}: {}", what.replace('_', " "), names.join(", "));
    }
    Ok(text)
}

/// What runs: for people, or with `json` as it came. Returns what to print.
///
/// # Errors
/// See [`Failure`].
pub fn status(socket: &Path, json: bool) -> Result<String, Failure> {
    if json {
        let value: serde_json::Value = ask(socket, Command::Status, "")?;
        return Ok(format!("{value:#}\n"));
    }
    ask(socket, Command::Status, "").map(|status| table(&status))
}

/// The socket of the config that `run` would take, for when none is named.
///
/// # Errors
/// A sentence for people.
pub fn default_socket(files: &[&str]) -> Result<PathBuf, String> {
    let file = files.iter().find(|file| Path::new(file).exists());
    let plan = file.and_then(|file| crate::config::check::load(&std::fs::read_to_string(file).ok()?, file).ok());
    plan.and_then(|plan| plan.control_socket)
        .ok_or_else(|| format!("which socket? Give --socket PATH (no \"control.socket\" in {})", files.join(" or ")))
}

fn ask<T: DeserializeOwned>(socket: &Path, command: Command, file: &str) -> Result<T, Failure> {
    let said = |e: io::Error| Failure::Other(format!("{}: {e}", socket.display()));
    let garbled = || Failure::Other(format!("{}: this is not a ringway of a version I know", socket.display()));
    let stream = UnixStream::connect(socket).map_err(said)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(said)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(said)?;
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line).map_err(said)?;
    let hello: Hello = serde_json::from_str(&line).map_err(|_| refusal(&line).unwrap_or_else(garbled))?;
    if hello.v != VERSION {
        return Err(garbled());
    }
    (&stream).write_all(Request { id: Id::Number(1), command }.to_line().as_bytes()).map_err(said)?;
    line.clear();
    if reader.read_line(&mut line).map_err(said)? == 0 {
        return Err(Failure::Other(format!("{}: closed without an answer", socket.display())));
    }
    let answer: Answer = serde_json::from_str(&line).map_err(|_| garbled())?;
    match answer.outcome {
        Outcome::Ok(value) => serde_json::from_value(value).map_err(|_| garbled()),
        Outcome::Error(error) => Err(failure(error, file)),
    }
}

/// The reason of a server that lets nobody in.
fn refusal(line: &str) -> Option<Failure> {
    match serde_json::from_str::<Answer>(line).ok()?.outcome {
        Outcome::Error(error) => Some(failure(error, "")),
        Outcome::Ok(_) => None,
    }
}

fn failure(error: Error, file: &str) -> Failure {
    if error.code != Code::BadConfig {
        return Failure::Other(error.message);
    }
    let mut text = error.message;
    for fault in &error.faults {
        let _ = write!(text, "\n{file}:{}:{}: {}: {}", fault.line, fault.column, fault.path, fault.message);
        if let Some(suggestion) = &fault.suggestion {
            let _ = write!(text, " ({suggestion})");
        }
    }
    Failure::Config(text)
}

fn table(status: &Status) -> String {
    let now = status.since + status.uptime;
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
    text.push('\n');

    let mut rows =
        vec![row(["CLUSTER", "BACKEND", "ADDRESS", "STATE", "SINCE", "REQUESTS", "5XX", "FAILED", "NOW", "WHY"])];
    for (cluster, entry) in &status.clusters {
        for (name, b) in &entry.backends {
            let mut why = b.why.clone().unwrap_or_default();
            if let Some(at) = b.next_probe {
                let _ = write!(why, "; probe in {}", span(at.saturating_sub(now)));
            }
            let word = match b.state {
                StateWord::Up => "up",
                StateWord::Down => "DOWN",
                StateWord::Drain => "drain",
                StateWord::Maint => "maint",
                StateWord::Other => "?",
            };
            rows.push(row([
                cluster,
                name,
                &b.endpoint,
                word,
                &span(now.saturating_sub(b.since)),
                &b.requests.to_string(),
                &b.statuses[4].to_string(),
                &(b.connect_errors + b.resets + b.timeouts).to_string(),
                &b.in_flight.to_string(),
                &why,
            ]));
        }
        for (name, why) in &entry.unresolved {
            rows.push(row([cluster, name, "-", "?", "-", "-", "-", "-", "-", &format!("does not resolve: {why}")]));
        }
        if entry.backends.is_empty() && entry.unresolved.is_empty() {
            rows.push(row([cluster, "-", "-", "empty", "-", "-", "-", "-", "-", "every request is answered with 503"]));
        }
    }
    text.push_str(&aligned(&rows));
    text.push('\n');

    let mut rows = vec![row(["WORKER", "CONNECTIONS", "IDLE", "EXCHANGES", "POOLED", "EPOCH"])];
    for w in &status.workers {
        rows.push(row([w.core as u64, w.connections, w.idle, w.exchanges, w.pooled, w.epoch].map(|n| n.to_string())));
    }
    text.push_str(&aligned(&rows));
    text.push('\n');
    let named: Vec<String> =
        status.counters.iter().map(|(name, n)| format!("{} {n}", name.replace('_', " "))).collect();
    let _ = writeln!(text, "{}", named.join(", "));
    text
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

/// A time in its two largest units.
fn span(seconds: u64) -> String {
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    let shown: Vec<String> = parts[first..].iter().take(2).map(|(n, unit)| format!("{n}{unit}")).collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::answer::{BackendStatus, ClusterStatus, Worker};
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
        status.clusters.insert("app".into(), ClusterStatus { backends, unresolved });
        status.clusters.insert("none".into(), ClusterStatus::default());
        let text = table(&status);
        let line = |word: &str| text.lines().find(|l| l.contains(word)).unwrap_or_else(|| panic!("{word} in\n{text}"));
        assert!(line("b1").contains("DOWN   10s"), "{text}");
        assert!(line("b1").ends_with("3 connect errors or resets in a row; probe in 20s"));
        assert!(line("b3").ends_with("does not resolve: db.internal: no such name"));
        assert!(line("none").contains("503"));
        assert!(text.starts_with("ringway ") && text.contains("generation 7") && text.contains("42"));
    }
}
