//! The seeded randomness of a simulation, and the hash of what happened in it.

/// A stream of numbers that is the same for the same seed (splitmix64).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to, and not including, `end`; 0 if `end` is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// True once in `n` times; never if `n` is 0.
    pub(super) fn once_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// How many of `n` are done at one time: all of them, or one, or anything between; at least 1 if `n` is.
    pub(super) fn part_of(&mut self, n: usize) -> usize {
        match self.below(4) {
            0 => n.min(1),
            1 => n.min(1 + self.below(n as u64) as usize),
            _ => n,
        }
    }
}

/// A hash over events in their order (FNV-1a).
#[derive(Debug)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn new() -> Trace {
        Trace(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn note(&mut self, what: u8, numbers: [u64; 3]) {
        let bytes = std::iter::once(what).chain(numbers.into_iter().flat_map(u64::to_le_bytes));
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.0
    }
}
