//! How a dump packs bytes: LZF strings, and lists in one piece (ziplist until Redis 6, listpack from 7 on).
//!
//! Every function takes what it is given for bytes of a stranger: lengths are looked at before they are believed, and no
//! more memory is taken than the bytes can fill.

/// Takes bytes one behind the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a> {
    all: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(all: &'a [u8], at: usize) -> Bytes<'a> {
        Bytes { all, at }
    }

    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.all.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn left(&self) -> usize {
        self.all.len().saturating_sub(self.at)
    }
}

/// Little-endian, with the sign of its highest bit.
fn signed(bytes: &[u8]) -> i64 {
    let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let spare = 64 - 8 * bytes.len().min(8) as u32;
    if spare == 64 { 0 } else { (value << spare) as i64 >> spare }
}

/// A number as Redis shows it.
pub(super) fn decimal(bytes: &[u8]) -> Vec<u8> {
    signed(bytes).to_string().into_bytes()
}

/// Unpacks LZF to exactly `len` bytes.
pub(super) fn lzf(packed: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut input = Bytes::new(packed, 0);
    while let Some(control) = input.byte() {
        if control < 32 {
            out.extend_from_slice(input.take(usize::from(control) + 1)?);
        } else {
            let mut copied = usize::from(control >> 5);
            if copied == 7 {
                copied += usize::from(input.byte()?);
            }
            let back = (usize::from(control & 0x1f) << 8 | usize::from(input.byte()?)) + 1;
            let from = out.len().checked_sub(back)?;
            // What is copied may reach into what the copy has just written.
            for i in from..from + copied + 2 {
                out.push(*out.get(i)?);
            }
        }
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}

/// The elements of a ziplist: 10 bytes of lengths, entries, 0xff.
pub(super) fn ziplist(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut input = Bytes::new(bytes, 10);
    let mut list = Vec::new();
    loop {
        // The length of the entry before.
        match input.byte()? {
            0xff => return Some(list),
            0xfe => drop(input.take(4)?),
            _ => {}
        }
        let first = input.byte()?;
        list.push(match first {
            0x00..=0x3f => input.take(usize::from(first))?.to_vec(),
            0x40..=0x7f => {
                let low = input.byte()?;
                input.take(usize::from(first & 0x3f) << 8 | usize::from(low))?.to_vec()
            }
            0x80 => {
                let len = u32::from_be_bytes(input.array()?);
                input.take(usize::try_from(len).ok()?)?.to_vec()
            }
            0xc0 => decimal(input.take(2)?),
            0xd0 => decimal(input.take(4)?),
            0xe0 => decimal(input.take(8)?),
            0xf0 => decimal(input.take(3)?),
            0xfe => decimal(input.take(1)?),
            0xf1..=0xfd => (first - 0xf1).to_string().into_bytes(),
            _ => return None,
        });
    }
}

/// The elements of a listpack: 6 bytes of lengths, entries, 0xff. Behind each entry stands how long it is, for reading
/// backwards.
pub(super) fn listpack(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut input = Bytes::new(bytes, 6);
    let mut list = Vec::new();
    loop {
        let begin = input.at;
        let first = input.byte()?;
        list.push(match first {
            0x00..=0x7f => first.to_string().into_bytes(),
            0x80..=0xbf => input.take(usize::from(first & 0x3f))?.to_vec(),
            0xc0..=0xdf => {
                let value = i64::from(first & 0x1f) << 8 | i64::from(input.byte()?);
                // 13 bits with a sign.
                (if value < 1 << 12 { value } else { value - (1 << 13) }).to_string().into_bytes()
            }
            0xe0..=0xef => {
                let low = input.byte()?;
                input.take(usize::from(first & 0x0f) << 8 | usize::from(low))?.to_vec()
            }
            0xf0 => {
                let len = u32::from_le_bytes(input.array()?);
                input.take(usize::try_from(len).ok()?)?.to_vec()
            }
            0xf1 => decimal(input.take(2)?),
            0xf2 => decimal(input.take(3)?),
            0xf3 => decimal(input.take(4)?),
            0xf4 => decimal(input.take(8)?),
            0xff => return Some(list),
            _ => return None,
        });
        input.take(match input.at - begin {
            0..=127 => 1,
            128..=16_383 => 2,
            16_384..=2_097_151 => 3,
            2_097_152..=268_435_455 => 4,
            _ => 5,
        })?;
    }
}

/// CRC-64 of Jones, by which a dump ends: reflected, from 0.
pub(super) fn crc64(bytes: &[u8]) -> u64 {
    const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
    const TABLE: [u64; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut value, mut bit) = (i as u64, 0);
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_redis() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn lzf_unpacks_and_never_more_than_was_said() {
        assert_eq!(lzf(b"\x00a\xe0\x00\x00", 10), Some(b"aaaaaaaaaa".to_vec()));
        assert_eq!(lzf(b"\x00a\xe0\x00\x00", 9), None);
        assert_eq!(lzf(b"\x00a\x20\x05", 4), None);
        assert_eq!(lzf(b"\x05a", 6), None);
        assert_eq!(lzf(b"", 0), Some(Vec::new()));
    }

    #[test]
    fn numbers_have_their_sign() {
        for (bytes, text) in
            [(&[0xff][..], "-1"), (&[0x80], "-128"), (&[0x00, 0x80], "-32768"), (&[1, 0, 0], "1"), (&[], "0")]
        {
            assert_eq!(decimal(bytes), text.as_bytes());
        }
        assert_eq!(decimal(&i64::MIN.to_le_bytes()), i64::MIN.to_string().as_bytes());
    }
}
