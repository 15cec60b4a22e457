//! Owned buffers of two sizes, pooled per core, last in first out so that the next user gets a cache-hot one.

use crate::limits;
use std::cell::{Cell, RefCell};
use std::ops::Range;

/// Which pool a buffer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `limits::BUFFER_SMALL_BYTES`
    Small,
    /// `limits::BUFFER_LARGE_BYTES`
    Large,
}

impl Class {
    /// Bytes of a buffer of this class, headroom included.
    pub const fn bytes(self) -> usize {
        match self {
            Class::Small => limits::BUFFER_SMALL_BYTES,
            Class::Large => limits::BUFFER_LARGE_BYTES,
        }
    }
}

/// An owned buffer: `filled` bytes between a headroom and a spare tail. Never grows beyond its class.
///
/// One word long: on its way to the kernel and back it is moved from future to future, a dozen times per request.
#[derive(Debug)]
pub struct Buf(Box<Block>);

/// A line of cache to itself.
#[derive(Debug)]
#[repr(align(64))]
struct Block {
    bytes: Vec<u8>,
    start: usize,
    class: Class,
}

impl Buf {
    /// A new empty buffer with `limits::BUFFER_HEADROOM` free bytes in front.
    pub fn new(class: Class) -> Buf {
        let mut buf = Buf(Box::new(Block { bytes: Vec::with_capacity(class.bytes()), start: 0, class }));
        buf.clear();
        buf
    }
    /// Empties it and restores the headroom. Costs nothing: what stood in the headroom stays there, nobody reads it; only
    /// a buffer that ends inside its headroom is filled up.
    pub fn clear(&mut self) {
        self.0.bytes.resize(limits::BUFFER_HEADROOM, 0);
        self.0.start = limits::BUFFER_HEADROOM;
    }
    /// Which pool it belongs to.
    pub fn class(&self) -> Class {
        self.0.class
    }
    /// The received (or to be sent) bytes.
    pub fn filled(&self) -> &[u8] {
        &self.0.bytes[self.0.start..]
    }
    /// The same, to decode in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes[self.0.start..]
    }
    /// Number of filled bytes.
    pub fn len(&self) -> usize {
        self.0.bytes.len() - self.0.start
    }
    /// Whether nothing is filled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Free bytes behind the filled ones that may be received into; `limits::BUFFER_TAIL` more can be appended to.
    pub fn spare(&self) -> usize {
        (self.0.bytes.capacity() - self.0.bytes.len()).saturating_sub(limits::BUFFER_TAIL)
    }
    /// Free bytes before the filled ones.
    pub fn headroom(&self) -> usize {
        self.0.start
    }
    /// Drops the first `n` filled bytes.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len());
        self.0.start += n;
    }
    /// Keeps the first `n` filled bytes.
    pub fn truncate(&mut self, n: usize) {
        assert!(n <= self.len());
        self.0.bytes.truncate(self.0.start + n);
    }
    /// Keeps only this range of the filled bytes, without moving them: what stood before it becomes headroom, what stood
    /// behind it becomes spare.
    pub fn keep(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len());
        self.0.bytes.truncate(self.0.start + range.end);
        self.0.start += range.start;
    }
    /// Moves the first `head` filled bytes forward so that they end at offset `to` of the filled bytes; what stood between
    /// is gone.
    pub fn close_gap(&mut self, head: usize, to: usize) {
        assert!(head <= to && to <= self.len());
        let start = self.0.start;
        self.0.start += to - head;
        self.0.bytes.copy_within(start..start + head, self.0.start);
    }
    /// Appends; `false` (and nothing done) if there is no room.
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.0.bytes.capacity() - self.0.bytes.len();
        if fits {
            self.0.bytes.extend_from_slice(bytes);
        }
        fits
    }
    /// Puts bytes in front, into the headroom; `false` (and nothing done) if there is no room.
    #[must_use]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.0.start;
        if fits {
            self.0.start -= bytes.len();
            self.0.bytes[self.0.start..self.0.start + bytes.len()].copy_from_slice(bytes);
        }
        fits
    }
    /// The vector behind it, for functions that append text; what stands before the filled bytes must not be touched.
    pub fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.0.bytes
    }
    /// Moves the filled bytes to the front so that the spare tail is as long as can be.
    pub fn compact(&mut self) {
        if self.0.start > limits::BUFFER_HEADROOM {
            let len = self.len();
            self.0.bytes.copy_within(self.0.start.., limits::BUFFER_HEADROOM);
            self.0.bytes.truncate(limits::BUFFER_HEADROOM + len);
            self.0.start = limits::BUFFER_HEADROOM;
        }
    }
}

