//! The words of the config file: durations, sizes, addresses, blocks, names. Each is parsed by one function, which the
//! walk over the file (`shape`) and the deserialisation (`file`) share, so that both say the same.

use super::Address;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Why a word was refused, and what to write instead where that can be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong, without the place.
    pub message: String,
    /// What to write instead, as a whole sentence or a phrase such as "did you mean ...".
    pub suggestion: Option<String>,
}

impl Refusal {
    /// Without a suggestion.
    pub(super) fn new(message: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), suggestion: None }
    }

    /// With "write ... instead".
    pub(super) fn write(message: impl Into<String>, instead: impl fmt::Display) -> Refusal {
        Refusal { message: message.into(), suggestion: Some(format!("write \"{instead}\"")) }
    }

    /// With free advice.
    pub(super) fn hint(message: impl Into<String>, advice: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), suggestion: Some(advice.into()) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.suggestion.as_ref().map_or(Ok(()), |s| write!(f, " ({s})"))
    }
}

/// Longest duration that may be configured: a year, which leaves every sum of seconds far from overflow.
pub const DURATION_SECONDS_MAX: u32 = 365 * 86_400;

/// Parses `30s`, `500ms`, `1m`, `2h`, `1d` to whole seconds. Deadlines have a resolution of one second: a fraction is
/// rounded up, so that nothing waits shorter than asked.
pub fn duration(text: &str) -> Result<u32, Refusal> {
    // At most a year of them.
    millis(text).map(|ms| ms.div_ceil(1000) as u32)
}

/// Parses the same to milliseconds.
pub fn millis(text: &str) -> Result<u64, Refusal> {
    let (number, unit) = split_number(text).ok_or_else(|| {
        Refusal::hint(format!("{text:?} is not a duration"), "a whole number and ms, s, m, h or d, as in \"30s\"")
    })?;
    let millis_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(Refusal::write(format!("duration {text:?} has no unit"), format_args!("{text}s"))),
        _ => {
            let message = format!("{unit:?} is not a unit of time");
            let lower = unit.to_ascii_lowercase();
            let unit = match lower.as_str() {
                "ms" | "s" | "m" | "h" | "d" => lower.as_str(),
                "sec" | "secs" | "second" | "seconds" => "s",
                "min" | "mins" | "minute" | "minutes" => "m",
                "hr" | "hour" | "hours" => "h",
                "day" | "days" => "d",
                _ => return Err(Refusal::hint(message, "units are ms, s, m, h and d")),
            };
            return Err(Refusal::write(message, format_args!("{number}{unit}")));
        }
    };
    match number.checked_mul(millis_per_unit) {
        Some(ms) if ms <= u64::from(DURATION_SECONDS_MAX) * 1000 => Ok(ms),
        _ => Err(Refusal::write(format!("duration {text:?} is longer than a year"), "365d")),
    }
}

