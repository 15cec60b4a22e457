//! The source files, with everything blanked that a rule does not speak of.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of `src/`.
pub struct Source {
    /// Relative to `src/`, with `/`.
    pub path: String,
    /// As it stands there.
    pub text: String,
    /// Comments, string contents and tests replaced by spaces; the lines are the same.
    pub code: String,
}

impl Source {
    /// The room: the first part of the path, without `.rs`.
    pub fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// `PATH:LINE` of an offset into `code`.
    pub fn place(&self, offset: usize) -> String {
        let line = self.code[..offset].matches('\n').count() + 1;
        format!("src/{}:{line}", self.path)
    }

    /// Lines that are neither tests nor empty at the end.
    pub fn lines_without_tests(&self) -> usize {
        let last = self.code.trim_end().len();
        self.code[..last].lines().count()
    }
}

/// The package's directory.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files under a directory that end in `.rs`, sorted.
pub fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All of `src/`.
pub fn sources() -> Vec<Source> {
    let src = root().join("src");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file is readable");
        let relative = path.strip_prefix(&src).expect("below src");
        let code = without_tests(&blank(&text));
        Source { path: relative.to_string_lossy().replace('\\', "/"), text, code }
    };
    let all: Vec<Source> = rust_files(&src).into_iter().map(read).collect();
    // Files that a parent declares as `#[cfg(test)] mod NAME;` are tests too.
    let test_only: Vec<String> = all.iter().flat_map(test_modules).collect();
    all.into_iter().filter(|s| !test_only.iter().any(|t| s.path.starts_with(t.as_str()))).collect()
}

/// Path prefixes of the test-only modules that a file declares.
fn test_modules(source: &Source) -> Vec<String> {
    let (directory, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let base = match file {
        "mod.rs" | "lib.rs" | "main.rs" => directory.to_string(),
        _ => format!("{directory}/{}", file.trim_end_matches(".rs")),
    };
    let mut found = Vec::new();
    for (at, _) in source.text.match_indices("#[cfg(test)]") {
        let behind = source.text[at + 12..].trim_start();
        let behind = behind.strip_prefix("pub ").unwrap_or(behind);
        let Some(name) = behind.strip_prefix("mod ").and_then(|r| r.split_once(';')).map(|p| p.0) else { continue };
        if name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            for end in [".rs", "/"] {
                found.push(format!("{base}/{name}{end}").trim_start_matches('/').to_string());
            }
        }
    }
    found
}

/// Comments and the contents of strings and character literals become spaces.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment(bytes, at),
            b'"' => string(bytes, at),
            b'r' if raw_string(bytes, at).is_some() && !in_word(bytes, at) => raw_string(bytes, at).unwrap_or(at + 1),
            b'\'' => character(bytes, at),
            _ => at + 1,
        };
        if end > at + 1 {
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    // `br"..."` begins with a letter that belongs to the literal.
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') && bytes[at - 1] != b'b'
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let found = bytes[from..].windows(what.len()).position(|w| w == what);
    found.map_or(bytes.len(), |n| from + n)
}

fn block_comment(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string(bytes: &[u8], from: usize) -> Option<usize> {
    let hashes = bytes[from + 1..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(from + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".to_vec(), vec![b'#'; hashes]].concat();
    Some(find(bytes, from + 2 + hashes, &close) + close.len()).map(|end| end.min(bytes.len()))
}

/// A character literal, or only the quote of a lifetime.
fn character(bytes: &[u8], from: usize) -> usize {
    match bytes.get(from + 1) {
        Some(b'\\') => (find(bytes, from + 3, b"'") + 1).min(bytes.len()),
        Some(first) => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if bytes.get(from + 1 + width) == Some(&b'\'') { from + width + 2 } else { from + 1 }
        }
        None => from + 1,
    }
}

/// Items behind `#[cfg(test)]` become spaces.
fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let semicolon = find(code.as_bytes(), at, b";");
        let brace = find(code.as_bytes(), at, b"{");
        let end = if semicolon < brace { semicolon + 1 } else { matching(code.as_bytes(), brace) };
        for byte in &mut out[at..end.min(code.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn matching(bytes: &[u8], from: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

#[test]
fn blanking_leaves_code_alone() {
    let text = "let a = \"no // code\"; // words\nlet b: &'static str = r#\"x\"#; /* y */ let c = '\\''; let d = '{';";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert!(code.contains("let b: &'static str ="));
    for gone in ["no // code", "words", "{", " y ", "x\"#"] {
        assert!(!code.contains(gone), "{gone}: {code}");
    }
    assert_eq!(without_tests("a #[cfg(test)] mod t { fn x() {} } b").split_whitespace().collect::<String>(), "ab");
}