/// The buffers of one core. Free ones are handed out last in first out; how many are kept, and how many large ones are
/// out at one time, is bounded by `limits`.
#[derive(Debug, Default)]
pub struct Pool {
    small: Shelf,
    large: Shelf,
}

/// One class's free buffers and the number of those handed out.
#[derive(Debug, Default)]
struct Shelf {
    free: RefCell<Vec<Buf>>,
    in_use: Cell<usize>,
    /// The least number that was free since the last trim.
    least_free: Cell<usize>,
}

impl Shelf {
    fn take(&self, class: Class) -> Buf {
        self.in_use.set(self.in_use.get() + 1);
        let mut shelf = self.free.borrow_mut();
        let free = shelf.pop();
        self.least_free.set(self.least_free.get().min(shelf.len()));
        free.unwrap_or_else(|| Buf::new(class))
    }

    fn put(&self, mut buf: Buf, kept: usize) {
        let in_use = self.in_use.get();
        assert!(in_use > 0, "a buffer comes back that was never taken");
        self.in_use.set(in_use - 1);
        // A buffer that was made to grow would sit in the pool as something it is not.
        if buf.0.bytes.capacity() != buf.class().bytes() {
            return;
        }
        let mut free = self.free.borrow_mut();
        if free.len() < kept {
            buf.clear();
            free.push(buf);
        }
    }

    /// Frees half of what nobody needed since the last call, and at most so many: to give memory back takes time.
    fn trim(&self, most: usize) {
        let mut free = self.free.borrow_mut();
        let spare = self.least_free.get().min(free.len());
        free.drain(..spare.div_ceil(2).min(most));
        self.least_free.set(free.len());
    }
}

impl Pool {
    /// Frees half of the buffers that nobody needed since the last call, or some of them; to be called once a tick.
    pub fn trim(&self) {
        self.small.trim(limits::BUFFERS_SMALL_TRIMMED);
        self.large.trim(limits::BUFFERS_LARGE_TRIMMED);
    }

    /// An empty pool; it fills as buffers come back.
    pub fn new() -> Pool {
        Pool::default()
    }

    /// An empty buffer. When `limits::BUFFERS_LARGE_MAX` large ones are out, a small one is given for a large one: look at
    /// its class where that matters.
    pub fn take(&self, class: Class) -> Buf {
        match class {
            Class::Small => self.small.take(class),
            Class::Large => self.take_large().unwrap_or_else(|| self.small.take(Class::Small)),
        }
    }

    /// An empty buffer for this many bytes. A large one is given also beyond `limits::BUFFERS_LARGE_MAX`: the bytes stand
    /// in another large one already, so there are at most twice as many.
    pub fn take_for(&self, bytes: usize) -> Buf {
        if bytes <= Class::Small.bytes() - limits::BUFFER_HEADROOM - limits::BUFFER_TAIL {
            self.small.take(Class::Small)
        } else {
            self.large.take(Class::Large)
        }
    }

    /// An empty large buffer, or none if `limits::BUFFERS_LARGE_MAX` are out.
    pub fn take_large(&self) -> Option<Buf> {
        (self.large.in_use.get() < limits::BUFFERS_LARGE_MAX).then(|| self.large.take(Class::Large))
    }

    /// Takes a buffer back, whatever it holds.
    pub fn put(&self, buf: Buf) {
        match buf.class() {
            Class::Small => self.small.put(buf, limits::BUFFERS_SMALL_KEPT),
            Class::Large => self.large.put(buf, limits::BUFFERS_LARGE_KEPT),
        }
    }