/// The shortest way to write so many seconds.
pub fn duration_text(seconds: u32) -> String {
    match seconds {
        0 => "0s".into(),
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// The shortest way to write so many milliseconds.
pub fn millis_text(millis: u64) -> String {
    match u32::try_from(millis / 1000) {
        Ok(seconds) if millis.is_multiple_of(1000) => duration_text(seconds),
        _ => format!("{millis}ms"),
    }
}

/// Parses `16KiB`, `10MB`, `512B` or `unlimited` to bytes; unlimited is [`u64::MAX`].
pub fn size(text: &str) -> Result<u64, Refusal> {
    if text == "unlimited" {
        return Ok(u64::MAX);
    }
    let (number, unit) = split_number(text).ok_or_else(|| {
        Refusal::hint(
            format!("{text:?} is not a size"),
            "a whole number and B, KiB, MiB, GiB, kB, MB or GB, as in \"16KiB\", or \"unlimited\"",
        )
    })?;
    let bytes_per_unit: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "" => return Err(Refusal::write(format!("size {text:?} has no unit"), format_args!("{text}B"))),
        _ => {
            let message = format!("{unit:?} is not a unit of size");
            let unit = match unit.to_ascii_lowercase().as_str() {
                "b" | "bytes" => "B",
                "k" | "ki" | "kib" => "KiB",
                "m" | "mi" | "mib" => "MiB",
                "g" | "gi" | "gib" => "GiB",
                "kb" => "kB",
                "mb" => "MB",
                "gb" => "GB",
                _ => return Err(Refusal::hint(message, "units are B, KiB, MiB, GiB, kB, MB and GB")),
            };
            return Err(Refusal::write(message, format_args!("{number}{unit}")));
        }
    };
    match number.checked_mul(bytes_per_unit) {
        Some(u64::MAX) | None => Err(Refusal::write(format!("size {text:?} is too large"), "unlimited")),
        Some(bytes) => Ok(bytes),
    }
}

/// The shortest way to write so many bytes.
pub fn size_text(bytes: u64) -> String {
    match bytes {
        u64::MAX => "unlimited".into(),
        0 => "0B".into(),
        b if b % (1 << 30) == 0 => format!("{}GiB", b >> 30),
        b if b % (1 << 20) == 0 => format!("{}MiB", b >> 20),
        b if b % (1 << 10) == 0 => format!("{}KiB", b >> 10),
        b => format!("{b}B"),
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

/// Longest path of a Unix socket (`sun_path` without its final NUL).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Parses a backend's address: `IP:PORT`, `[IPV6]:PORT`, `NAME:PORT` or `unix:PATH`.
pub fn address(text: &str) -> Result<Address, Refusal> {
    const FORMS: &str = "an address is IP:PORT, [IPV6]:PORT, NAME:PORT or unix:PATH";
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(Address::Unix);
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return if socket.port() == 0 {
            Err(Refusal::hint("port 0", "ports are 1 to 65535"))
        } else {
            Ok(Address::Ip(socket))
        };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(Refusal::write(format!("address {text:?} has no port"), SocketAddr::new(ip, 80)));
    }
    if let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
        return Err(Refusal::write("an address has no scheme", rest.trim_end_matches('/')));
    }
    if text.starts_with('/') {
        return Err(Refusal::write(format!("{text:?} is a path"), format_args!("unix:{text}")));
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        let message = format!("address {text:?} has no port");
        return Err(if host_name(text).is_ok() {
            Refusal::write(message, format_args!("{text}:80"))
        } else {
            Refusal::hint(message, FORMS)
        });
    };
    let port = match port.parse::<u16>() {
        Ok(port) if port != 0 && text.as_bytes()[name.len() + 1] != b'+' => port,
        _ => return Err(Refusal::hint(format!("{port:?} is not a port"), "ports are 1 to 65535")),
    };
    if name.contains([':', '[', ']']) {
        return Err(Refusal::hint(format!("{name:?} is not an IPv6 address in brackets"), FORMS));
    }
    if name.is_empty() || name == "*" {
        return Err(Refusal::hint(format!("address {text:?} names no host"), FORMS));
    }
    // A name whose last label is a number is meant as an IPv4 address (and resolvers would take "127.1" for one).
    // With the dot of the root behind it, it is the same name.
    let labels = name.strip_suffix('.').unwrap_or(name);
    if labels.rsplit('.').next().is_some_and(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit())) {
        return Err(Refusal::hint(format!("{name:?} is not an IPv4 address"), "four numbers from 0 to 255"));
    }
    host_name(name).map(|name| Address::Name(name, port))
}

/// Parses a listener's address: `IP:PORT`, `[IPV6]:PORT` or `unix:PATH`. A name is refused: what it resolves to may
/// change or be several, and a listener is one socket per core.
pub fn listen_address(text: &str) -> Result<Address, Refusal> {
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        return Err(Refusal::write(
            format!("listener address {text:?} names no IP address"),
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port.parse().unwrap_or(80)),
        ));
    }
    match address(text)? {
        Address::Name(name, port) => {
            let message = format!("a listener needs an IP address, and {name:?} is a name");
            Err(if name == "localhost" {
                Refusal::write(message, format_args!("127.0.0.1:{port}"))
            } else {
                Refusal::hint(message, "write the IP address, 0.0.0.0 or [::] for all interfaces")
            })
        }
        address => Ok(address),
    }
}

