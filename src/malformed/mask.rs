//! Secrets in heads that are kept: the values of fields that carry them, byte by byte, so that every offset stays true and
//! the fault stays where it is. Heads that are malformed hide fields from parsers, so this looks closer than those do.

use crate::http::reject::Fault;

/// Fields whose values are secrets.
const SECRET: [&[u8]; 4] = [b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"];

/// What stands for a byte of a secret. White space and control characters stay: a fault may be one of them.
const MASK: u8 = b'x';

/// Masks what is secret in a head that is refused for a fault at an offset. Returns how many bytes were masked.
///
/// Masked are the values of Authorization, Proxy-Authorization, Cookie and Set-Cookie, also where folded lines, a CR alone,
/// a missing colon or `_` for `-` hide the field; and the user information of an authority that is refused for it.
pub(super) fn secrets(head: &mut [u8], fault: Fault, at: usize) -> usize {
    let mut masked = values(head);
    if fault == Fault::Userinfo {
        masked += user_information(head, at);
    }
    masked
}

fn values(head: &mut [u8]) -> usize {
    let mut masked = 0;
    // The current line belongs to a secret.
    let mut secret = false;
    let mut started = false;
    let mut behind_lf = true;
    let mut begin = 0;
    while begin < head.len() {
        let end = head[begin..].iter().position(|byte| b"\r\n".contains(byte)).map_or(head.len(), |len| begin + len);
        let piece = &mut head[begin..end];
        // What begins with white space goes on with the line before.
        if behind_lf && !matches!(piece.first(), None | Some(b' ' | b'\t')) {
            secret = false;
        }
        let mut from = 0;
        if started && let Some(value) = secret_value(piece) {
            (secret, from) = (true, value);
        }
        started |= !piece.is_empty();
        if secret {
            masked += cover(&mut piece[from..], |byte| byte > b' ' && byte != 0x7f);
        }
        behind_lf = head.get(end) == Some(&b'\n');
        begin = end + 1;
    }
    masked
}

/// Where the value begins, if this is a line of a field with a secret.
fn secret_value(line: &[u8]) -> Option<usize> {
    // The letters of a token (RFC 9110 section 5.6.2).
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let name = line.iter().position(is_name)?;
    if !line[..name].iter().all(|byte| b" \t".contains(byte)) {
        return None;
    }
    let len = line[name..].iter().position(|byte| !is_name(byte)).unwrap_or(line.len() - name);
    let end = name + len;
    let is = |secret: &[u8]| {
        let dashed = line[name..end].iter().map(|&byte| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() });
        secret.iter().copied().eq(dashed)
    };
    if !SECRET.iter().any(|secret| is(secret)) {
        return None;
    }
    let blank = line[end..].iter().position(|byte| !b" \t".contains(byte)).unwrap_or(line.len() - end);
    // The colon, or whatever ends the name instead: that is the fault, and stays.
    let ends_name = line.get(end + blank).is_some_and(|&byte| byte == b':' || blank == 0);
    Some(end + blank + usize::from(ends_name))
}

/// `user:password` around a fault, up to the `@`.
fn user_information(head: &mut [u8], at: usize) -> usize {
    let Some(end) = head.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == b'@')).map(|len| at + len)
    else {
        return 0;
    };
    let begin = head[..at].iter().rposition(|byte| b" \t\r\n/]".contains(byte)).map_or(0, |before| before + 1);
    cover(&mut head[begin..end], |byte| byte.is_ascii_alphanumeric() || byte == b'%')
}