    /// Buffers of this class that are handed out now.
    pub fn in_use(&self, class: Class) -> usize {
        match class {
            Class::Small => self.small.in_use.get(),
            Class::Large => self.large.in_use.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_buffer_has_its_headroom_whatever_it_held() {
        let mut buf = Buf::new(Class::Small);
        assert_eq!((buf.len(), buf.headroom()), (0, limits::BUFFER_HEADROOM));
        let spare = buf.spare();
        assert!(buf.append(&[7; 3000]));
        buf.consume(2000);
        buf.clear();
        assert_eq!((buf.len(), buf.headroom(), buf.spare()), (0, limits::BUFFER_HEADROOM, spare));
        // Ends inside the headroom.
        assert!(buf.prepend(&[1; 1000]));
        buf.truncate(1);
        buf.clear();
        assert_eq!((buf.len(), buf.headroom(), buf.spare()), (0, limits::BUFFER_HEADROOM, spare));
    }

    #[test]
    fn keep_moves_nothing_and_gives_both_sides_back() {
        let mut buf = Buf::new(Class::Small);
        assert!(buf.append(b"5\r\nhello\r\nGET"));
        let (headroom, spare, at) = (buf.headroom(), buf.spare(), buf.filled().as_ptr());
        buf.keep(3..8);
        assert_eq!(buf.filled(), b"hello");
        assert_eq!((buf.headroom(), buf.spare()), (headroom + 3, spare + 5));
        assert_eq!(buf.filled().as_ptr(), at.wrapping_add(3));
        assert!(buf.prepend(b"5\r\n") && buf.append(b"\r\n"));
        assert_eq!(buf.filled(), b"5\r\nhello\r\n");
        buf.keep(0..0);
        assert!(buf.is_empty());
    }

    #[test]
    fn the_last_buffer_put_is_the_first_taken_and_comes_back_empty() {
        let pool = Pool::new();
        let (first, mut second) = (pool.take(Class::Small), pool.take(Class::Small));
        assert_eq!(pool.in_use(Class::Small), 2);
        assert!(second.append(b"left over"));
        let at = second.0.bytes.as_ptr();
        pool.put(first);
        pool.put(second);
        let again = pool.take(Class::Small);
        assert_eq!((again.0.bytes.as_ptr(), again.len(), again.headroom()), (at, 0, limits::BUFFER_HEADROOM));
        pool.put(again);
        assert_eq!(pool.in_use(Class::Small), 0);
    }

    #[test]
    fn large_buffers_are_bounded_and_pumps_fall_back_to_small_ones() {
        let pool = Pool::new();
        let out: Vec<Buf> = std::iter::from_fn(|| pool.take_large()).collect();
        assert_eq!(out.len(), limits::BUFFERS_LARGE_MAX);
        let instead = pool.take(Class::Large);
        assert_eq!(instead.class(), Class::Small);
        pool.put(instead);
        out.into_iter().for_each(|buf| pool.put(buf));
        assert_eq!((pool.in_use(Class::Large), pool.in_use(Class::Small)), (0, 0));
        assert_eq!(pool.take(Class::Large).class(), Class::Large);
        let out: Vec<Buf> = (0..limits::BUFFERS_SMALL_KEPT + 1).map(|_| pool.take(Class::Small)).collect();
        out.into_iter().for_each(|buf| pool.put(buf));
        assert_eq!(pool.small.free.borrow().len(), limits::BUFFERS_SMALL_KEPT);
    }

    #[test]
    fn what_a_crowd_leaves_is_given_back_bit_by_bit() {
        let pool = Pool::new();
        let out: Vec<Buf> = std::iter::from_fn(|| pool.take_large()).collect();
        out.into_iter().for_each(|buf| pool.put(buf));
        let free = || pool.large.free.borrow().len();
        pool.trim();
        assert_eq!(free(), limits::BUFFERS_LARGE_MAX, "all were needed since the last tick");
        pool.trim();
        assert_eq!(free(), limits::BUFFERS_LARGE_MAX - limits::BUFFERS_LARGE_TRIMMED);
        (0..30).for_each(|_| pool.trim());
        assert_eq!(free(), 0);
    }

    #[test]
    fn a_grown_buffer_is_dropped() {
        let pool = Pool::new();
        let mut buf = pool.take(Class::Small);
        buf.vec().extend_from_slice(&[0; limits::BUFFER_SMALL_BYTES]);
        pool.put(buf);
        assert_eq!((pool.in_use(Class::Small), pool.small.free.borrow().len()), (0, 0));
    }
}