fn unix_path(path: &str) -> Result<PathBuf, Refusal> {
    match path {
        "" => Err(Refusal::write("unix: without a path", "unix:/run/app.sock")),
        p if p.starts_with('@') => {
            Err(Refusal::hint("abstract sockets are not supported", "a path in the file system"))
        }
        p if p.contains('\0') => Err(Refusal::new("a path cannot contain a NUL")),
        p if p.len() > UNIX_PATH_BYTES_MAX => Err(Refusal::new(format!(
            "the path of a Unix socket has at most {UNIX_PATH_BYTES_MAX} bytes, this one has {}",
            p.len()
        ))),
        p => Ok(PathBuf::from(p)),
    }
}

/// Whether a path, joined with the config file's directory, still fits a socket address.
pub(super) fn unix_path_fits(path: &std::path::Path) -> bool {
    path.as_os_str().len() <= UNIX_PATH_BYTES_MAX
}

/// The address as the config file writes it.
pub fn address_text(address: &Address) -> String {
    match address {
        Address::Ip(socket) => socket.to_string(),
        Address::Name(name, port) => format!("{name}:{port}"),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Parses a block of addresses, `10.0.0.0/8`, or one address, which is a block of its own.
pub fn block(text: &str) -> Result<IpNet, Refusal> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    let net: IpNet = text.parse().map_err(|_| {
        Refusal::hint(
            format!("{text:?} is not a block of addresses"),
            "as in \"10.0.0.0/8\", \"fd00::/8\" or \"192.0.2.1\"",
        )
    })?;
    // Bits behind the prefix are more often a wrong prefix than an idle thought; trust must not rest on a guess.
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(Refusal::write(format!("{text:?} has bits set behind its prefix"), net.trunc()))
    }
}

/// Parses a host name to lower case without trailing dot: labels of letters, digits, `-` and `_`, at most 63 bytes
/// each and 253 in all (RFC 1123 section 2.1; `_` is in use).
pub fn host_name(text: &str) -> Result<String, Refusal> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(Refusal::new("an empty host name"));
    }
    if name.len() > 253 {
        return Err(Refusal::new("a host name has at most 253 bytes"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(Refusal::new(format!("host name {text:?} has an empty label")));
        }
        if label.len() > 63 {
            return Err(Refusal::new(format!("label {label:?} has more than 63 bytes")));
        }
        if !label.is_ascii() {
            return Err(Refusal::hint(
                format!("host name {text:?} is not ASCII"),
                "write an international name in its xn-- form, as clients send it",
            ));
        }
        if let Some(bad) = label.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
            return Err(Refusal::new(format!("{bad:?} cannot stand in a host name")));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(Refusal::new(format!("label {label:?} begins or ends with a hyphen")));
        }
    }
    Ok(name.to_ascii_lowercase())
}

/// Checks a name that the operator gives: it travels through logs, metrics and commands, so it is kept plain.
pub fn name(text: &str) -> Result<(), Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > 128 {
        return Err(Refusal::new(format!("a name has 1 to 128 bytes, this one has {}", text.len())));
    }
    match text.chars().find(|c| !plain(*c)) {
        None => Ok(()),
        Some(bad) => {
            let better: String = text.chars().map(|c| if plain(c) { c } else { '-' }).collect();
            Err(Refusal::write(
                format!("{bad:?} cannot stand in a name (letters, digits, \".\", \"_\", \"-\" can)"),
                better,
            ))
        }
    }
}

/// Parses the permission bits of a socket, octal: `0660`.
pub fn mode(text: &str) -> Result<u32, Refusal> {
    match u32::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o777 && !text.starts_with('+') => Ok(bits),
        _ => Err(Refusal::write(format!("{text:?} are no permission bits"), "0660")),
    }
}

/// Checks a Via pseudonym: a token, or a host with an optional port (RFC 9110 section 7.6.3).
pub fn pseudonym(text: &str) -> Result<(), Refusal> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:[]".contains(&b);
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(fits) {
        Ok(())
    } else {
        Err(Refusal::write(format!("{text:?} is not a Via pseudonym"), "ringway"))
    }
}

