//! The reason codes stand in one table of the code; what is written about them elsewhere agrees.

use crate::source::root;
use ringway::exchange::CODES;
use ringway::exchange::reason::Code;
use ringway::http::reject::Fault;
use std::fs;

fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

#[test]
fn the_manual_tells_each_reason_as_the_code_does() {
    let manual = text("docs/OPERATIONS.md");
    let row = |code: &Code| format!("| `{}` | {} | {} | {} |", code.name(), code.status(), code.meaning(), code.cure());
    let expected: Vec<String> = Code::ALL.iter().map(row).collect();
    let behind = manual.split("| Code | Status sent |").nth(1).expect("the table of reason codes");
    let found: Vec<&str> = behind.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(found, expected, "\ndocs/OPERATIONS.md should have\n{}\n", expected.join("\n"));
    let rules = format!("the {} rules behind", Fault::ALL.len());
    assert!(manual.contains(&rules), "docs/OPERATIONS.md should say: {rules}");
}

/// What is compared with `reason` in queries: `reason="A"`, `reason!~"A|B"`.
#[test]
fn queries_name_reasons_that_there_are() {
    let mut named = 0;
    for file in ["docs/grafana-dashboard.json", "docs/alerts.yml", "docs/METRICS.md"] {
        let text = text(file).replace('\\', "");
        for (at, _) in text.match_indices("reason") {
            let behind = text[at + 6..].trim_start_matches(['=', '!', '~']);
            let Some(codes) = behind.strip_prefix('"').and_then(|rest| rest.split_once('"')) else { continue };
            for code in codes.0.split('|').filter(|code| code.starts_with(|c: char| c.is_ascii_uppercase())) {
                named += 1;
                assert!(CODES.contains(&code), "{file}: there is no reason {code}");
            }
        }
    }
    assert!(named > 0, "no query was found");
}
