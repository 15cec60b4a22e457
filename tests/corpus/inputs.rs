//! Every oracle over every file of its corpus, and over changed copies of them.

use crate::oracle;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Changed copies of all files of one target together, unless `INPUTS=N` wants other than these.
const CHANGED: usize = 5000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The files that a target begins with: name and content.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let said = Command::new(root().join("fuzz/corpora")).arg(target).output().expect("fuzz/corpora runs");
    let mut files = Vec::new();
    for directory in String::from_utf8_lossy(&said.stdout).lines() {
        let Ok(entries) = fs::read_dir(root().join("fuzz").join(directory)) else { continue };
        for entry in entries.filter_map(Result::ok).filter(|entry| entry.path().is_file()) {
            let content = fs::read(entry.path()).expect("a file of a corpus can be read");
            files.push((format!("{directory}/{}", entry.file_name().to_string_lossy()), content));
        }
    }
    files.sort();
    files
}

/// xorshift64
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }
}

/// What breaks or joins messages in interesting places.
const SNIPPETS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\"",
    "\\",
    "%2e",
    "%00",
    "%",
    "/../",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "ffffffffffffffff",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Connection: close\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Host: a\r\n",
    "Expect: 100-continue\r\n",
    "Max-Forwards: 1\r\n",
    "TE: trailers\r\n",
    "X_Y: 1\r\n",
    "\u{e9}",
    "[::1]",
    ":65536",
    "@",
    "HTTP/1.0",
    "HTTP/1.1 ",
    "101",
    "204",
    "304",
    "HEAD ",
    "CONNECT ",
    "OPTIONS * ",
    "{",
    "}",
    "[",
    "null",
    "1e999",
];

/// A copy with a few changes: pieces taken out, doubled, put in, taken from another file; bytes set.
fn changed(files: &[(String, Vec<u8>)], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = files[dice.below(files.len())].1.clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + 1 + dice.below(16)).min(bytes.len());
        match dice.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            2 | 3 => {
                let snippet = SNIPPETS[dice.below(SNIPPETS.len())];
                bytes.splice(at..at, snippet.bytes());
            }
            4 => {
                let other = &files[dice.below(files.len())].1;
                let from = dice.below(other.len() + 1);
                let piece = other[from..].to_vec();
                bytes.splice(at.., piece);
            }
            _ if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            _ => {}
        }
    }
    bytes
}

fn judge(target: &str, oracle: fn(&[u8])) {
    let files = corpus(target);
    assert!(!files.is_empty(), "{target} has no corpus");
    let run = |name: &str, bytes: &[u8]| {
        if let Err(panic) = std::panic::catch_unwind(|| oracle(bytes)) {
            println!("{target}, {name}: {}", bytes.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    };
    for (name, bytes) in &files {
        run(name, bytes);
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let changed_copies = std::env::var("INPUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(CHANGED);
    for number in 0..changed_copies {
        run(&format!("changed copy {number}"), &changed(&files, &mut dice));
    }
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                judge(stringify!($target), oracle::$target::check);
            }
        )*

        #[test]
        fn no_target_is_forgotten() {
            let mut known = vec![$(stringify!($target).to_owned()),*];
            let listed = fs::read_dir(root().join("fuzz/fuzz_targets")).expect("the targets are there");
            let names = listed.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut there: Vec<String> = names.map(|name| name.trim_end_matches(".rs").to_owned()).collect();
            known.sort();
            there.sort();
            assert_eq!(known, there);
        }
    };
}

targets!(chunked command config cookie framing head import request_stream response_stream rewrite);
