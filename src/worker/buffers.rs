//! Owned buffers of two sizes, pooled per core, last in first out so that the next user gets a cache-hot one.

use crate::limits;

/// Which pool a buffer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `limits::BUFFER_SMALL_BYTES`
    Small,
    /// `limits::BUFFER_LARGE_BYTES`
    Large,
}

/// An owned buffer: `filled` bytes between a headroom and a spare tail. Never grows beyond its class.
#[derive(Debug)]
pub struct Buf {
    bytes: Vec<u8>,
    start: usize,
    class: Class,
}

impl Buf {
    /// A new empty buffer with `limits::BUFFER_HEADROOM` free bytes in front.
    pub fn new(class: Class) -> Buf {
        let capacity = match class {
            Class::Small => limits::BUFFER_SMALL_BYTES,
            Class::Large => limits::BUFFER_LARGE_BYTES,
        };
        let mut buf = Buf { bytes: Vec::with_capacity(capacity), start: 0, class };
        buf.clear();
        buf
    }
    /// Empties it and restores the headroom.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(limits::BUFFER_HEADROOM, 0);
        self.start = limits::BUFFER_HEADROOM;
    }
    /// Which pool it belongs to.
    pub fn class(&self) -> Class {
        self.class
    }
    /// The received (or to be sent) bytes.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
    /// The same, to decode in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
    /// Number of filled bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }
    /// Whether nothing is filled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Free bytes behind the filled ones.
    pub fn spare(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }
    /// Free bytes before the filled ones.
    pub fn headroom(&self) -> usize {
        self.start
    }
    /// Drops the first `n` filled bytes.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len());
        self.start += n;
    }
    /// Keeps the first `n` filled bytes.
    pub fn truncate(&mut self, n: usize) {
        assert!(n <= self.len());
        self.bytes.truncate(self.start + n);
    }
    /// Appends; `false` (and nothing done) if there is no room.
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.spare();
        if fits {
            self.bytes.extend_from_slice(bytes);
        }
        fits
    }
    /// Puts bytes in front, into the headroom; `false` (and nothing done) if there is no room.
    #[must_use]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.start;
        if fits {
            self.start -= bytes.len();
            self.bytes[self.start..self.start + bytes.len()].copy_from_slice(bytes);
        }
        fits
    }
    /// The vector behind it, for functions that append text; what stands before the filled bytes must not be touched.
    pub fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
    /// Moves the filled bytes to the front so that the spare tail is as long as can be.
    pub fn compact(&mut self) {
        if self.start > limits::BUFFER_HEADROOM {
            let len = self.len();
            self.bytes.copy_within(self.start.., limits::BUFFER_HEADROOM);
            self.bytes.truncate(limits::BUFFER_HEADROOM + len);
            self.start = limits::BUFFER_HEADROOM;
        }
    }
}
