//! One exchange as one line, which no byte of a request can forge or break.

use crate::config::LogFormat;
use crate::limits;
use std::io::Write;
use std::net::IpAddr;

/// What one line tells. Fields that came over the wire are bytes as received.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Seconds since 1970 at which the exchange ended.
    pub time: u64,
    /// The client by the rules of `trusted_proxies`; `None` on Unix listeners.
    pub client: Option<IpAddr>,
    /// Empty if the head was refused before it was known.
    pub method: &'a [u8],
    /// Host as sent, or empty.
    pub host: &'a [u8],
    /// Request target with its query, or empty.
    pub path: &'a [u8],
    /// Status sent to the client; 0 if none was.
    pub status: u16,
    /// Bytes sent to the client, heads included.
    pub bytes: u64,
    /// Microseconds from the first byte of the request to the end of the exchange.
    pub duration_us: u64,
    /// The cluster, if a route was found.
    pub cluster: Option<&'a str>,
    /// The backend that answered or failed last.
    pub backend: Option<&'a str>,
    /// Attempts after the first.
    pub retries: u32,
    /// Generation of the table that routed it.
    pub generation: u64,
    /// Why it ended as it did, for example `OK` or `CLIENT_ABORT`.
    pub reason: &'static str,
}

const HOST_BYTES_MAX: usize = 256;
const METHOD_BYTES_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 128;

/// Bytes of the longest possible line: every byte of every text needs up to six, and the rest is bounded by its types.
pub(super) const LINE_BYTES_MAX: usize =
    6 * (limits::LOG_PATH_BYTES_MAX + HOST_BYTES_MAX + METHOD_BYTES_MAX + 2 * NAME_BYTES_MAX + 5 * 3) + 512;

const _: () = assert!(LINE_BYTES_MAX <= limits::LOG_BATCH_BYTES);

/// Appends `record` as exactly one line of printable ASCII with its line feed.
///
/// JSON: one object; texts that are valid UTF-8 parse back as they were, everything outside printable ASCII being
/// written as `\uXXXX`. Bytes that are not UTF-8 stand as `\u00XX`. Text: space-separated, in the order time, client,
/// status, bytes, microseconds, "method", "host", "path", "cluster", "backend", retries, generation, reason; bytes
/// outside printable ASCII, quotes and backslashes are `\xXX`; what is missing is `-`. A method, host, path or name that
/// is too long is cut and ends in `...`.
pub fn format(record: &Record, format: LogFormat, out: &mut Vec<u8>) {
    match format {
        LogFormat::Json => json(record, out),
        LogFormat::Text => text(record, out),
    }
}

