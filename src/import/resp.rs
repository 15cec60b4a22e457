//! The protocol of Redis (RESP): commands as an append-only file holds them, and replies as a server sends them.

use super::Unusable;
use crate::limits;

/// Levels of arrays in arrays: SCAN's reply has two.
const DEPTH_MAX: usize = 4;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A line that says that all is well.
    Status(Vec<u8>),
    /// A line that says what is wrong.
    Error(Vec<u8>),
    /// A number.
    Number(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Several of them.
    Array(Vec<Reply>),
    /// None.
    Nil,
}

/// The reply that begins at `bytes[at]`, and the offset behind it; `None` if it is not yet there in full.
pub(super) fn reply(bytes: &[u8], at: usize) -> Result<Option<(Reply, usize)>, Unusable> {
    nested(bytes, at, DEPTH_MAX)
}

fn nested(bytes: &[u8], at: usize, depth: usize) -> Result<Option<(Reply, usize)>, Unusable> {
    let Some((line, mut next)) = line(bytes, at)? else { return Ok(None) };
    let Some((kind, rest)) = line.split_first() else {
        return Err(Unusable::new(at, "an empty line, where a reply of Redis should begin"));
    };
    let reply = match kind {
        b'+' => Reply::Status(rest.into()),
        b'-' => Reply::Error(rest.into()),
        b':' => Reply::Number(signed(rest, at)?),
        b'$' => match length(rest, at)? {
            None => Reply::Nil,
            Some(len) => {
                let Some(end) = bulk_end(bytes, next, len)? else { return Ok(None) };
                let value = bytes[next..next + len].to_vec();
                next = end;
                Reply::Bulk(value)
            }
        },
        b'*' => match length(rest, at)? {
            None => Reply::Nil,
            Some(_) if depth == 0 => return Err(Unusable::new(at, "a reply nested deeper than any of Redis")),
            Some(len) => {
                let mut list = Vec::new();
                for _ in 0..len {
                    let Some((reply, end)) = nested(bytes, next, depth - 1)? else { return Ok(None) };
                    list.push(reply);
                    next = end;
                }
                Reply::Array(list)
            }
        },
        _ => return Err(Unusable::new(at, "this is not how a reply of Redis begins")),
    };
    Ok(Some((reply, next)))
}

/// A command: its name and its arguments.
type Words = Vec<Vec<u8>>;

/// The command that begins at `bytes[at]`, and the offset behind it; `None` if the bytes end before it does.
pub(super) fn command(bytes: &[u8], at: usize) -> Result<Option<(Words, usize)>, Unusable> {
    let Some((head, mut next)) = line(bytes, at)? else { return Ok(None) };
    let count = match head.split_first() {
        Some((b'*', rest)) => length(rest, at)?.unwrap_or(0),
        _ => return Err(Unusable::new(at, "this is not how a command of an append-only file begins")),
    };
    let mut words = Vec::new();
    for _ in 0..count {
        let Some((head, begin)) = line(bytes, next)? else { return Ok(None) };
        let len = match head.split_first() {
            Some((b'$', rest)) => length(rest, next)?.unwrap_or(0),
            _ => return Err(Unusable::new(next, "an argument should begin here")),
        };
        let Some(end) = bulk_end(bytes, begin, len)? else { return Ok(None) };
        words.push(bytes[begin..begin + len].to_vec());
        next = end;
    }
    Ok(Some((words, next)))
}

/// Writes a command as a client sends it.
pub(super) fn write(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// A line without its end, and the offset behind that.
pub(super) fn line(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, Unusable> {
    let rest = bytes.get(at..).unwrap_or_default();
    let window = &rest[..rest.len().min(limits::IMPORT_LINE_BYTES_MAX)];
    match memchr::memchr(b'\n', window) {
        Some(end) if end > 0 && window[end - 1] == b'\r' => Ok(Some((&window[..end - 1], at + end + 1))),
        Some(_) => Err(Unusable::new(at, "a line that does not end with CR LF")),
        None if window.len() < rest.len() => Err(Unusable::new(at, "a line that has no end")),
        None => Ok(None),
    }
}

/// The end of so many bytes and the CR LF behind them.
fn bulk_end(bytes: &[u8], begin: usize, len: usize) -> Result<Option<usize>, Unusable> {
    let end = begin.saturating_add(len);
    match bytes.get(end..end.saturating_add(2)) {
        Some(b"\r\n") => Ok(Some(end + 2)),
        Some(_) => Err(Unusable::new(end, "an argument should end here with CR LF")),
        None => Ok(None),
    }
}

fn signed(text: &[u8], at: usize) -> Result<i64, Unusable> {
    let number = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
    number.ok_or_else(|| Unusable::new(at, "a number should stand here"))
}

/// A length; -1 is none.
fn length(text: &[u8], at: usize) -> Result<Option<usize>, Unusable> {
    match signed(text, at)? {
        -1 => Ok(None),
        n => match usize::try_from(n) {
            Ok(n) if n <= limits::IMPORT_BYTES_MAX => Ok(Some(n)),
            _ => Err(Unusable::new(at, format!("{n} is no length of anything that Redis holds"))),
        },
    }
}