/// Checks the name of a header field (RFC 9110 section 5.1) or a cookie (RFC 6265 section 4.1.1): a token.
pub fn token(text: &str) -> Result<(), Refusal> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(fits) {
        Ok(())
    } else {
        let advice = "letters, digits and -, not more than 255; no blanks, no colon";
        Err(Refusal::hint(format!("{text:?} cannot be the name of a field or cookie"), advice))
    }
}

/// Checks where the access log goes: `off`, `stdout`, or a path, which must contain a slash so that a mistyped word
/// does not become a file.
pub fn log_target(text: &str) -> Result<(), Refusal> {
    if matches!(text, "off" | "stdout") || (text.contains('/') && !text.contains('\0') && !text.ends_with('/')) {
        return Ok(());
    }
    let message = format!("{text:?} is neither \"off\", \"stdout\" nor a path with a \"/\"");
    Err(match ["off", "stdout"].into_iter().find(|w| strsim::osa_distance(w, text) <= 2) {
        Some(word) => Refusal::write(message, word),
        None => Refusal::write(message, format_args!("./{}", text.trim_end_matches('/'))),
    })
}

/// Checks a path in the file system.
pub fn file_path(text: &str) -> Result<(), Refusal> {
    if text.is_empty() || text.contains('\0') || text.ends_with('/') {
        return Err(Refusal::new(format!("{text:?} is not the path of a file")));
    }
    Ok(())
}

/// Checks what a probe asks for: a path with an optional query, ready to stand in a request line.
pub fn probe_path(text: &str) -> Result<(), Refusal> {
    if !text.starts_with('/') {
        let path = text.split_once("://").map_or(text, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
        return Err(Refusal::write("a probe asks for a path", format_args!("/{}", path.trim_start_matches('/'))));
    }
    match text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        None => Ok(()),
        Some(bad) => Err(Refusal::new(format!("{bad:?} cannot stand in a request line"))),
    }
}

/// Checks a method: a token in capitals. CONNECT is none that a backend could answer.
pub fn method(text: &str) -> Result<(), Refusal> {
    let capitals = text.to_ascii_uppercase();
    let fits = text.len() <= 32 && capitals.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if text.is_empty() || capitals == "CONNECT" || !fits {
        Err(Refusal::write(format!("a probe cannot ask by {text:?}"), "GET"))
    } else if capitals != text {
        Err(Refusal::write(format!("methods are in capitals, {text:?} is not"), capitals))
    } else {
        Ok(())
    }
}

/// Field names that a probe's request sets by itself or that would change its framing.
const PROBE_FIELDS_TAKEN: [&str; 6] = ["connection", "content-length", "expect", "te", "transfer-encoding", "upgrade"];

/// Checks the name of a field that a probe sends: a token (RFC 9110 section 5.6.2) that is not Ringway's to set.
pub fn probe_field(text: &str) -> Result<(), Refusal> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > 256 || !text.bytes().all(fits) {
        return Err(Refusal::new(format!("{text:?} is not the name of a field")));
    }
    if text.eq_ignore_ascii_case("host") {
        return Err(Refusal::hint("the probe's host has a key of its own", "write \"host\" beside \"headers\""));
    }
    if PROBE_FIELDS_TAKEN.iter().any(|taken| text.eq_ignore_ascii_case(taken)) {
        return Err(Refusal::new(format!("{text:?} is set by Ringway, or would change the request's framing")));
    }
    Ok(())
}

/// Checks the value of a field: visible characters, and blanks between them.
pub fn field_value(text: &str) -> Result<(), Refusal> {
    let fits = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
    if text.len() <= 4096 && text.bytes().all(fits) && text.trim() == text {
        Ok(())
    } else {
        Err(Refusal::new(format!("{text:?} cannot be the value of a field")))
    }
}

/// Checks the host that a probe names: a name or an address, with a port if need be.
pub fn probe_host(text: &str) -> Result<(), Refusal> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(fits) {
        Ok(())
    } else {
        Err(Refusal::write(format!("{text:?} is not a host"), "app.example.io"))
    }
}

