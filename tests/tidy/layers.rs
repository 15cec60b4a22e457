//! Who may name whom.

use crate::source::{Source, sources};

/// Each room with the rooms that it may name, besides itself. `limits` is open to all.
const LAYERS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("http", &[]),
    ("route", &[]),
    ("sync", &[]),
    ("parse", &["http"]),
    ("affinity", &["http", "route"]),
    ("import", &["config"]),
    ("explain", &["affinity", "config", "exchange", "http", "publish", "route"]),
    ("diff", &["affinity", "config", "explain", "http", "route"]),
    ("status_page", &["access_log", "config", "explain", "route"]),
    ("publish", &["route", "config", "sync"]),
    ("config", &["http", "route"]),
    ("cores", &[]),
    ("stories", &[]),
    ("malformed", &["http"]),
    ("event", &["config", "cores", "stories", "malformed", "route", "publish"]),
    ("exchange", &["http", "route"]),
    ("supervisor", &["config", "event", "exchange", "http", "publish", "route"]),
    ("access_log", &["config", "event", "route"]),
    (
        "worker",
        &[
            "access_log",
            "affinity",
            "config",
            "cores",
            "event",
            "exchange",
            "stories",
            "http",
            "malformed",
            "publish",
            "route",
        ],
    ),
    ("metrics", &["event", "exchange", "publish", "route"]),
    (
        "control",
        &[
            "access_log",
            "config",
            "cores",
            "diff",
            "event",
            "explain",
            "http",
            "malformed",
            "metrics",
            "parse",
            "publish",
            "route",
            "status_page",
            "stories",
            "supervisor",
            "worker",
        ],
    ),
    ("lib", &[]),
];

/// Rooms above all layers: the program's own plumbing.
const ABOVE: &[&str] = &["main", "demo", "doctor", "start", "ctl", "cli", "run"];

/// What control may know of the worker: how one is started, nothing of how it works.
const WORKER_FOR_CONTROL: &[&str] = &["net", "start", "Start", "Given", "Doorbell", "doorbell"];

/// The names behind each `crate::`, also those in braces.
fn named(source: &Source) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("crate::") {
        let before = source.code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &source.code[at + 7..];
        let word = |s: &str| -> String { s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
        if !rest.starts_with('{') {
            let second = rest[word(rest).len()..].strip_prefix("::").map(word).unwrap_or_default();
            found.push((at, vec![word(rest), second]));
            continue;
        }
        let mut depth = 0;
        let mut begin = 1;
        for (i, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if (c == ',' && depth == 1) || depth == 0 {
                let name = word(rest[begin..i].trim_start());
                if !name.is_empty() {
                    found.push((at, vec![name, String::new()]));
                }
                begin = i + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

#[test]
fn left_never_names_right() {
    let all = sources();
    let mut faults = Vec::new();
    for source in &all {
        if ABOVE.contains(&source.room()) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(room, _)| *room == source.room()) else {
            faults.push(format!("src/{}: a new room; give it a place in LAYERS", source.path));
            continue;
        };
        for (at, names) in named(source) {
            let room = &names[0];
            let known = LAYERS.iter().any(|(r, _)| r == room) || ABOVE.contains(&room.as_str());
            let fine = room == "limits" || room == source.room() || allowed.contains(&room.as_str());
            if known && !fine {
                faults.push(format!("{}: {} names {room}", source.place(at), source.room()));
            }
            if source.room() == "control" && room == "worker" && !WORKER_FOR_CONTROL.contains(&names[1].as_str()) {
                faults.push(format!("{}: control looks into worker::{}", source.place(at), names[1]));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_room_stands_in_lib() {
    let lib = sources().into_iter().find(|s| s.path == "lib.rs").expect("lib.rs");
    for source in sources() {
        let room = source.room();
        if source.path.matches('/').count() == 0 && !["lib", "main"].contains(&room) && !ABOVE.contains(&room) {
            assert!(lib.code.contains(&format!("mod {room};")), "{room} is not declared in lib.rs");
        }
    }
}
