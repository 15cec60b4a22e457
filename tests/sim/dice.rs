//! Choices of a scenario, all from its seed.

/// A stream of numbers that is the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x5EED)
    }

    /// Another stream, for a part of the scenario that must not depend on how much the others ask.
    pub fn split(&mut self) -> Dice {
        Dice(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// From 0 up to, and not including, `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From `low` to `high`, both included.
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        low + self.below((high - low + 1) as u64) as usize
    }

    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A length: often tiny, sometimes beyond every buffer.
    pub fn length(&mut self) -> usize {
        match self.below(10) {
            0 => 0,
            1 | 2 => self.range(1, 10),
            3..7 => self.range(10, 2_000),
            7 | 8 => self.range(2_000, 20_000),
            _ => self.range(20_000, 70_000),
        }
    }
}

pub fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Which body a byte is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request = 1,
    Response = 2,
    Tunnel = 3,
}

/// A field value that no other exchange has on this side.
pub fn tag(id: usize, side: Side) -> String {
    format!("{:016x}", mix(!(id as u64 * 4 + side as u64)))
}

/// The trailer field behind a body.
pub fn trailer(id: usize, side: Side) -> String {
    format!("X-Trailer: {}", tag(id, side))
}

/// The bytes of one body: no other exchange has the same.
pub fn pattern(id: usize, side: Side, from: usize, len: usize) -> Vec<u8> {
    let key = mix(id as u64 * 4 + side as u64);
    (from..from + len).map(|i| (mix(key ^ (i / 8) as u64) >> (i % 8 * 8)) as u8).collect()
}
