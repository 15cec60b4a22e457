//! From a Hipache's Redis to a Ringway config.
//!
//! In the order of the work: `script`, `aof` and `rdb` read what a user has (a file of redis-cli lines, an append-only
//! file, a dump) and apply it to a [`Store`], as Redis would; `live` holds the dialogue with a running Redis, without the
//! socket; `mapping` makes a config of the lists in the end. `resp` and `pack` know how Redis writes bytes.
//!
//! What cannot be carried over becomes a [`Note`] with its place, and nothing is left out without one.

mod aof;
pub mod live;
mod mapping;
mod note;
mod pack;
mod rdb;
mod resp;
mod script;
mod store;

pub use mapping::{Imported, Wish, import};
pub use note::{Note, Place};
pub use store::Store;

use std::fmt;

/// Why an input cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Offset of the byte at which it could not be read on.
    pub at: usize,
    /// What is wrong there, and what to do instead where that is known.
    pub message: String,
}

impl Unusable {
    fn new(at: usize, message: impl Into<String>) -> Unusable {
        Unusable { at, message: message.into() }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.message)
    }
}

/// Applies one file to what is there already: files that Redis writes one after the other are read in that order. Which
/// kind it is shows in its first bytes. `file` names it in notes.
///
/// # Errors
/// It is none of the three, or damaged.
pub fn read(bytes: &[u8], file: &str, store: &mut Store) -> Result<(), Unusable> {
    store.begin(file);
    if rdb::is_dump(bytes) {
        let end = rdb::read(bytes, store)?;
        // An append-only file that Redis has rewritten begins with a dump.
        return aof::read(bytes, end, store);
    }
    if bytes.starts_with(b"*") || bytes.starts_with(b"#TS:") {
        return aof::read(bytes, 0, store);
    }
    if let Some(at) = memchr::memchr(0, bytes) {
        return Err(Unusable::new(at, "neither a dump of Redis, nor an append-only file, nor lines of redis-cli"));
    }
    script::read(bytes, store);
    Ok(())
}

#[cfg(test)]
mod tests;
