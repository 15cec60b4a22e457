//! Values as printable ASCII: numbers, times, addresses, and texts that came over the wire, which can neither end their
//! quotes nor their line.

use std::net::{IpAddr, Ipv6Addr};

/// Room for lines, written from its front; whoever writes hands on what is left. It never grows and never fails: whoever
/// gives it has asked before how much a line can need, and what does not fit is not written.
///
/// By value, because two words travel in registers; behind a reference each byte written would cost a load and a store
/// more.
#[derive(Debug)]
pub(super) struct Room<'a>(&'a mut [u8]);

impl<'a> Room<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Room<'a> {
        Room(bytes)
    }

    /// Bytes that are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Of a length that is known when this is compiled: a few moves.
    #[inline(always)]
    pub(super) fn put<const N: usize>(self, bytes: &[u8; N]) -> Room<'a> {
        match self.0.split_first_chunk_mut::<N>() {
            Some((to, rest)) => {
                *to = *bytes;
                Room(rest)
            }
            None => Room(&mut []),
        }
    }

    #[inline]
    pub(super) fn put_all(self, bytes: &[u8]) -> Room<'a> {
        match self.0.split_at_mut_checked(bytes.len()) {
            Some((to, rest)) => {
                to.copy_from_slice(bytes);
                Room(rest)
            }
            None => Room(&mut []),
        }
    }

    /// Text of which every byte stands for itself and none is below `least`; else nothing is written, and the room given back.
    #[inline(always)]
    fn put_plain(self, text: &[u8], least: u8) -> Result<Room<'a>, Room<'a>> {
        let plain = match self.0.get_mut(..text.len()) {
            Some(to) => copy_plain(text, to, least),
            None => return Ok(Room(&mut [])),
        };
        if plain { Ok(Room(&mut self.0[text.len()..])) } else { Err(self) }
    }

    /// The first `used` of four, but not all four.
    #[inline]
    fn put_some(self, bytes: [u8; 4], used: usize) -> Room<'a> {
        match self.0.first_chunk_mut::<4>() {
            Some(to) => {
                *to = bytes;
                Room(&mut self.0[used & 3..])
            }
            None => Room(&mut []),
        }
    }
}

/// The three digits of each number below 1,000, and how many it has without zeros in front.
const DIGITS: [[u8; 4]; 1000] = {
    let mut digits = [[0; 4]; 1000];
    let mut n = 0;
    while n < 1000 {
        let used = if n < 10 {
            1
        } else if n < 100 {
            2
        } else {
            3
        };
        digits[n] = [b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8, used];
        n += 1;
    }
    digits
};

