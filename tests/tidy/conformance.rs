//! docs/CONFORMANCE.md names tests: each of them exists.

use crate::source::root;
use std::fs;
use std::path::{Path, PathBuf};

/// All files below `directory`, at any depth, with this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// The names of the cases, and the group that each begins with.
fn cases() -> Vec<String> {
    let mut names = Vec::new();
    for path in files(&root().join("tests/data/wire"), "json") {
        let text = fs::read_to_string(&path).expect("a file of cases");
        let all: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for case in all.as_array().expect("a list of cases") {
            names.push(case["name"].as_str().expect("a name").to_string());
        }
    }
    names
}

/// Whether a file has a function of this name.
fn has_function(file: &str, name: &str) -> bool {
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    text.contains(&format!("fn {name}(driver)")) || text.contains(&format!("fn {name}()"))
}

#[test]
fn every_test_that_the_conformance_table_names_exists() {
    let text = fs::read_to_string(root().join("docs/CONFORMANCE.md")).expect("docs/CONFORMANCE.md");
    let cases = cases();
    let groups: Vec<&str> = cases.iter().filter_map(|name| name.split_once('-')).map(|(group, _)| group).collect();
    let (mut named, mut missing) = (0, Vec::new());
    for word in text.split('`').skip(1).step_by(2) {
        let exists = match word.split_once("::") {
            // How the names are made.
            Some((_, "test")) => continue,
            Some(("exchange", test)) => has_function("src/exchange.rs", test),
            Some((module, test)) => match module.strip_prefix("http/") {
                Some(file) => has_function(&format!("src/http/{file}.rs"), test),
                None => has_function(&format!("tests/integration/{module}.rs"), test),
            },
            None => match word.split_once('-') {
                Some((group, rest)) if groups.contains(&group) && rest != "..." => {
                    cases.iter().any(|case| case == word)
                }
                _ => continue,
            },
        };
        named += 1;
        if !exists {
            missing.push(word);
        }
    }
    assert!(named > 100, "only {named} tests are named");
    assert!(missing.is_empty(), "docs/CONFORMANCE.md names tests that do not exist: {missing:#?}");
}
