//! Host names as keys: what a request sent and what the operator wrote become the same bytes.
//!
//! A key is the name in lower case without trailing dot. The key of an IPv6 literal is `[` and its 16 address bytes, so
//! that all its spellings are one; no name begins with `[`.

use crate::limits::HOST_BYTES_MAX;
use std::net::Ipv6Addr;

/// The host part of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// This host and no other.
    Exact(Box<[u8]>),
    /// All hosts with one or more labels before `.` and these bytes.
    Wildcard(Box<[u8]>),
    /// Every host that nothing else matches, requests without a host included.
    Default,
}

/// Reads the host part of a route: an exact name, `*.suffix`, `*`, or an IPv6 literal in brackets.
///
/// # Errors
/// Says what is wrong with it, for the operator.
pub fn pattern(text: &str) -> Result<Pattern, &'static str> {
    if text == "*" {
        return Ok(Pattern::Default);
    }
    let (name, wildcard) = match text.strip_prefix("*.") {
        Some(suffix) => (suffix, true),
        None => (text, false),
    };
    if name.contains('*') {
        return Err("`*` may only stand for the whole host or for its first labels, as in `*.example.com`");
    }
    let mut buffer = [0; HOST_BYTES_MAX];
    let Some(key) = key(name.as_bytes(), &mut buffer) else {
        return Err(match name.as_bytes() {
            [] | [b'.'] => "the host is empty; `*` is the default",
            [b'[', ..] => "this is no IPv6 address in brackets",
            _ => "the host is longer than 255 bytes",
        });
    };
    if key[0] == b'[' {
        return if wildcard { Err("an address has no wildcard") } else { Ok(Pattern::Exact(key.into())) };
    }
    if !name.is_ascii() {
        return Err("the host has letters beyond ASCII; write it in its `xn--` form");
    }
    if key.contains(&b':') {
        return Err("routes do not look at ports; an IPv6 address stands in brackets");
    }
    if !key.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err("a host has only letters, digits, `-`, `_` and `.`");
    }
    if key.split(|b| *b == b'.').any(<[u8]>::is_empty) {
        return Err("the host has an empty label (two dots, or one at its begin)");
    }
    Ok(if wildcard { Pattern::Wildcard(key.into()) } else { Pattern::Exact(key.into()) })
}

/// The key of a host as sent, without port; `None` if it can be in no table: empty, too long, or a bad literal.
/// `buffer` is used only where the bytes have to change.
#[inline]
pub(super) fn key<'a>(host: &'a [u8], buffer: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a [u8]> {
    if host.first() == Some(&b'[') {
        return literal(host, buffer);
    }
    let name = host.strip_suffix(b".").unwrap_or(host);
    if name.is_empty() || name.len() > HOST_BYTES_MAX {
        return None;
    }
    // Without an early exit, so that it becomes vector code: nearly all hosts come in lower case.
    if !name.iter().fold(false, |upper, byte| upper | byte.is_ascii_uppercase()) {
        return Some(name);
    }
    let lower = &mut buffer[..name.len()];
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    Some(lower)
}

/// Labels in a key.
#[inline]
pub(super) fn labels(key: &[u8]) -> usize {
    1 + key.iter().filter(|b| **b == b'.').count()
}

/// What stands behind each dot of a key that a label stands before, the longest first, each with its number of labels: all
/// suffixes that a wildcard may have. The bytes of an address are no labels.
#[inline]
pub(super) fn suffixes(key: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let name = if key.first() == Some(&b'[') { &[][..] } else { key };
    let mut labels = labels(name);
    name.iter().enumerate().filter(|(_, byte)| **byte == b'.').filter_map(move |(at, _)| {
        labels -= 1;
        (at > 0).then(|| (labels, &name[at + 1..]))
    })
}

#[cold]
fn literal<'a>(host: &[u8], buffer: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a [u8]> {
    let inner = host.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let address: Ipv6Addr = std::str::from_utf8(inner).ok()?.parse().ok()?;
    let key = &mut buffer[..17];
    key[0] = b'[';
    key[1..].copy_from_slice(&address.octets());
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(host: &str) -> Option<Vec<u8>> {
        key(host.as_bytes(), &mut [0; HOST_BYTES_MAX]).map(<[u8]>::to_vec)
    }

    #[test]
    fn case_and_one_trailing_dot_do_not_matter() {
        assert_eq!(key_of("a.example"), Some(b"a.example".to_vec()));
        assert_eq!(key_of("A.eXample."), key_of("a.example"));
        assert_ne!(key_of("a.example.."), key_of("a.example"));
        assert_eq!(key_of(""), None);
        assert_eq!(key_of("."), None);
        assert_eq!(key_of(&"a".repeat(255)).unwrap().len(), 255);
        assert_eq!(key_of(&("A".repeat(255) + ".")).unwrap().len(), 255);
        assert_eq!(key_of(&"a".repeat(256)), None);
    }

    #[test]
    fn literals_have_one_key_in_all_spellings() {
        let one = key_of("[::1]").unwrap();
        for same in ["[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::0.0.0.1]"] {
            assert_eq!(key_of(same).as_ref(), Some(&one), "{same}");
        }
        assert_eq!(key_of("[2001:DB8::a]"), key_of("[2001:db8:0::A]"));
        for bad in ["[", "[]", "[::1", "[::1].", "[::g]", "[v1.x]", "[fe80::1%25eth0]", "[\u{e9}]"] {
            assert_eq!(key_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn patterns() {
        assert_eq!(pattern("*"), Ok(Pattern::Default));
        assert_eq!(pattern("Example.COM."), Ok(Pattern::Exact((*b"example.com").into())));
        assert_eq!(pattern("*.Example.COM"), Ok(Pattern::Wildcard((*b"example.com").into())));
        assert_eq!(pattern("*.com"), Ok(Pattern::Wildcard((*b"com").into())));
        assert!(matches!(pattern("[::1]"), Ok(Pattern::Exact(_))));
        let long = "a".repeat(256);
        let bad =
            ["", ".", "*.", "**", "a.*", "*a.b", "*.*.b", ".a", "a..b", "a:80", "::1", "[::1", "*.[::1]", "a b", &long];
        for bad in bad.into_iter().chain(["a/b", "b\u{fc}cher.example", "a,b"]) {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
