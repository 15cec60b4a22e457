//! The planted bugs of the simulation (`tests/sim/mutants`): each still finds the one place that it is about.

use std::fs;
use std::path::Path;

/// Splits a file into the source file's name, the text with its marks, and what the marked part becomes.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (_, rest) = text.split_once("\n--- ")?;
    let (file, rest) = rest.split_once('\n')?;
    let (find, becomes) = rest.split_once("\n--- becomes\n")?;
    Some((file, find, becomes))
}

#[test]
fn each_planted_bug_has_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in fs::read_dir(root.join("tests/sim/mutants")).expect("the directory of planted bugs") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|ending| ending != "txt") {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(&path).expect("a text");
        let (file, find, becomes) =
            parts(&text).unwrap_or_else(|| panic!("{} has not its three parts", path.display()));
        let marks = (find.matches('«').count(), find.matches('»').count());
        assert_eq!(marks, (1, 1), "{}: one part of the text is marked", path.display());
        assert!(!becomes.trim().is_empty(), "{}: it becomes something", path.display());
        let source = fs::read_to_string(root.join(file)).expect("the source file");
        let plain = find.replace(['«', '»'], "");
        assert_eq!(source.matches(&plain).count(), 1, "{}: its text occurs once in {file}", path.display());
    }
    assert!(count >= 20, "{count} planted bugs");
}
