//! What stands in no file, and in which file it does with a reason.

use crate::source::{Source, sources};

const PURE: &[&str] =
    &["http", "route", "config", "cores", "exchange", "supervisor", "metrics", "parse", "import", "limits", "event"];

/// Words that a pure room may not contain, with the reason.
const IMPURE: &[(&str, &str)] = &[
    ("async ", "a pure room never waits"),
    (".await", "a pure room never waits"),
    ("Instant::now", "time is an argument"),
    ("SystemTime::now", "time is an argument"),
    ("println!", "facts are returned, not printed"),
    ("eprintln!", "facts are returned, not printed"),
    ("print!", "facts are returned, not printed"),
    ("TcpStream", "no sockets here"),
    ("TcpListener", "no sockets here"),
    ("UnixStream", "no sockets here"),
    ("UnixListener", "no sockets here"),
    ("UdpSocket", "no sockets here"),
    ("thread::", "a pure room has no threads"),
    ("tracing::", "facts are returned, not logged"),
];

/// Pure rooms that read files: config has its pages and the file itself read by the shell, which hands it bytes.
const IMPURE_ALLOWED: &[(&str, &str, &str)] = &[];

/// Words that no product code contains, with the reason.
const BANNED: &[(&str, &str)] = &[
    (".unwrap()", "say what holds, or return the error"),
    (".expect(", "say what holds, or return the error"),
    ("panic!", "a fault of ours is an assert, a fault of others an error"),
    ("todo!", "unfinished"),
    ("unimplemented!", "unfinished"),
    ("unreachable!()", "say why it cannot be"),
    ("dbg!", "left behind"),
    ("process::exit", "only main ends the process"),
    ("mem::forget", "a leak"),
    ("static mut", "a race"),
    ("#[allow(dead_code)]", "delete it"),
];

/// Where a banned word stands for a reason: path prefix, word, at most how often, why.
const ALLOWED: &[(&str, &str, usize, &str)] = &[
    ("main.rs", "process::exit", 1, "the one place where the process ends"),
    ("config/answer.rs", ".expect(", 2, "own types with text keys always serialise"),
    ("config/state.rs", ".expect(", 1, "own types with text keys always serialise"),
    ("config/check.rs", ".expect(", 1, "own types with text keys always serialise"),
    ("worker/net/mem/", ".expect(", 4, "the simulated world: a broken one must stop the simulation"),
];

/// Where `unsafe` may stand.
const UNSAFE: &[(&str, &str)] = &[
    ("worker/net/", "system calls and the driver's owned buffers"),
    ("access_log/writer.rs", "poll(2) on a log file that does not take bytes"),
    ("control/lock.rs", "flock(2)"),
    ("control/socket.rs", "SO_PEERCRED"),
];

/// Lines without tests: from here on a file is named as large, and here it fails.
const LINES_LARGE: usize = 400;
const LINES_MAX: usize = 700;
const COLUMNS_MAX: usize = 150;

/// Offsets of a word, not inside a longer one.
fn offsets<'a>(source: &'a Source, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    source.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = source.code[..*at].chars().next_back();
        let begins_with_letter = word.starts_with(|c: char| c.is_alphabetic());
        !(begins_with_letter && before.is_some_and(|c| c.is_alphanumeric() || c == '_'))
    })
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn pure_rooms_are_pure() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| PURE.contains(&s.room())) {
        for (word, why) in IMPURE {
            if IMPURE_ALLOWED.iter().any(|(path, w, _)| source.path.starts_with(path) && w == word) {
                continue;
            }
            faults.extend(offsets(source, word).map(|at| format!("{}: {} ({why})", source.place(at), word.trim())));
        }
    }
    report(faults);
}

#[test]
fn banned_words_stand_nowhere() {
    let mut faults = Vec::new();
    for source in &sources() {
        for (word, why) in BANNED {
            let places: Vec<usize> = offsets(source, word).collect();
            let allowed = ALLOWED.iter().filter(|(path, w, ..)| source.path.starts_with(path) && w == word);
            if places.len() > allowed.map(|(_, _, n, _)| n).sum() {
                faults.extend(places.iter().map(|at| format!("{}: {word} ({why})", source.place(*at))));
            }
        }
    }
    report(faults);
}

#[test]
fn the_list_of_exceptions_is_not_longer_than_it_must_be() {
    let all = sources();
    for (path, word, n, why) in ALLOWED {
        let count: usize = all.iter().filter(|s| s.path.starts_with(path)).map(|s| offsets(s, word).count()).sum();
        assert!(count <= *n, "{path} holds {word} {count} times, {n} are allowed ({why})");
    }
}

#[test]
fn unsafe_stands_only_at_the_border() {
    let mut faults = Vec::new();
    for source in &sources() {
        if UNSAFE.iter().any(|(path, _)| source.path.starts_with(path)) {
            continue;
        }
        let places = offsets(source, "unsafe ").filter(|at| !source.code[*at..].starts_with("unsafe_"));
        faults.extend(places.map(|at| format!("{}: unsafe", source.place(at))));
    }
    report(faults);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut faults = Vec::new();
    for source in &sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for at in offsets(source, "unsafe ") {
            if source.code[at..].starts_with("unsafe extern") || source.code[at..].starts_with("unsafe fn") {
                continue;
            }
            let line = source.code[..at].matches('\n').count();
            let near = &lines[line.saturating_sub(8)..=line];
            if !near.iter().any(|l| l.contains("SAFETY") || l.contains("Safety")) {
                faults.push(format!("{}: no SAFETY comment in sight", source.place(at)));
            }
        }
    }
    report(faults);
}

#[test]
fn files_stay_small() {
    let mut faults = Vec::new();
    for source in &sources() {
        let lines = source.lines_without_tests();
        if lines > LINES_LARGE {
            println!("large: src/{} has {lines} lines without its tests", source.path);
        }
        if lines > LINES_MAX {
            faults.push(format!("src/{}: {lines} lines without tests; it tells two stories", source.path));
        }
        for (i, line) in source.text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX && !line.contains("http") {
                faults.push(format!("src/{}:{}: {} columns", source.path, i + 1, line.chars().count()));
            }
        }
    }
    report(faults);
}

#[test]
fn tests_are_not_switched_off() {
    let mut faults = Vec::new();
    let root = crate::source::root();
    for directory in ["src", "tests"] {
        for path in crate::source::rust_files(&root.join(directory)) {
            let text = std::fs::read_to_string(&path).expect("readable");
            let off = concat!("#[ig", "nore");
            if text.contains(off) {
                faults.push(format!("{}: {off}]", path.display()));
            }
        }
    }
    report(faults);
}
