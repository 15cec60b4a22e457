//! The framing verdict never accepts what it must not. Input: flags, Transfer-Encoding, LF, Content-Length.

use ringway::http::framing::{Evidence, Framing, Message, judge};
use ringway::http::{Method, Version};

fn evidence(value: Option<&[u8]>, keep_empty: bool, repeated: bool) -> Evidence<'_> {
    Evidence { value: value.filter(|v| keep_empty || !v.is_empty()), at: 0, repeated }
}

/// Judges one input.
pub fn check(bytes: &[u8]) {
    let Some((&flags, rest)) = bytes.split_first() else { return };
    let mut parts = rest.splitn(2, |&b| b == b'\n');
    let coding = evidence(parts.next(), flags & 1 != 0, flags & 2 != 0);
    let length = evidence(parts.next(), flags & 1 != 0, flags & 4 != 0);
    let version = if flags & 8 != 0 { Version::Http10 } else { Version::Http11 };
    let status = [200, 204, 304, 103][usize::from(flags >> 5 & 3)];
    let response = Message::Response { request_method: Method::Get, status };
    let message = if flags & 16 != 0 { response } else { Message::Request };

    match judge(message, version, coding, length) {
        Ok(framing) => {
            assert!(coding.value.is_none() || length.value.is_none());
            assert!(coding.value.is_none_or(|v| v.eq_ignore_ascii_case(b"chunked") && version == Version::Http11));
            assert!(length.value.is_none_or(|v| !v.is_empty() && v.iter().all(u8::is_ascii_digit)));
            for once in [coding, length] {
                assert!(once.value.is_none() || !once.repeated);
            }
            assert!(framing != Framing::UntilClose || flags & 16 != 0);
            if let Framing::Length(n) = framing {
                let text = std::str::from_utf8(length.value.unwrap()).unwrap();
                assert_eq!(text.parse(), Ok(n));
            }
        }
        Err(broken) => assert!([400, 501].contains(&broken.fault.status())),
    }
}
