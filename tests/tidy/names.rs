//! Which file may name which crate.

use crate::source::{root, rust_files, sources};
use std::fs;

/// A word with the paths (prefixes below `src/`) that may hold it.
const ONLY: &[(&str, &[&str], &str)] = &[
    ("monoio", &["worker/net/"], "the event loop is behind the IO seam"),
    ("io_uring", &["worker/net/"], "the ring is behind the IO seam"),
    ("httparse", &["http/head.rs"], "one file tokenises heads"),
    (
        "serde",
        &["config/", "control/", "ctl", "access_log/", "explain/", "diff/"],
        "only what reads config or prints JSON",
    ),
    (
        "serde_json",
        &["config/", "control/", "ctl", "access_log/", "diff/", "explain/", "parse/", "main.rs", "demo"],
        "only what prints JSON",
    ),
    ("schemars", &["config/"], "the schema is derived from the config file's shape"),
    ("jsonc_parser", &["config/"], "only the config is read with places"),
    ("clap", &["main.rs", "cli/", "ctl"], "argv is read once"),
    ("clap_complete", &["cli/"], "what the command line tells of itself"),
    ("clap_mangen", &["cli/"], "what the command line tells of itself"),
    ("socket2", &["worker/net/", "control/", "main.rs"], "listeners are made in few places"),
    ("signal_hook", &["control/", "main.rs"], "signals are bytes on a descriptor of control"),
    ("crossbeam_channel", &["worker/", "control/", "access_log/", "event.rs", "main.rs"], "between threads only"),
    ("mimalloc", &["main.rs"], "the binary chooses the allocator"),
    ("mio", &["control/"], "control's poll loop"),
    ("prometheus_client", &["metrics/"], "one room writes the text"),
];

#[test]
fn crates_are_named_where_they_belong() {
    let mut faults = Vec::new();
    for source in sources() {
        for (word, homes, why) in ONLY {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            for (at, _) in source.code.match_indices(word) {
                let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                let whole =
                    !letter(source.code[..at].chars().next_back()) && source.code[at + word.len()..].starts_with("::");
                if whole {
                    faults.push(format!("{}: {word} ({why})", source.place(at)));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_file_without_a_subject() {
    for source in sources() {
        let file = source.path.rsplit('/').next().unwrap_or_default();
        for bad in ["util", "utils", "common", "helpers", "helper", "manager", "types", "misc"] {
            assert!(file != format!("{bad}.rs") && !source.path.contains(&format!("/{bad}/")), "src/{}", source.path);
        }
    }
}

/// `fuzz/fuzz_targets/NAME.rs` and `benches/NAME.rs` drive `src/**/NAME.rs` or `src/**/NAME/`; the two streams drive all
/// of `http`.
#[test]
fn fuzz_targets_and_benches_carry_the_name_of_what_they_drive() {
    let mut known: Vec<String> = vec!["request_stream".into(), "response_stream".into()];
    for source in sources() {
        known.extend(source.path.split('/').map(|part| part.trim_end_matches(".rs").to_string()));
    }
    for directory in ["fuzz/fuzz_targets", "benches"] {
        for path in rust_files(&root().join(directory)) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            assert!(known.contains(&name), "{directory}/{name}.rs drives no file of src/");
        }
    }
}

#[test]
fn the_words_of_the_house_are_kept_in_the_docs() {
    // The product speaks of itself alone: no machine paths, no registry hosts.
    let mut files = rust_files(&root().join("src"));
    files.extend(rust_files(&root().join("tests")));
    files.extend(
        ["README.md", "CHANGELOG.md", "docs/ARCHITECTURE.md", "docs/CONFIG.md", "docs/METRICS.md"]
            .map(|f| root().join(f)),
    );
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for word in [concat!("/wo", "rk/"), concat!("/ro", "ot/")] {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}