/// Checks the text that a probe looks for.
pub fn probe_text(text: &str) -> Result<(), Refusal> {
    match text.len() {
        0 => Err(Refusal::new("an empty text stands in every body")),
        n if n > crate::limits::PROBE_TEXT_BYTES_MAX => Err(Refusal::new(format!(
            "a text has at most {} bytes, this one has {n}",
            crate::limits::PROBE_TEXT_BYTES_MAX
        ))),
        _ => Ok(()),
    }
}

/// Parses a class of statuses, `2xx` to `5xx`, to its first digit.
pub fn status_class(text: &str) -> Result<u16, Refusal> {
    let classes = ["2xx", "3xx", "4xx", "5xx"];
    if let Some(at) = classes.iter().position(|c| *c == text) {
        return Ok(at as u16 + 2);
    }
    let message = format!("{text:?} is not a class of statuses");
    let lower = text.to_ascii_lowercase();
    Err(if classes.contains(&lower.as_str()) {
        Refusal::write(message, lower)
    } else if text.parse::<u16>().is_ok_and(|n| (200..600).contains(&n)) {
        Refusal::hint(message, format!("write {text} without quotes"))
    } else {
        Refusal::hint(message, "\"2xx\", \"3xx\", \"4xx\" or \"5xx\", or a number from 200 to 599")
    })
}

/// Checks a path that Ringway answers itself: compared with the request's byte by byte, so it has no query.
pub fn health_path(text: &str) -> Result<(), Refusal> {
    if !text.starts_with('/') {
        return Err(Refusal::write("a health path begins with /", format_args!("/{text}")));
    }
    match text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '#' | '?')) {
        None => Ok(()),
        Some('?') => Err(Refusal::hint("a health path has no query", "requests match with any query")),
        Some(bad) => Err(Refusal::new(format!("{bad:?} cannot stand in a path"))),
    }
}

/// Statuses that Ringway answers with by itself, and that a page can be given for.
pub const OWN_STATUSES: [u16; 12] = [400, 404, 408, 413, 414, 417, 431, 501, 502, 503, 504, 505];