fn json(r: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    time(r.time, out);
    out.extend_from_slice(b"\",\"client\":");
    match r.client {
        Some(ip) => {
            out.push(b'"');
            address(ip, out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
    json_text(b",\"method\":", Some(r.method), METHOD_BYTES_MAX, out);
    json_text(b",\"host\":", Some(r.host), HOST_BYTES_MAX, out);
    json_text(b",\"path\":", Some(r.path), limits::LOG_PATH_BYTES_MAX, out);
    json_number(b",\"status\":", u64::from(r.status), out);
    json_number(b",\"bytes\":", r.bytes, out);
    json_number(b",\"duration_us\":", r.duration_us, out);
    json_text(b",\"cluster\":", r.cluster.map(str::as_bytes), NAME_BYTES_MAX, out);
    json_text(b",\"backend\":", r.backend.map(str::as_bytes), NAME_BYTES_MAX, out);
    json_number(b",\"retries\":", u64::from(r.retries), out);
    json_number(b",\"generation\":", r.generation, out);
    json_text(b",\"reason\":", Some(r.reason.as_bytes()), NAME_BYTES_MAX, out);
    out.extend_from_slice(b"}\n");
}

fn text(r: &Record, out: &mut Vec<u8>) {
    time(r.time, out);
    out.push(b' ');
    match r.client {
        Some(ip) => address(ip, out),
        None => out.push(b'-'),
    }
    for n in [u64::from(r.status), r.bytes, r.duration_us] {
        out.push(b' ');
        number(n, out);
    }
    quoted(Some(r.method), METHOD_BYTES_MAX, out);
    quoted(Some(r.host), HOST_BYTES_MAX, out);
    quoted(Some(r.path), limits::LOG_PATH_BYTES_MAX, out);
    quoted(r.cluster.map(str::as_bytes), NAME_BYTES_MAX, out);
    quoted(r.backend.map(str::as_bytes), NAME_BYTES_MAX, out);
    for n in [u64::from(r.retries), r.generation] {
        out.push(b' ');
        number(n, out);
    }
    out.push(b' ');
    out.extend_from_slice(r.reason.as_bytes());
    out.push(b'\n');
}

fn number(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn json_number(key: &[u8], n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    number(n, out);
}

fn address(ip: IpAddr, out: &mut Vec<u8>) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                number(u64::from(octet), out);
            }
        }
        // Writing into a vector cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// A time as RFC 3339 in UTC.
pub fn rfc3339(unix_seconds: u64) -> String {
    let mut out = Vec::new();
    time(unix_seconds, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// RFC 3339 in UTC, by the civil calendar: days are counted in years that begin in March, so that the leap day is last.
fn time(unix_seconds: u64, out: &mut Vec<u8>) {
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
    let two = |n: u64| [b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
    out.extend_from_slice(&two(year / 100));
    out.extend_from_slice(&two(year % 100));
    for (sign, n) in [(b'-', month), (b'-', day), (b'T', rest / 3600), (b':', rest / 60 % 60), (b':', rest % 60)] {
        out.push(sign);
        out.extend_from_slice(&two(n));
    }
    out.push(b'Z');
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

/// Appends the plain bytes at the front of `bytes` and returns what is left.
fn plain_prefix<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let plain = bytes.iter().position(|b| !PLAIN[usize::from(*b)]).unwrap_or(bytes.len());
    let (front, rest) = bytes.split_at(plain);
    out.extend_from_slice(front);
    rest
}

fn cut(bytes: &[u8], max: usize) -> (&[u8], bool) {
    if bytes.len() <= max { (bytes, false) } else { (&bytes[..max], true) }
}

fn json_text(key: &[u8], value: Option<&[u8]>, max: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    let Some(value) = value else { return out.extend_from_slice(b"null") };
    let (value, was_cut) = cut(value, max);
    out.push(b'"');
    let mut rest = plain_prefix(value, out);
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
    out.extend_from_slice(if was_cut { b"...\"" } else { b"\"" });
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

fn quoted(value: Option<&[u8]>, max: usize, out: &mut Vec<u8>) {
    let Some(value) = value else { return out.extend_from_slice(b" -") };
    let (value, was_cut) = cut(value, max);
    out.extend_from_slice(b" \"");
    let mut rest = plain_prefix(value, out);
    while let Some(&first) = rest.first() {
        out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(first >> 4)], HEX[usize::from(first & 15)]]);
        rest = plain_prefix(&rest[1..], out);
    }
    out.extend_from_slice(if was_cut { b"...\"" } else { b"\"" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record<'static> {
        Record {
            time: 1_709_210_096,
            client: Some(IpAddr::from([192, 0, 2, 7])),
            method: b"GET",
            host: b"a.example",
            path: b"/x?y=1",
            status: 200,
            bytes: 1234,
            duration_us: 567,
            cluster: Some("app"),
            backend: Some("b1"),
            retries: 1,
            generation: 3,
            reason: "OK",
        }
    }

    fn line(record: &Record, how: LogFormat) -> String {
        let mut out = Vec::new();
        format(record, how, &mut out);
        String::from_utf8(out).expect("lines are ASCII")
    }

    fn parsed(record: &Record) -> serde_json::Value {
        serde_json::from_str(&line(record, LogFormat::Json)).expect("a line of the log is JSON")
    }

    #[test]
    fn a_plain_exchange_in_both_formats() {
        assert_eq!(
            line(&record(), LogFormat::Json),
            concat!(
                r#"{"time":"2024-02-29T12:34:56Z","client":"192.0.2.7","method":"GET","host":"a.example","#,
                r#""path":"/x?y=1","status":200,"bytes":1234,"duration_us":567,"cluster":"app","backend":"b1","#,
                r#""retries":1,"generation":3,"reason":"OK"}"#,
                "\n"
            )
        );
        assert_eq!(
            line(&record(), LogFormat::Text),
            "2024-02-29T12:34:56Z 192.0.2.7 200 1234 567 \"GET\" \"a.example\" \"/x?y=1\" \"app\" \"b1\" 1 3 OK\n"
        );
    }

    #[test]
    fn what_is_missing_is_null_or_a_dash() {
        let r = Record { client: None, cluster: None, backend: None, method: b"", host: b"", path: b"", ..record() };
        let v = parsed(&r);
        assert!(v["client"].is_null() && v["cluster"].is_null() && v["backend"].is_null());
        assert_eq!(v["path"], "");
        assert_eq!(line(&r, LogFormat::Text), "2024-02-29T12:34:56Z - 200 1234 567 \"\" \"\" \"\" - - 1 3 OK\n");
    }

    #[test]
    fn a_request_cannot_forge_a_line_or_a_field() {
        let r = Record {
            path: b"/\r\n{\"time\":\"x\"}\",\"status\":200,\"x\":\"\\",
            host: b"\x00\x1b[2J\x7f\xff\xe2\x80\xa8\xc2\x85",
            ..record()
        };
        let v = parsed(&r);
        assert_eq!(v["path"], "/\r\n{\"time\":\"x\"}\",\"status\":200,\"x\":\"\\");
        assert_eq!(v["host"], "\0\u{1b}[2J\u{7f}\u{ff}\u{2028}\u{85}");
        assert_eq!(v["status"], 200);
        assert_eq!(v.as_object().map(|o| o.len()), Some(13));
        let text = line(&r, LogFormat::Text);
        assert!(text.contains(r#""\x00\x1b[2J\x7f\xff\xe2\x80\xa8\xc2\x85""#), "{text}");
        assert_eq!(text.matches('"').count(), 10);
    }

    #[test]
    fn characters_beyond_ascii_parse_back() {
        let r = Record { path: "/ü/€/😀".as_bytes(), ..record() };
        assert_eq!(parsed(&r)["path"], "/ü/€/😀");
        assert!(line(&r, LogFormat::Json).contains(r"/\u00fc/\u20ac/\ud83d\ude00"));
    }

    #[test]
    fn long_texts_are_cut_and_the_longest_line_fits_a_batch() {
        let evil = vec![1; 70_000];
        let name = "\u{1}".repeat(70_000);
        let r = Record {
            time: u64::MAX,
            client: Some(IpAddr::from([0xffff; 8])),
            method: &evil,
            host: &evil,
            path: &evil,
            status: u16::MAX,
            bytes: u64::MAX,
            duration_us: u64::MAX,
            cluster: Some(&name),
            backend: Some(&name),
            retries: u32::MAX,
            generation: u64::MAX,
            reason: "CLIENT_ABORT",
        };
        for how in [LogFormat::Json, LogFormat::Text] {
            let line = line(&r, how);
            assert!(line.len() <= LINE_BYTES_MAX, "{} of {LINE_BYTES_MAX}", line.len());
            assert!(line.contains("...\""));
        }
    }

    #[test]
    fn times_of_all_kinds_of_years() {
        let of = |t| {
            let mut out = Vec::new();
            time(t, &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(of(0), "1970-01-01T00:00:00Z");
        assert_eq!(of(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(of(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(of(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(of(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn addresses() {
        let of = |ip: &str| {
            let mut out = Vec::new();
            address(ip.parse().expect("an address"), &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(of("10.0.255.1"), "10.0.255.1");
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(of("2001:db8::1"), "2001:db8::1");
    }

    proptest! {
        #[test]
        fn always_exactly_one_line_that_parses_back(
            path in proptest::collection::vec(any::<u8>(), 0..200),
            host in any::<String>(),
            numbers in any::<(u64, u16, u64, u64, u32, u64)>(),
        ) {
            let r = Record {
                time: numbers.0, status: numbers.1, bytes: numbers.2, duration_us: numbers.3, retries: numbers.4,
                generation: numbers.5, path: &path, host: &host.as_bytes()[..host.len().min(HOST_BYTES_MAX)],
                cluster: None, ..record()
            };
            for how in [LogFormat::Json, LogFormat::Text] {
                let line = line(&r, how);
                prop_assert_eq!(line.bytes().filter(|b| !(0x20..0x7f).contains(b)).count(), 1);
                prop_assert!(line.ends_with('\n'));
            }
            let v = parsed(&r);
            prop_assert_eq!(v["bytes"].as_u64(), Some(numbers.2));
            if let Ok(path) = std::str::from_utf8(&path) {
                prop_assert_eq!(v["path"].as_str(), Some(path));
            }
            if host.len() <= HOST_BYTES_MAX {
                prop_assert_eq!(v["host"].as_str(), Some(host.as_str()));
            }
        }
    }
}
