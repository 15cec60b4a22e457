//! The request target and the authority (RFC 9112 section 3.2, RFC 3986 section 3), judged byte by byte.

use super::Span;
use super::reject::{Broken, Fault};
use std::net::Ipv6Addr;

/// The form of a request target (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*` (OPTIONS only)
    Asterisk,
}

/// A host and perhaps a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Authority {
    /// As sent.
    pub(super) whole: Span,
    /// Without the port.
    pub(super) host: Span,
}

/// A target taken apart. `authority` is that of an absolute target and else empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) form: Form,
    pub(super) path: Span,
    pub(super) query: Span,
    pub(super) authority: Authority,
    /// The scheme is `https`.
    pub(super) https: bool,
}

/// Longest host name, as RFC 3986 section 3.2.2 advises.
const HOST_BYTES_MAX: usize = 255;

// What a byte is in a path or a query.
const BAD: u8 = 0;
const PLAIN: u8 = 1;
const DOT: u8 = 2;
const SLASH: u8 = 3;
const PERCENT: u8 = 4;
const SEMICOLON: u8 = 5;
const QUESTION: u8 = 6;
/// Not in RFC 3986, but browsers leave it as it is in queries (WHATWG URL), and no server reads it as anything else there.
const QUERY_ONLY: u8 = 7;

/// pchar, `/` and `?` of RFC 3986 section 3.3. Beyond them `[`, `]`, `|`, `^`, `{` and `}` are let through because
/// browsers and curl send them unencoded; `"`, `<`, `>`, spaces, controls and bytes above 0x7e are not. A `\` in a path is
/// a slash to some servers, and therefore refused there.
const CLASS: [u8; 256] = {
    let mut table = [BAD; 256];
    let mut i = 0;
    while i < 128 {
        let b = i as u8;
        table[i] = match b {
            b'.' => DOT,
            b'/' => SLASH,
            b'%' => PERCENT,
            b';' => SEMICOLON,
            b'?' => QUESTION,
            b'\\' | b'`' => QUERY_ONLY,
            b'-' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => {
                PLAIN
            }
            b'[' | b']' | b'|' | b'^' | b'{' | b'}' => PLAIN,
            _ if b.is_ascii_alphanumeric() => PLAIN,
            _ => BAD,
        };
        i += 1;
    }
    table
};

/// Judges the target that stands at `span` of `bytes`. `*` comes back as [`Form::Asterisk`] whatever the method.
pub(super) fn judge(bytes: &[u8], span: Span) -> Result<Target, Broken> {
    let text = span.of(bytes);
    let mut target = Target::default();
    let path_at = match text.first() {
        Some(b'/') => span.start,
        Some(b'*') if text.len() == 1 => {
            let nothing = Span { start: span.end, end: span.end };
            return Ok(Target { form: Form::Asterisk, path: nothing, query: nothing, ..target });
        }
        _ => {
            target.form = Form::Absolute;
            (target.authority, target.https) = absolute(bytes, span)?;
            target.authority.whole.end
        }
    };
    let path = Span { start: path_at, end: span.end };
    // What follows an authority is a path that begins with a slash, or a query, or nothing.
    let (path_end, query_end) = path_and_query(bytes, path)?;
    target.path = Span { start: path_at, end: path_end };
    target.query = Span { start: path_end, end: query_end };
    Ok(target)
}

/// Finds where the path ends, and judges all of path and query.
fn path_and_query(bytes: &[u8], span: Span) -> Result<(u16, u16), Broken> {
    let text = span.of(bytes);
    let at = |i: usize| span.start as usize + i;
    // How many dots the segment consists of so far; `NAME` as soon as it is anything but dots.
    const NAME: u8 = 9;
    let mut dots = NAME;
    let mut i = 0;
    while i < text.len() {
        match CLASS[text[i] as usize] {
            PLAIN => dots = NAME,
            SLASH => {
                if dots.wrapping_sub(1) < 2 {
                    return Err(Broken::new(Fault::DotSegment, at(i - 1)));
                }
                dots = 0;
            }
            DOT => dots = (dots + 1).min(NAME),
            // Servlet containers cut parameters off before they resolve dot segments: `/..;/` is one.
            SEMICOLON => {
                if dots.wrapping_sub(1) < 2 {
                    return Err(Broken::new(Fault::DotSegment, at(i - 1)));
                }
                dots = NAME;
            }
            PERCENT => {
                match hex_pair(text, i) {
                    None => return Err(Broken::new(Fault::BadPercent, at(i))),
                    Some(0) => return Err(Broken::new(Fault::EncodedNul, at(i))),
                    Some(b'.') => dots = (dots + 1).min(NAME),
                    // Kept as they are, but a server that decodes first sees a separator here.
                    Some(b'/' | b'\\') => {
                        if dots.wrapping_sub(1) < 2 {
                            return Err(Broken::new(Fault::DotSegment, at(i - 1)));
                        }
                        dots = 0;
                    }
                    Some(_) => dots = NAME,
                }
                i += 2;
            }
            QUESTION => break,
            _ => return Err(bad_byte(bytes, at(i))),
        }
        i += 1;
    }
    if dots.wrapping_sub(1) < 2 {
        return Err(Broken::new(Fault::DotSegment, at(i - 1)));
    }
    let path_end = at(i);
    while i < text.len() {
        match CLASS[text[i] as usize] {
            BAD => return Err(bad_byte(bytes, at(i))),
            PERCENT if hex_pair(text, i).is_none() => return Err(Broken::new(Fault::BadPercent, at(i))),
            _ => i += 1,
        }
    }
    Ok((path_end as u16, span.end))
}

