//! Values as printable ASCII: numbers, times, addresses, and texts that came over the wire, which can neither end their
//! quotes nor their line.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

/// Digits of the numbers below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// Appends a number. Most are small, or of four digits at most: these are written without a loop.
#[inline]
pub(super) fn number(n: u64, out: &mut Vec<u8>) {
    match n {
        0..10 => out.push(b'0' + n as u8),
        10..10_000 => {
            let ([a, b], [c, d]) = (PAIRS[n as usize / 100], PAIRS[n as usize % 100]);
            let unused = if n < 100 { 2 } else { usize::from(n < 1000) };
            let digits = u32::from_le_bytes([a, b, c, d]) >> (8 * unused);
            out.extend_from_slice(&digits.to_le_bytes());
            out.truncate(out.len() - unused);
        }
        _ => out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes()),
    }
}

/// Appends an address.
pub(super) fn address(ip: IpAddr, out: &mut Vec<u8>) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => address_v4(v4, out),
        // Writing into a vector cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

fn address_v4(ip: Ipv4Addr, out: &mut Vec<u8>) {
    for octet in ip.octets() {
        number(u64::from(octet), out);
        out.push(b'.');
    }
    out.pop();
}

/// Appends lower-case hexadecimal digits, all 32.
pub(super) fn hex(n: u128, out: &mut Vec<u8>) {
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(n.to_be_bytes()) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    out.extend_from_slice(&digits);
}

/// The second as a text, made once for all lines of it.
#[derive(Debug)]
pub(super) struct Second {
    of: u64,
    text: [u8; 20],
}

impl Default for Second {
    fn default() -> Second {
        Second { of: 0, text: rfc3339(0) }
    }
}

impl Second {
    /// RFC 3339 in UTC.
    pub(super) fn text(&mut self, unix_seconds: u64) -> &[u8; 20] {
        if unix_seconds != self.of {
            *self = Second { of: unix_seconds, text: rfc3339(unix_seconds) };
        }
        &self.text
    }
}

/// By the civil calendar: days are counted in years that begin in March, so that the leap day is last.
fn rfc3339(unix_seconds: u64) -> [u8; 20] {
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
        text[at..at + 2].copy_from_slice(&PAIRS[part as usize % 100]);
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

/// Whether eight bytes all stand for themselves, without looking at each.
fn all_plain(bytes: [u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    let x = u64::from_le_bytes(bytes);
    // The high bit of each byte of these is set if the byte is below the other number, or is zero; a borrow from a byte
    // in front can only set more of them behind one that is set already.
    let below = |n: u64| x.wrapping_sub(ONES * n) & !x;
    let zero = |v: u64| v.wrapping_sub(ONES) & !v;
    let is = |byte: u8| zero(x ^ (ONES * u64::from(byte)));
    (x | below(0x20) | is(b'"') | is(b'\\') | is(0x7f)) & HIGH == 0
}

/// Appends the plain bytes at the front of `bytes` and returns what is left.
#[inline]
fn plain_prefix<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let (eights, rest) = bytes.as_chunks::<8>();
    let whole = 8 * eights.iter().take_while(|eight| all_plain(**eight)).count();
    let tail = if whole == bytes.len() - rest.len() { rest } else { &bytes[whole..] };
    let plain = whole + tail.iter().take_while(|b| PLAIN[usize::from(**b)]).count();
    let (front, rest) = bytes.split_at(plain);
    out.extend_from_slice(front);
    rest
}

fn cut(bytes: &[u8], max: usize) -> (&[u8], bool) {
    if bytes.len() <= max { (bytes, false) } else { (&bytes[..max], true) }
}

/// Appends a JSON string. Valid UTF-8 parses back as it was, everything outside printable ASCII being written as `\uXXXX`;
/// bytes that are not UTF-8 stand as `\u00XX`. What is longer than `max` bytes is cut and ends in `...`.
#[inline]
pub(super) fn json_string(value: &[u8], max: usize, out: &mut Vec<u8>) {
    let (value, was_cut) = cut(value, max);
    out.push(b'"');
    let rest = plain_prefix(value, out);
    if !rest.is_empty() {
        json_escaped(rest, out);
    }
    if was_cut {
        out.extend_from_slice(b"...");
    }
    out.push(b'"');
}

#[cold]
fn json_escaped(mut rest: &[u8], out: &mut Vec<u8>) {
    while let Some(&first) = rest.first() {
        let used = match first {
            b'"' | b'\\' => {
                out.extend_from_slice(&[b'\\', first]);
                1
            }
            0x80.. => json_beyond_ascii(rest, out),
            control => {
                json_unit(u16::from(control), out);
                1
            }
        };
        rest = plain_prefix(&rest[used..], out);
    }
}

/// One character or one stray byte at the front of `bytes`, which is beyond ASCII; returns how many bytes it took.
fn json_beyond_ascii(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let window = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&window[..e.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| json_unit(*unit, out));
            c.len_utf8()
        }
        None => {
            json_unit(u16::from(bytes[0]), out);
            1
        }
    }
}

