//! `ringway ctl errors --save DIR`: refused messages as files of raw bytes.

use super::{Failure, Form, ask, garbled, read, render};
use crate::config::command::Command;
use crate::config::orders::Errors;
use crate::config::receipt::{self, Malformed};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names that one file is given before it is given up: files of an earlier process have the same.
const TRIES: u32 = 1000;

/// Asks for the latest errors, writes the refused messages among them to files in `dir`, and returns what to print.
///
/// A file is `SIDE-coreN-NUMBER.STATUS.REASON`, or ends with `.partial` where its bytes alone do not have the fault; its mode
/// is 0600. None is ever written over: bytes that stand in a file of that name already are not written again, others get
/// `-2`, `-3` and so on behind the number.
///
/// # Errors
/// The process does not answer, or a file cannot be written.
pub fn errors(socket: &Path, dir: &Path, form: Form) -> Result<String, Failure> {
    let answer = ask(socket, Command::Errors(Errors { bytes: true }), "")?;
    let mut errors = read::<receipt::Errors>(answer).ok_or_else(|| garbled(socket))?;
    let said = |e: io::Error| Failure::Other(format!("{}: {e}", dir.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(said)?;
    let mut paths = Vec::new();
    for one in &mut errors.malformed {
        let Some(bytes) = one.bytes.take() else { continue };
        let bytes = receipt::unhex(&bytes).ok_or_else(|| garbled(socket))?;
        let (stem, end) = name(one).ok_or_else(|| garbled(socket))?;
        let path = write(dir, (&stem, &end), &bytes).map_err(said)?;
        one.file = Some(path.display().to_string());
        paths.push(path);
    }
    if form == Form::Json {
        return Ok(format!("{:#}\n", serde_json::to_value(&errors).unwrap_or_default()));
    }
    let mut text = render::errors(&errors);
    for path in &paths {
        text.push_str(&format!("saved {}\n", path.display()));
    }
    if paths.is_empty() {
        text.push_str("no refused message to save\n");
    }
    Ok(text)
}

/// The parts of a file's name; `None` if the process at the other end wants a strange one.
fn name(one: &Malformed) -> Option<(String, String)> {
    let plain = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    if !plain(&one.side) || !plain(&one.reason) {
        return None;
    }
    let stem = format!("{}-core{}-{}", one.side, one.core, one.number);
    let partial = if one.partial { ".partial" } else { "" };
    Some((stem, format!("{}.{}{partial}", one.status, one.reason)))
}

fn write(dir: &Path, (stem, end): (&str, &str), bytes: &[u8]) -> io::Result<PathBuf> {
    for again in 1..=TRIES {
        let stem = if again > 1 { format!("{stem}-{again}") } else { stem.to_owned() };
        let path = dir.join(format!("{stem}.{end}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => return file.write_all(bytes).map(|()| path),
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            Err(_) if fs::read(&path).is_ok_and(|there| there == bytes) => return Ok(path),
            Err(_) => {}
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, format!("{stem}: too many files of this name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        let mut one = Malformed {
            side: "request".into(),
            core: 2,
            number: 7,
            status: 400,
            reason: "coding-in-1.0".into(),
            ..Malformed::default()
        };
        let parts = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(name(&one), parts("request-core2-7", "400.coding-in-1.0"));
        one.partial = true;
        assert_eq!(name(&one), parts("request-core2-7", "400.coding-in-1.0.partial"));
        one.reason = "../x".into();
        assert_eq!(name(&one), None);
    }
}