fn bad_byte(bytes: &[u8], at: usize) -> Broken {
    let fault = match bytes[at] {
        b'#' => Fault::Fragment,
        0 => Fault::Nul,
        b'\r' => Fault::BareCr,
        _ => Fault::TargetByte,
    };
    Broken::new(fault, at)
}

/// The byte that the percent sign at `i` encodes.
fn hex_pair(text: &[u8], i: usize) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|&b| char::from(b).to_digit(16));
    Some((digit(i + 1)? * 16 + digit(i + 2)?) as u8)
}

/// The authority of a target in absolute form, and whether its scheme is `https`.
fn absolute(bytes: &[u8], span: Span) -> Result<(Authority, bool), Broken> {
    let text = span.of(bytes);
    let begin = span.start as usize;
    let Some(colon) = text.windows(3).position(|w| w == b"://") else {
        return Err(Broken::new(Fault::BadTarget, begin));
    };
    let scheme = &text[..colon];
    let https = scheme.eq_ignore_ascii_case(b"https");
    if !https && !scheme.eq_ignore_ascii_case(b"http") {
        return Err(Broken::new(Fault::Scheme, begin));
    }
    let from = colon + 3;
    let len = text[from..].iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(text.len() - from);
    let authority = authority(bytes, Span { start: (begin + from) as u16, end: (begin + from + len) as u16 })?;
    Ok((authority, https))
}

/// Judges `host[:port]` at `span` of `bytes`. The host must not be empty (RFC 9110 section 4.2.1), the port may be.
pub(super) fn authority(bytes: &[u8], span: Span) -> Result<Authority, Broken> {
    let text = span.of(bytes);
    let at = |i: usize| span.start as usize + i;
    let host_len = match text.first() {
        Some(b'[') => ip_literal(text).ok_or(Broken::new(Fault::BadHost, at(0)))?,
        _ => reg_name(text).map_err(|(fault, i)| Broken::new(fault, at(i)))?,
    };
    match &text[host_len..] {
        [] => {}
        [b':', port @ ..] => {
            let number = port.iter().try_fold(0u32, |n, &b| {
                let digit = b.wrapping_sub(b'0');
                (digit < 10 && n <= u16::MAX.into()).then(|| n * 10 + u32::from(digit))
            });
            if number.is_none_or(|n| n > u16::MAX.into()) {
                let fault = if port.contains(&b'@') { Fault::Userinfo } else { Fault::BadPort };
                return Err(Broken::new(fault, at(host_len + 1)));
            }
        }
        _ => return Err(Broken::new(Fault::BadHost, at(host_len))),
    }
    let host = Span { start: span.start, end: at(host_len) as u16 };
    Ok(Authority { whole: span, host })
}

/// Length of the IPv6 literal with its brackets. IPvFuture and zone identifiers name nothing that could be served here.
fn ip_literal(text: &[u8]) -> Option<usize> {
    let close = text.iter().take(48).position(|&b| b == b']')?;
    std::str::from_utf8(&text[1..close]).ok()?.parse::<Ipv6Addr>().ok()?;
    Some(close + 1)
}