/// Writes a number. Most are 0 and few are large: these alone are written with a loop.
#[inline(always)]
pub(super) fn number(n: u64, room: Room<'_>) -> Room<'_> {
    if n < 10 { room.put(&[b'0' + n as u8]) } else { digits(n, room) }
}

#[inline(never)]
fn digits(n: u64, room: Room<'_>) -> Room<'_> {
    match n {
        0..1000 => to_three(n as u32, room),
        1000..1_000_000 => {
            let n = n as u32;
            three(n % 1000, to_three(n / 1000, room))
        }
        1_000_000..1_000_000_000 => {
            let n = n as u32;
            three(n % 1000, three(n / 1000 % 1000, to_three(n / 1_000_000, room)))
        }
        _ => room.put_all(itoa::Buffer::new().format(n).as_bytes()),
    }
}

/// A number below 1,000.
#[inline(always)]
fn to_three(n: u32, room: Room<'_>) -> Room<'_> {
    let [a, b, c, used] = DIGITS[n as usize];
    let digits = u32::from_le_bytes([a, b, c, 0]).wrapping_shr(24 - 8 * u32::from(used));
    room.put_some(digits.to_le_bytes(), usize::from(used))
}

/// The same, with all its zeros.
#[inline(always)]
fn three(n: u32, room: Room<'_>) -> Room<'_> {
    let [a, b, c, _] = DIGITS[n as usize];
    room.put(&[a, b, c])
}

/// The two digits of a number below 100.
fn two(n: u64) -> [u8; 2] {
    let [_, a, b, _] = DIGITS[n as usize % 100];
    [a, b]
}

/// Writes an address.
pub(super) fn address(ip: IpAddr, room: Room<'_>) -> Room<'_> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets().map(u32::from);
            let room = to_three(b, to_three(a, room).put(b".")).put(b".");
            to_three(d, to_three(c, room).put(b"."))
        }
        IpAddr::V6(v6) => address_v6(v6, room),
    }
}

/// RFC 5952: the first of the longest runs of zeros, if it is longer than one, is left out.
fn address_v6(ip: Ipv6Addr, mut room: Room<'_>) -> Room<'_> {
    let groups = ip.segments();
    let (mut gap, mut run) = (0..0, 0..0);
    for (i, group) in groups.into_iter().enumerate() {
        run = if group == 0 { run.start..i + 1 } else { i + 1..i + 1 };
        if run.len() > gap.len().max(1) {
            gap = run.clone();
        }
    }
    for (i, group) in groups.into_iter().enumerate() {
        if gap.contains(&i) {
            room = if i == gap.start { room.put(b"::") } else { room };
            continue;
        }
        if i > 0 && i != gap.end {
            room = room.put(b":");
        }
        let digits = [12, 8, 4, 0].map(|shift| HEX[usize::from(group >> shift & 15)]);
        let zeros = (group.leading_zeros() as usize / 4).min(3);
        room = room.put_all(&digits[zeros..]);
    }
    room
}

/// Writes lower-case hexadecimal digits, all 32.
pub(super) fn hex(n: u128, room: Room<'_>) -> Room<'_> {
    let pair = |byte: u8| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
    n.to_be_bytes().into_iter().fold(room, |room, byte| room.put(&pair(byte)))
}

/// The second as a text, made once for all lines of it.
#[derive(Debug)]
pub(super) struct Second {
    of: u64,
    text: [u8; 20],
}

impl Default for Second {
    fn default() -> Second {
        Second { of: 0, text: second(0) }
    }
}

impl Second {
    /// RFC 3339 in UTC.
    pub(super) fn text(&mut self, unix_seconds: u64) -> &[u8; 20] {
        if unix_seconds != self.of {
            *self = Second { of: unix_seconds, text: second(unix_seconds) };
        }
        &self.text
    }
}

/// A time as RFC 3339 in UTC.
pub fn rfc3339(unix_seconds: u64) -> String {
    second(unix_seconds).escape_ascii().to_string()
}

/// By the civil calendar: days are counted in years that begin in March, so that the leap day is last.
fn second(unix_seconds: u64) -> [u8; 20] {
    // 9999-12-31T23:59:59Z; a clock beyond it is broken, and the line stays one of fixed width.
    let unix_seconds = unix_seconds.min(253_402_300_799);
    let (days, rest) = (unix_seconds / 86_400 + 719_468, unix_seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let mut text = *b"0000-00-00T00:00:00Z";
    let parts = [year / 100, year % 100, month, day, rest / 3600, rest / 60 % 60, rest % 60];
    for (at, part) in [0, 2, 5, 8, 11, 14, 17].into_iter().zip(parts) {
        text[at..at + 2].copy_from_slice(&two(part));
    }
    text
}

/// Whether a byte stands for itself in both formats: printable ASCII but for the quote and the backslash.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Looks at eight bytes together: 0 if each stands for itself and none is below `least`, a space or what follows it.
#[inline(always)]
fn odd(bytes: [u8; 8], least: u8) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    let x = u64::from_le_bytes(bytes);
    // Without its high bit no byte of these sums overflows into the next. The high bit of a sum is then set if the byte is
    // not below 128 less what was added.
    let low = x & !HIGH;
    let from = |byte: u8, low: u64| low + ONES * u64::from(0x80 - byte);
    let is_not = |byte: u8| from(1, low ^ (ONES * u64::from(byte)));
    (!(from(least, low) & is_not(b'"') & is_not(b'\\')) | from(0x7f, low) | x) & HIGH
}

/// Copies to a place of the same length if every byte stands for itself and none is below `least`; whether they do. The loops stop at
/// the first odd byte: else the compiler would make more of them than short texts are worth.
#[inline(always)]
fn copy_plain(from: &[u8], to: &mut [u8], least: u8) -> bool {
    if from.len() >= 8 {
        return copy_long(from, to, least);
    }
    for (from, to) in from.iter().zip(to) {
        *to = *from;
        if !PLAIN[usize::from(*from)] || *from < least {
            return false;
        }
    }
    true
}

/// Eight bytes at a time. The last eight overlap those before, so that none is left to be looked at alone.
#[inline(never)]
fn copy_long(from: &[u8], to: &mut [u8], least: u8) -> bool {
    let (Some(last), Some(to_last)) = (from.last_chunk::<8>(), to.last_chunk_mut::<8>()) else { return false };
    *to_last = *last;
    for (from, to) in from.as_chunks::<8>().0.iter().zip(to.as_chunks_mut::<8>().0) {
        *to = *from;
        if odd(*from, least) != 0 {
            return false;
        }
    }
    odd(*last, least) == 0
}

fn cut(bytes: &[u8], max: usize) -> (&[u8], bool) {
    if bytes.len() <= max { (bytes, false) } else { (&bytes[..max], true) }
}

/// Writes a JSON string. Valid UTF-8 parses back as it was, everything outside printable ASCII being written as `\uXXXX`;
/// bytes that are not UTF-8 stand as `\u00XX`. What is longer than `max` bytes is cut and ends in `...`.
pub(super) fn json_string<'a>(value: &[u8], max: usize, room: Room<'a>) -> Room<'a> {
    let (value, was_cut) = cut(value, max);
    let room = room.put(b"\"").put_plain(value, b' ').unwrap_or_else(|room| json_escaped(value, room));
    if was_cut { room.put(b"...\"") } else { room.put(b"\"") }
}

/// Writes a string of a text line, in quotes: bytes outside printable ASCII, quotes and backslashes are `\xXX`. What is
/// longer than `max` bytes is cut and ends in `...`.
pub(super) fn quoted<'a>(value: &[u8], max: usize, room: Room<'a>) -> Room<'a> {
    let (value, was_cut) = cut(value, max);
    let room = room.put(b"\"").put_plain(value, b' ').unwrap_or_else(|room| escaped(value, false, room));
    if was_cut { room.put(b"...\"") } else { room.put(b"\"") }
}

