//! What is wrong with a config file, and where: all of it at once.

use super::value::Refusal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Faults that are listed; what a file has beyond that is counted. A thousand faults have one cause.
pub const FAULTS_MAX: usize = 1000;

/// One fault at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// JSON path, as in `$.clusters.app.backends.b1.address` or `$.routes["app.example.io/api"]`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that can be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// All faults of one file, in the order of their places. Never empty where it is returned as an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The name of the file, as given.
    pub file: String,
    /// At most [`FAULTS_MAX`].
    pub list: Vec<Fault>,
    /// Faults beyond those listed.
    pub more: usize,
}

impl fmt::Display for Faults {
    /// `FILE:LINE:COLUMN: PATH: message (suggestion)`, one a line, no line end behind the last. Characters that could
    /// move a terminal's cursor or forge a line are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: ", Plain(&self.file), fault.line, fault.column)?;
            write!(f, "{}: {}", Plain(&fault.path), Plain(&fault.message))?;
            if let Some(suggestion) = &fault.suggestion {
                write!(f, " ({})", Plain(suggestion))?;
            }
        }
        if self.more > 0 {
            write!(f, "\n{}: and {} more", Plain(&self.file), self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { fmt::Write::write_char(f, c)? }
        }
        Ok(())
    }
}

/// A step from a JSON value to one inside it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Writes the JSON path that these steps lead along.
pub(super) fn json_path(steps: &[Step<'_>]) -> String {
    use fmt::Write;
    let mut path = String::from("$");
    for step in steps {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Index(i) => write!(path, "[{i}]"),
            Step::Key(key) if is_plain_key(key) => write!(path, ".{key}"),
            Step::Key(key) => write!(path, "[{key:?}]"),
        };
    }
    path
}

fn is_plain_key(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$'))
        && !key.is_empty()
        && !key.starts_with('-')
}

/// A fault by its offset in the text; lines and columns are counted at the end, for all faults in one pass.
#[derive(Debug)]
struct Found {
    at: usize,
    first: Option<usize>,
    path: String,
    refusal: Refusal,
}

/// Collects faults while a file is looked at.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Vec<Found>,
    more: usize,
}

impl Findings {
    /// Adds a fault at byte `at` of the text, which is a character's first.
    pub(super) fn add(&mut self, at: usize, steps: &[Step<'_>], refusal: Refusal) {
        self.push(at, None, steps, refusal);
    }

    /// Adds a fault that has to do with an earlier place; the message will name it.
    pub(super) fn add_second(&mut self, at: usize, first: usize, steps: &[Step<'_>], refusal: Refusal) {
        self.push(at, Some(first), steps, refusal);
    }

    /// Adds a fault whose path is written already.
    pub(super) fn add_at_path(&mut self, at: usize, path: String, refusal: Refusal) {
        self.found.push(Found { at, first: None, path, refusal });
    }

    fn push(&mut self, at: usize, first: Option<usize>, steps: &[Step<'_>], refusal: Refusal) {
        if self.found.len() < FAULTS_MAX {
            self.found.push(Found { at, first, path: json_path(steps), refusal });
        } else {
            self.more += 1;
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Sorts them by place and turns offsets into lines and columns.
    pub(super) fn into_faults(mut self, text: &str, file: &str) -> Faults {
        // Stable: faults of one place stay in the order in which they were found.
        self.found.sort_by_key(|f| f.at);
        let offsets = self.found.iter().flat_map(|f| [Some(f.at), f.first]).flatten().collect();
        let places = Places::count(text, offsets);
        let list = self.found.into_iter().map(|found| {
            let (line, column) = places.of(found.at);
            let Refusal { mut message, suggestion } = found.refusal;
            if let Some((line, column)) = found.first.map(|at| places.of(at)) {
                message.push_str(&format!("; the first is at line {line}, column {column}"));
            }
            Fault { line, column, path: found.path, message, suggestion }
        });
        Faults { file: file.into(), list: list.collect(), more: self.more }
    }
}

/// Lines and columns of some offsets, counted in one pass over the text.
struct Places {
    sorted: Vec<(usize, (usize, usize))>,
}

impl Places {
    fn count(text: &str, mut offsets: Vec<usize>) -> Places {
        offsets.sort_unstable();
        offsets.dedup();
        let (mut line, mut column, mut seen) = (1, 1, 0);
        let sorted = offsets.into_iter().map(|at| {
            let passed = &text[seen..at];
            if let Some(end) = passed.rfind('\n') {
                line += passed.bytes().filter(|b| *b == b'\n').count();
                column = 1 + passed[end + 1..].chars().count();
            } else {
                column += passed.chars().count();
            }
            seen = at;
            (at, (line, column))
        });
        Places { sorted: sorted.collect() }
    }

    fn of(&self, at: usize) -> (usize, usize) {
        // Every offset that is asked for was counted; the first place is only a fallback for the type.
        self.sorted.binary_search_by_key(&at, |(offset, _)| *offset).map_or((1, 1), |i| self.sorted[i].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "{\n  \"ü\": 1,\n\n\"x\": 2}";
        let mut findings = Findings::default();
        for needle in ["2}", "1,", "{", "\"x\""] {
            findings.add(text.find(needle).unwrap(), &[Step::Key(needle)], Refusal::new("no"));
        }
        findings.add_second(text.find("2}").unwrap(), text.find("1,").unwrap(), &[], Refusal::new("again"));
        let mut faults = findings.into_faults(text, "f");
        assert_eq!(faults.list.pop().unwrap().message, "again; the first is at line 2, column 8");
        let places: Vec<_> = faults.list.iter().map(|f| (f.line, f.column)).collect();
        assert_eq!(places, [(1, 1), (2, 8), (4, 1), (4, 6)]);
    }

    #[test]
    fn display_cannot_be_forged() {
        let mut findings = Findings::default();
        let steps = [Step::Key("routes"), Step::Key("a\nb"), Step::Index(3), Step::Key("x-y")];
        findings.add(0, &steps, Refusal::write("bad\u{1b}[2J", "good"));
        let faults = findings.into_faults("", "c.json");
        let expected = "c.json:1:1: $.routes[\"a\\nb\"][3].x-y: bad\\u{1b}[2J (write \"good\")";
        assert_eq!(faults.to_string(), expected);
    }

    #[test]
    fn a_flood_is_counted() {
        let mut findings = Findings::default();
        (0..FAULTS_MAX + 5).for_each(|_| findings.add(0, &[], Refusal::new("x")));
        let faults = findings.into_faults("", "c");
        assert_eq!((faults.list.len(), faults.more), (FAULTS_MAX, 5));
        assert!(faults.to_string().ends_with("\nc: and 5 more"));
    }
}
