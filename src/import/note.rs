//! What is to be said about the input, and where it stands.

use std::fmt;
use std::rc::Rc;

/// Where something stands in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a script, from 1.
    Line(Rc<str>, usize),
    /// An offset in a dump or an append-only file, from 0.
    Byte(Rc<str>, usize),
    /// Somewhere in this file, or in the Redis at this address.
    Within(Rc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(file, line) => write!(f, "{file}:{line}"),
            Place::Byte(file, at) => write!(f, "{file}: byte {at}"),
            Place::Within(source) => f.write_str(source),
        }
    }
}

/// One remark on the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where.
    pub place: Place,
    /// The key it is about; empty where it is about none.
    pub key: String,
    /// One sentence.
    pub message: String,
    /// Whether something of the input is not in the config.
    pub left_out: bool,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}{}", if self.left_out { "left out: " } else { "" }, self.message)
    }
}

/// Bytes as they may be shown: what is not printable is escaped, and the whole is cut after 200 bytes.
pub(super) fn shown(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 200;
    let cut = &bytes[..bytes.len().min(BYTES_MAX)];
    let more = if bytes.len() > BYTES_MAX { "..." } else { "" };
    let text = match std::str::from_utf8(cut) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_string(),
        _ => cut.escape_ascii().to_string(),
    };
    text + more
}
