//! A cookie that is found stands in a Cookie line of its head, and is what RFC 6265 lets a value be.

use ringway::http::cookie;
use ringway::http::head::{RequestHead, Underscores};

/// Judges one input.
pub fn check(bytes: &[u8]) {
    let head = [b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ", bytes, b"\r\n\r\n"].concat();
    let mut request = RequestHead::default();
    if request.parse(&head, Underscores::Drop).is_err() {
        return;
    }
    for name in [&b"a"[..], b"id", b"session"] {
        let Some(value) = cookie::value(&request.fields, &head, name) else { continue };
        assert!(!value.is_empty() && value.iter().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(b)));
        let begin = value.as_ptr() as usize - head.as_ptr() as usize;
        let before = head[..begin].strip_suffix(b"\"").unwrap_or(&head[..begin]);
        assert!(before.ends_with(&[name, b"="].concat()));
    }
}
