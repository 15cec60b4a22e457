//! Request targets and hosts (RFC 9112 section 3.2, RFC 9110 section 4.2, RFC 3986 sections 2 and 3), as whole texts.

use super::{alpha, digit, hexdig};

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `absolute-path [ "?" query ]`
    Origin {
        /// The path.
        path: Vec<u8>,
        /// The query with its `?`, or nothing.
        query: Vec<u8>,
    },
    /// `absolute-URI` of scheme http or https.
    Absolute {
        /// Host and port.
        authority: Authority,
        /// The path, perhaps empty.
        path: Vec<u8>,
        /// The query with its `?`, or nothing.
        query: Vec<u8>,
    },
    /// `absolute-URI` of any other scheme.
    Foreign,
    /// `uri-host ":" port`, for CONNECT.
    Authority(Authority),
    /// `*`, for OPTIONS.
    Asterisk,
}

/// `uri-host [ ":" port ]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// The host; IP literals with their brackets.
    pub host: Vec<u8>,
    /// The digits behind the colon, if there is one.
    pub port: Option<Vec<u8>>,
}

/// `request-target`, of the form that the method asks for.
pub fn request_target(method: &[u8], text: &[u8]) -> Option<Target> {
    if method == b"CONNECT" {
        // RFC 9110 section 9.3.6: "There is no default port", and an empty one names none.
        let found = authority(text)?;
        let named = !found.host.is_empty() && found.port.as_ref().is_some_and(|port| !port.is_empty());
        return named.then_some(Target::Authority(found));
    }
    if text == b"*" {
        return (method == b"OPTIONS").then_some(Target::Asterisk);
    }
    if text.first() == Some(&b'/') {
        let (path, query) = split_query(text)?;
        return Some(Target::Origin { path, query });
    }
    // absolute-URI = scheme ":" hier-part [ "?" query ]
    let colon = text.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
    let scheme_bytes = |&byte: &u8| alpha(byte) || digit(byte) || b"+-.".contains(&byte);
    if !scheme.first().is_some_and(|&byte| alpha(byte)) || !scheme.iter().all(scheme_bytes) {
        return None;
    }
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Some(Target::Foreign);
    }
    // http-URI = "http" "://" authority path-abempty [ "?" query ], with a host (RFC 9110 section 4.2.1) and, for a strict
    // recipient, without userinfo (section 4.2.4).
    let rest = rest.strip_prefix(b"//")?;
    let end = rest.iter().position(|&byte| byte == b'/' || byte == b'?').unwrap_or(rest.len());
    let authority = authority(&rest[..end]).filter(|found| !found.host.is_empty())?;
    let (path, query) = split_query(&rest[end..])?;
    Some(Target::Absolute { authority, path, query })
}

/// `path-abempty [ "?" query ]`
fn split_query(text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let end = text.iter().position(|&byte| byte == b'?').unwrap_or(text.len());
    let (path, query) = (&text[..end], &text[end..]);
    let good = escaped(path, |byte| pchar(byte) || byte == b'/')
        && escaped(query, |byte| pchar(byte) || byte == b'/' || byte == b'?')
        && (path.is_empty() || path[0] == b'/');
    good.then(|| (path.to_vec(), query.to_vec()))
}

/// `uri-host [ ":" port ]`, the Host field's value; an empty one has an empty reg-name.
pub fn authority(text: &[u8]) -> Option<Authority> {
    let host_end = match text.first() {
        Some(b'[') => text.iter().position(|&byte| byte == b']')? + 1,
        _ => text.iter().position(|&byte| byte == b':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    let literal = host.strip_prefix(b"[").and_then(|inner| inner.strip_suffix(b"]"));
    let good = match literal {
        Some(inner) => ipv6(inner) || ip_future(inner),
        None => escaped(host, |byte| unreserved(byte) || sub_delim(byte)),
    };
    let port = match rest {
        [] => None,
        [b':', digits @ ..] if digits.iter().all(|&byte| digit(byte)) => Some(digits.to_vec()),
        _ => return None,
    };
    good.then(|| Authority { host: host.to_vec(), port })
}

/// `IPv6address`: eight groups of 16 bits, the last two perhaps as IPv4address, or fewer with one `::` for at least one
/// group.
fn ipv6(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let groups = |side: &str, may_end_in_ipv4: bool| -> Option<usize> {
        if side.is_empty() {
            return Some(0);
        }
        let parts: Vec<&str> = side.split(':').collect();
        let mut count = 0;
        for (i, part) in parts.iter().enumerate() {
            let last = may_end_in_ipv4 && i + 1 == parts.len();
            if last && ipv4(part) {
                count += 2;
            } else if (1..=4).contains(&part.len()) && part.bytes().all(hexdig) {
                count += 1;
            } else {
                return None;
            }
        }
        Some(count)
    };
    match text.split_once("::") {
        None => groups(text, true) == Some(8),
        Some((left, right)) => match (groups(left, false), groups(right, true)) {
            (Some(left), Some(right)) => left + right <= 7,
            _ => false,
        },
    }
}

/// `IPv4address`: four `dec-octet`, without leading zeros.
fn ipv4(text: &str) -> bool {
    let octet = |part: &str| {
        let digits = (1..=3).contains(&part.len()) && part.bytes().all(digit);
        digits && (part.len() == 1 || !part.starts_with('0')) && part.parse::<u16>().is_ok_and(|n| n < 256)
    };
    text.split('.').count() == 4 && text.split('.').all(octet)
}

/// `IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )`
fn ip_future(text: &[u8]) -> bool {
    let [b'v' | b'V', rest @ ..] = text else { return false };
    let Some(dot) = rest.iter().position(|&byte| byte == b'.') else { return false };
    let (version, address) = (&rest[..dot], &rest[dot + 1..]);
    let good = |&byte: &u8| unreserved(byte) || sub_delim(byte) || byte == b':';
    !version.is_empty() && version.iter().all(|&b| hexdig(b)) && !address.is_empty() && address.iter().all(good)
}

/// Bytes of a class, or `pct-encoded`.
fn escaped(text: &[u8], class: fn(u8) -> bool) -> bool {
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'%' {
            match text.get(at + 1..at + 3) {
                Some(hex) if hex.iter().all(|&byte| hexdig(byte)) => at += 3,
                _ => return false,
            }
        } else if class(text[at]) {
            at += 1;
        } else {
            return false;
        }
    }
    true
}

fn unreserved(byte: u8) -> bool {
    alpha(byte) || digit(byte) || b"-._~".contains(&byte)
}

fn sub_delim(byte: u8) -> bool {
    b"!$&'()*+,;=".contains(&byte)
}

/// `pchar`, but for `pct-encoded`.
fn pchar(byte: u8) -> bool {
    unreserved(byte) || sub_delim(byte) || byte == b':' || byte == b'@'
}