fn cover(bytes: &mut [u8], is_secret: impl Fn(u8) -> bool) -> usize {
    let mut masked = 0;
    for byte in bytes.iter_mut().filter(|byte| is_secret(**byte)) {
        *byte = MASK;
        masked += 1;
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;
    use crate::parse::{Side, parse};
    use proptest::prelude::*;

    fn masked(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let count = secrets(&mut bytes, Fault::Malformed, 0);
        let differ = bytes.iter().zip(text.bytes()).filter(|(a, b)| **a != *b).count();
        assert!(differ <= count, "{text:?}");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn values_of_secret_fields() {
        for (head, want) in [
            ("G / H\r\nCookie: a=b; c=d\r\nA: b\r\n", "G / H\r\nCookie: xxxx xxx\r\nA: b\r\n"),
            ("G / H\r\nAUTHORIZATION:Basic q==\r\n", "G / H\r\nAUTHORIZATION:xxxxx xxx\r\n"),
            ("G / H\r\nProxy_Authorization : q\r\n", "G / H\r\nProxy_Authorization : x\r\n"),
            ("G / H\r\nSet-Cookie: q\r\n\tq\r\n q\r\nA: b\r\n", "G / H\r\nSet-Cookie: x\r\n\tx\r\n x\r\nA: b\r\n"),
            ("G / H\r\nA: b\r\n Cookie: q\r\n", "G / H\r\nA: b\r\n Cookie: x\r\n"),
            ("G / H\r\nA: b\rCookie: q\r\nB: c", "G / H\r\nA: b\rCookie: x\r\nB: c"),
            ("G / H\r\nCookie: q\rA: q\r\nB: c", "G / H\r\nCookie: x\rxx x\r\nB: c"),
            ("G / H\r\nCookie q\r\n", "G / H\r\nCookie x\r\n"),
            ("G / H\nCookie: q\n\0\n", "G / H\nCookie: x\n\0\n"),
            ("\r\nCookie q\r\nCookie: q", "\r\nCookie q\r\nCookie: x"),
            (
                "G / H\r\nX-Cookie: q\r\nCookies: q\r\nCookie2: q\r\n",
                "G / H\r\nX-Cookie: q\r\nCookies: q\r\nCookie2: q\r\n",
            ),
        ] {
            assert_eq!(masked(head), want);
        }
    }

    #[test]
    fn user_information_that_is_refused() {
        for (text, want) in [
            (
                "GET http://me:pw%41@a/x HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET http://xx:xxxxx@a/x HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("GET / HTTP/1.1\r\nHost: me@a\r\n\r\n", "GET / HTTP/1.1\r\nHost: xx@a\r\n\r\n"),
            ("GET / HTTP/1.1\r\nHost: me:12@a\r\n\r\n", "GET / HTTP/1.1\r\nHost: xx:xx@a\r\n\r\n"),
            ("GET / HTTP/1.1\r\nHost: [::1]:pw@a\r\n\r\n", "GET / HTTP/1.1\r\nHost: [::1]:xx@a\r\n\r\n"),
        ] {
            let refusal = parse(text.as_bytes(), Side::Client).refusal().expect("refused");
            assert_eq!(refusal.reason, "userinfo");
            let mut bytes = text.as_bytes().to_vec();
            secrets(&mut bytes, Fault::Userinfo, refusal.at);
            assert_eq!(bytes.escape_ascii().to_string(), want.as_bytes().escape_ascii().to_string());
            assert_eq!(parse(&bytes, Side::Client).refusal(), Some(refusal));
        }
    }

    fn a_head() -> impl Strategy<Value = Vec<u8>> {
        let parts: [&[u8]; 19] = [
            b"Cookie: a=b;\xffc\r\n",
            b"Authorization",
            b"set-cookie:",
            b"Host: a\r\n",
            b"A: b\r\n",
            b":",
            b"Basic dTpw",
            b"\r\n",
            b"\r",
            b"\n",
            b" ",
            b"\t",
            b"\0",
            b"\x7f",
            b"Connection: cookie\r\n",
            b"Content-Length: 3\r\n",
            b"_",
            b"(",
            b"\xff",
        ];
        let part = proptest::sample::select(parts.to_vec());
        let line = proptest::sample::select(vec![&b"GET / HTTP/1.1\r\n"[..], b"HTTP/1.1 200 OK\r\n", b"Cookie"]);
        (line, proptest::collection::vec(part, 0..12))
            .prop_map(|(line, parts)| [line, &parts.concat(), b"\r\n\r\n"].concat())
    }

    proptest! {
        #[test]
        fn the_fault_stays_where_it_is(head in a_head()) {
            let mut covered = head.clone();
            secrets(&mut covered, Fault::Malformed, 0);
            for side in [Side::Client, Side::Backend { method: Method::Get, upgrade: b"" }] {
                let first = |bytes: &[u8]| {
                    let parsed = parse(bytes, side);
                    parsed.messages.first().map(|message| (message.at, message.bytes)).zip(Some(parsed.refusal()))
                };
                prop_assert_eq!(first(&covered), first(&head), "{}", covered.escape_ascii());
            }
        }
    }
}