/// Parses the key of a page.
pub fn own_status(text: &str) -> Result<u16, Refusal> {
    text.parse().ok().filter(|s| OWN_STATUSES.contains(s) && text.len() == 3).ok_or_else(|| {
        Refusal::hint(
            format!("Ringway has no answer of its own with status {text:?}"),
            format!("one of {}", OWN_STATUSES.map(|s| s.to_string()).join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestion<T: fmt::Debug>(result: Result<T, Refusal>) -> String {
        result.unwrap_err().suggestion.unwrap_or_default()
    }

    #[test]
    fn durations() {
        for (text, seconds) in
            [("30s", 30), ("500ms", 1), ("1001ms", 2), ("1m", 60), ("2h", 7200), ("365d", 31_536_000)]
        {
            assert_eq!(duration(text), Ok(seconds), "{text}");
            assert_eq!(duration(&duration_text(seconds)), Ok(seconds));
        }
        assert_eq!(suggestion(duration("30")), "write \"30s\"");
        assert_eq!(suggestion(duration("5min")), "write \"5m\"");
        for bad in
            ["", "s", "-1s", "1.5s", "1 s", "366d", "99999999999999999999s", "18446744073709551615d", "1y", "+1s"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0B", 0),
            ("16KiB", 16_384),
            ("1MiB", 1 << 20),
            ("10MB", 10_000_000),
            ("unlimited", u64::MAX),
            ("7GiB", 7 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&size_text(bytes)), Ok(bytes));
        }
        assert_eq!(suggestion(size("10m")), "write \"10MiB\"");
        assert_eq!(suggestion(size("1024")), "write \"1024B\"");
        assert_eq!(suggestion(size("18446744073709551615B")), "write \"unlimited\"");
        for bad in ["", "KiB", "1.5MiB", "-1B", "99999999999GiB", "Unlimited"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(address("127.0.0.1:80"), Ok(Address::Ip("127.0.0.1:80".parse().unwrap())));
        assert_eq!(address("[::1]:80"), Ok(Address::Ip("[::1]:80".parse().unwrap())));
        assert_eq!(address("App.Internal.:80"), Ok(Address::Name("app.internal".into(), 80)));
        assert_eq!(address("unix:/run/a.sock"), Ok(Address::Unix("/run/a.sock".into())));
        for good in ["127.0.0.1:80", "[::1]:80", "app.internal:80", "unix:/run/a.sock"] {
            assert_eq!(address_text(&address(good).unwrap()), good);
        }
        assert_eq!(suggestion(address("127.0.0.1")), "write \"127.0.0.1:80\"");
        assert_eq!(suggestion(address("::1")), "write \"[::1]:80\"");
        assert_eq!(suggestion(address("http://app:80/")), "write \"app:80\"");
        assert_eq!(suggestion(address("/run/a.sock")), "write \"unix:/run/a.sock\"");
        for bad in [
            "",
            ":80",
            "app",
            "app:0",
            "app:",
            "app:65536",
            "app:+80",
            "1.2.3.4:0",
            "1.2.3:80",
            "1.2.3.:80",
            "1.2.3.4.:80",
            "256.1.1.1:80",
            "a b:80",
            "::1:x",
            "unix:",
            "unix:@a",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert_eq!(suggestion(listen_address("localhost:8080")), "write \"127.0.0.1:8080\"");
        assert_eq!(suggestion(listen_address(":8080")), "write \"0.0.0.0:8080\"");
        assert!(listen_address("app:80").is_err() && listen_address("[::]:80").is_ok());
        assert!(address(&format!("unix:/{}", "x".repeat(107))).is_err());
    }

    #[test]
    fn blocks_names_and_the_rest() {
        assert_eq!(block("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(block("::1").unwrap().to_string(), "::1/128");
        assert_eq!(suggestion(block("10.1.0.0/8")), "write \"10.0.0.0/8\"");
        assert!(block("10.0.0.0/33").is_err());
        assert_eq!(suggestion(name("my app")), "write \"my-app\"");
        assert!(name("").is_err() && name("app_1.b-2").is_ok());
        assert_eq!(mode("0660"), Ok(0o660));
        assert!(mode("0999").is_err() && mode("7777").is_err() && mode("").is_err());
        assert!(pseudonym("ringway").is_ok() && pseudonym("a b").is_err() && pseudonym("a\r\n").is_err());
        assert_eq!(suggestion(log_target("stdot")), "write \"stdout\"");
        assert_eq!(suggestion(log_target("access.log")), "write \"./access.log\"");
        assert!(log_target("/var/log/a.log").is_ok());
        assert_eq!(suggestion(probe_path("http://a/health")), "write \"/health\"");
        assert!(probe_path("/health?deep=1").is_ok() && probe_path("/a b").is_err() && probe_path("/a\r\nb").is_err());
        assert_eq!(suggestion(method("head")), "write \"HEAD\"");
        assert!(
            method("OPTIONS").is_ok() && method("CONNECT").is_err() && method("A B").is_err() && method("").is_err()
        );
        assert!(probe_field("X-Probe").is_ok() && probe_field("User-Agent").is_ok());
        assert!(["Host", "connection", "Transfer-Encoding", "a b", ""].iter().all(|n| probe_field(n).is_err()));
        assert!(field_value("a b").is_ok() && field_value("a\r\nb").is_err() && field_value(" a").is_err());
        assert!(probe_host("app.io:80").is_ok() && probe_host("a b").is_err() && probe_host("").is_err());
        assert!(probe_text("ok").is_ok() && probe_text("").is_err() && probe_text(&"x".repeat(2000)).is_err());
        assert_eq!(status_class("5xx"), Ok(5));
        assert_eq!(suggestion(status_class("5XX")), "write \"5xx\"");
        assert_eq!(suggestion(status_class("503")), "write 503 without quotes");
        assert_eq!(own_status("502"), Ok(502));
        assert!(own_status("200").is_err() && own_status("0502").is_err());
    }
}