/// Writes a word of a text line: as [`quoted`], but without quotes, and with `\x20` for a space. Nothing is `-`.
pub(super) fn word<'a>(value: &[u8], max: usize, room: Room<'a>) -> Room<'a> {
    let (value, was_cut) = cut(value, max);
    let room = match value {
        [] => room.put(b"-"),
        other => room.put_plain(other, b'!').unwrap_or_else(|room| escaped(other, true, room)),
    };
    if was_cut { room.put(b"...") } else { room }
}

#[cold]
fn json_escaped<'a>(mut rest: &[u8], mut room: Room<'a>) -> Room<'a> {
    while let Some(&first) = rest.first() {
        let mut used = 1;
        room = match first {
            plain if PLAIN[usize::from(plain)] => room.put(&[plain]),
            b'"' | b'\\' => room.put(&[b'\\', first]),
            0x80.. => match character(rest) {
                Some(c) => {
                    used = c.len_utf8();
                    c.encode_utf16(&mut [0; 2]).iter().fold(room, |room, unit| json_unit(*unit, room))
                }
                None => json_unit(u16::from(first), room),
            },
            control => json_unit(u16::from(control), room),
        };
        rest = &rest[used..];
    }
    room
}

/// The character at the front of `bytes`; `None` if what stands there is not UTF-8.
fn character(bytes: &[u8]) -> Option<char> {
    let window = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&window[..e.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().next()
}

fn json_unit(unit: u16, room: Room<'_>) -> Room<'_> {
    let hex = |shift: u16| HEX[usize::from(unit >> shift & 15)];
    room.put(&[b'\\', b'u', hex(12), hex(8), hex(4), hex(0)])
}

#[cold]
fn escaped<'a>(bytes: &[u8], spaces_too: bool, room: Room<'a>) -> Room<'a> {
    bytes.iter().fold(room, |room, &byte| {
        if PLAIN[usize::from(byte)] && !(spaces_too && byte == b' ') {
            room.put(&[byte])
        } else {
            room.put(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(Room) -> Room) -> String {
        let mut bytes = vec![0; 1000];
        let used = 1000 - write(Room::new(&mut bytes)).len();
        bytes.truncate(used);
        String::from_utf8(bytes).expect("ASCII")
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut bytes = [0; 5];
        let room = quoted(b"abc", 9, Room::new(&mut bytes));
        assert_eq!(number(12, quoted(b"abc", 9, room)).len(), 0);
        assert_eq!(&bytes, b"\"abc\"");
    }

    #[test]
    fn times_of_all_kinds_of_years() {
        let mut second = Second::default();
        let mut of = |t| String::from_utf8(second.text(t).to_vec()).expect("ASCII");
        assert_eq!(of(0), "1970-01-01T00:00:00Z");
        assert_eq!(of(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(of(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(of(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(of(u64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(of(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn addresses() {
        let of = |ip: &str| written(|room| address(ip.parse().expect("an address"), room));
        assert_eq!(of("255.0.10.1"), "255.0.10.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8::1"), "2001:db8::1");
    }

    #[test]
    fn words_have_no_space_and_no_end() {
        let of = |text: &[u8]| written(|room| word(text, 8, room));
        assert_eq!(of(b"app-1.a"), "app-1.a");
        assert_eq!(of(b"a b\n"), r"a\x20b\x0a");
        assert_eq!(of(b""), "-");
        assert_eq!(of(b"123456789"), "12345678...");
    }

    #[test]
    fn ids_have_all_their_digits() {
        assert_eq!(written(|room| hex(0xabc, room)), format!("{:032x}", 0xabc));
        assert_eq!(written(|room| hex(u128::MAX - 1, room)), format!("{:032x}", u128::MAX - 1));
    }

    proptest! {
        #[test]
        fn numbers_are_as_the_formatter_writes_them(small in 0..20_000u64, any in any::<u64>(), shift in 0..64u32) {
            for n in [small, any >> shift] {
                prop_assert_eq!(written(|room| number(n, room)), n.to_string());
            }
        }

        #[test]
        fn addresses_are_as_the_formatter_writes_them(groups in proptest::collection::vec(0..3u16, 8), odd in any::<[u16; 8]>()) {
            let few: [u16; 8] = groups.try_into().expect("eight");
            for ip in [Ipv6Addr::from(few), Ipv6Addr::from(odd)] {
                prop_assert_eq!(written(|room| address_v6(ip, room)), ip.to_string());
            }
        }

        #[test]
        fn eight_bytes_are_odd_if_one_is(bytes in any::<[u8; 8]>(), at in 0..8usize, other in any::<u8>()) {
            let mut near = *b"/index.h";
            near[at] = other;
            for bytes in [bytes, near] {
                for least in [b' ', b'!'] {
                    let all = bytes.iter().all(|b| PLAIN[usize::from(*b)] && *b >= least);
                    prop_assert_eq!(odd(bytes, least) == 0, all);
                }
            }
        }

        #[test]
        fn a_text_is_copied_and_plain_if_each_byte_is(text in "[ -~]{0,30}", at in 0..30usize, odd in any::<u8>()) {
            let mut text = text.into_bytes();
            if let Some(byte) = text.get_mut(at) {
                *byte = odd;
            }
            let mut copy = vec![0; text.len()];
            let plain = text.iter().all(|b| PLAIN[usize::from(*b)]);
            prop_assert_eq!(copy_plain(&text, &mut copy, b' '), plain);
            prop_assert!(!plain || copy == text);
        }

        #[test]
        fn a_quoted_string_reads_back(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let line = written(|room| quoted(&text, 100, room));
            let inner = &line[1..line.len() - 1];
            prop_assert!(!inner.contains('"') && line.bytes().all(|b| (0x20..0x7f).contains(&b)));
            let mut back = Vec::new();
            let mut rest = inner.as_bytes();
            while let Some((&first, behind)) = rest.split_first() {
                if first == b'\\' {
                    let digits = std::str::from_utf8(&behind[1..3]).expect("ASCII");
                    back.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                    rest = &behind[3..];
                } else {
                    back.push(first);
                    rest = behind;
                }
            }
            prop_assert_eq!(back, text);
        }
    }
}