/// Length of the registered name (or IPv4 address, which has the same letters) at the beginning of `text`.
fn reg_name(text: &[u8]) -> Result<usize, (Fault, usize)> {
    let mut i = 0;
    while let Some(&byte) = text.get(i) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {}
            // sub-delims without the comma: a list of hosts is no host.
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => {}
            b'%' => match hex_pair(text, i) {
                None => return Err((Fault::BadPercent, i)),
                Some(decoded) if decoded <= b' ' || decoded == 0x7f => return Err((Fault::BadHost, i)),
                Some(_) => i += 2,
            },
            b':' => break,
            b'@' => return Err((Fault::Userinfo, i)),
            _ => return Err((Fault::BadHost, i)),
        }
        i += 1;
    }
    if i == 0 || i > HOST_BYTES_MAX {
        return Err((Fault::BadHost, 0));
    }
    Ok(i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        Span { start: 0, end: text.len() as u16 }
    }

    fn target(text: &str) -> Result<Target, Fault> {
        judge(text.as_bytes(), span(text)).map_err(|b| b.fault)
    }

    fn parts(text: &str) -> (Form, &str, &str, &str, &str) {
        let t = target(text).unwrap();
        let of = |s: Span| std::str::from_utf8(s.of(text.as_bytes())).unwrap();
        (t.form, of(t.authority.whole), of(t.authority.host), of(t.path), of(t.query))
    }

    #[test]
    fn forms() {
        assert_eq!(parts("/"), (Form::Origin, "", "", "/", ""));
        assert_eq!(parts("/a/b?c=d?e/f"), (Form::Origin, "", "", "/a/b", "?c=d?e/f"));
        assert_eq!(parts("//evil.test/x"), (Form::Origin, "", "", "//evil.test/x", ""));
        assert_eq!(parts("http://a.test"), (Form::Absolute, "a.test", "a.test", "", ""));
        assert_eq!(parts("HTTPS://a.test:81/p?q"), (Form::Absolute, "a.test:81", "a.test", "/p", "?q"));
        assert_eq!(parts("http://[::1]:8080?q=/x"), (Form::Absolute, "[::1]:8080", "[::1]", "", "?q=/x"));
        assert_eq!(parts("*"), (Form::Asterisk, "", "", "", ""));
    }

    #[test]
    fn targets_that_pass() {
        for good in [
            "/x?",
            "/a%2Fb",
            "/%c3%a9%7e",
            "/!$&'()*+,;=:@-._~",
            "/x?q=%20%2B+%26",
            "/a//b",
            "/a.b/..c/...",
            "/.well-known/x",
            "/x?a=../..",
            "/x?a=%00",
            "/x?a[]={1}|`\\^",
            "/[id]|{x}^",
            "/%25%32%65",
            "/a/%2e%2e%2ex",
            "/x;v=1;w/b",
        ] {
            assert!(target(good).is_ok(), "{good}: {:?}", target(good));
        }
    }

    #[test]
    fn targets_that_do_not() {
        for (bad, fault) in [
            ("foo/bar", Fault::BadTarget),
            ("?x", Fault::BadTarget),
            ("probe.test:80", Fault::BadTarget),
            ("**", Fault::BadTarget),
            ("ftp://a/x", Fault::Scheme),
            ("http:///x", Fault::BadHost),
            ("http://?x", Fault::BadHost),
            ("http://u:p@a/x", Fault::Userinfo),
            ("http://u@a/x", Fault::Userinfo),
            ("http://a:b/x", Fault::BadPort),
            ("http://a\\@b/x", Fault::BadHost),
            ("http://a#b", Fault::Fragment),
            ("/x#y", Fault::Fragment),
            ("/x?#y", Fault::Fragment),
            ("/a\\b", Fault::TargetByte),
            ("/a\"b", Fault::TargetByte),
            ("/a<b", Fault::TargetByte),
            ("/x?\"", Fault::TargetByte),
            ("/é", Fault::TargetByte),
            ("/a\0", Fault::Nul),
            ("/a\rb", Fault::BareCr),
            ("/a\x7f", Fault::TargetByte),
            ("/a\tb", Fault::TargetByte),
            ("/%zz", Fault::BadPercent),
            ("/%4", Fault::BadPercent),
            ("/x?%", Fault::BadPercent),
            ("/%00", Fault::EncodedNul),
            ("/.", Fault::DotSegment),
            ("/..", Fault::DotSegment),
            ("/../x", Fault::DotSegment),
            ("/a/./b", Fault::DotSegment),
            ("/a/..?x", Fault::DotSegment),
            ("/%2e/", Fault::DotSegment),
            ("/.%2E/", Fault::DotSegment),
            ("/%2e%2e", Fault::DotSegment),
            ("/..;x/a", Fault::DotSegment),
            ("/..%2fa", Fault::DotSegment),
            ("/a%5c..%5cb", Fault::DotSegment),
            ("http://a/../b", Fault::DotSegment),
        ] {
            assert_eq!(target(bad), Err(fault), "{bad:?}");
        }
    }

    #[test]
    fn authorities() {
        for (good, host) in [
            ("a.test", "a.test"),
            ("A.TEST:8080", "A.TEST"),
            ("a.test.", "a.test."),
            ("a.test:", "a.test"),
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2001:db8::1]:65535", "[2001:db8::1]"),
            ("[::ffff:1.2.3.4]:1", "[::ffff:1.2.3.4]"),
            ("my_probe.test", "my_probe.test"),
            ("a%2db", "a%2db"),
        ] {
            let a = authority(good.as_bytes(), span(good)).unwrap();
            assert_eq!((a.whole.of(good.as_bytes()), a.host.of(good.as_bytes())), (good.as_bytes(), host.as_bytes()));
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            ":80",
            "u@a",
            "a:b@c",
            "a/b",
            "a?b",
            "a#b",
            "a b",
            "a, b",
            "a,b",
            "http://a",
            "a\\b",
            "a:80a",
            "a:-1",
            "a:+80",
            "a:80:90",
            "[::1",
            "[::1]x",
            "[]",
            "[v1.x]",
            "[fe80::1%25eth0]",
            "<a>",
            "\"a\"",
            "a%zz.b",
            "a%00",
            "a%0d",
            "é",
            "a\0b",
            "a:65536",
            "a:99999999999999999999",
            "::1",
            &long,
        ] {
            assert!(authority(bad.as_bytes(), span(bad)).is_err(), "{bad:?}");
        }
    }
}