fn json_unit(unit: u16, out: &mut Vec<u8>) {
    let hex = |shift: u16| HEX[usize::from(unit >> shift & 15)];
    out.extend_from_slice(&[b'\\', b'u', hex(12), hex(8), hex(4), hex(0)]);
}

/// Appends a string of a text line, in quotes: bytes outside printable ASCII, quotes and backslashes are `\xXX`. What is
/// longer than `max` bytes is cut and ends in `...`.
#[inline]
pub(super) fn quoted(value: &[u8], max: usize, out: &mut Vec<u8>) {
    let (value, was_cut) = cut(value, max);
    out.push(b'"');
    let mut rest = plain_prefix(value, out);
    while let Some(&first) = rest.first() {
        escaped(first, out);
        rest = plain_prefix(&rest[1..], out);
    }
    if was_cut {
        out.extend_from_slice(b"...");
    }
    out.push(b'"');
}

/// Appends a word of a text line: as [`quoted`], but without quotes, and with `\x20` for a space. Nothing is `-`.
pub(super) fn word(value: &[u8], max: usize, out: &mut Vec<u8>) {
    let (value, was_cut) = cut(value, max);
    if value.is_empty() {
        return out.push(b'-');
    }
    for &byte in value {
        if PLAIN[usize::from(byte)] && byte != b' ' {
            out.push(byte);
        } else {
            escaped(byte, out);
        }
    }
    if was_cut {
        out.extend_from_slice(b"...");
    }
}

#[cold]
fn escaped(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
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
        let of = |ip: &str| written(|out| address(ip.parse().expect("an address"), out));
        assert_eq!(of("255.0.10.1"), "255.0.10.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8::1"), "2001:db8::1");
    }

    #[test]
    fn words_have_no_space_and_no_end() {
        let of = |text: &[u8]| written(|out| word(text, 8, out));
        assert_eq!(of(b"app-1.a"), "app-1.a");
        assert_eq!(of(b"a b\n"), r"a\x20b\x0a");
        assert_eq!(of(b""), "-");
        assert_eq!(of(b"123456789"), "12345678...");
    }

    #[test]
    fn ids_have_all_their_digits() {
        assert_eq!(written(|out| hex(0xabc, out)), format!("{:032x}", 0xabc));
        assert_eq!(written(|out| hex(u128::MAX - 1, out)), format!("{:032x}", u128::MAX - 1));
    }

    proptest! {
        #[test]
        fn numbers_are_as_the_formatter_writes_them(small in 0..20_000u64, any in any::<u64>(), shift in 0..64u32) {
            for n in [small, any >> shift] {
                prop_assert_eq!(written(|out| number(n, out)), n.to_string());
            }
        }

        #[test]
        fn eight_bytes_are_plain_if_each_is(bytes in any::<[u8; 8]>(), at in 0..8usize, odd in any::<u8>()) {
            let mut near = *b"/index.h";
            near[at] = odd;
            for bytes in [bytes, near] {
                prop_assert_eq!(all_plain(bytes), bytes.iter().all(|b| PLAIN[usize::from(*b)]));
            }
        }

        #[test]
        fn a_quoted_string_reads_back(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let line = written(|out| quoted(&text, 100, out));
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
