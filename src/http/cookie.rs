//! Cookies of a request, as far as one is looked up by its name.

use super::field::Fields;

/// The value of the first cookie of this name that is not empty, quotes taken off; `bytes` is the head. Names are compared
/// as they are, case included.
///
/// Strict as RFC 6265 section 4.2.1: pairs of a token, `=` and a value without blanks, quotes, commas, semicolons and
/// backslashes (save quotes around the whole of it), separated by `;` and one space. A pair that is malformed is no cookie;
/// those before and behind it are. Browsers send one Cookie line; of several, all are looked at, in order.
pub fn value<'a>(fields: &Fields, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    fields.named(bytes, b"cookie").find_map(|line| in_line(line, name))
}

fn in_line<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = line.split(|b| *b == b';').enumerate().filter_map(|(i, pair)| match pair {
        [b' ', pair @ ..] if i > 0 => Some(pair),
        _ if i == 0 => Some(pair),
        _ => None,
    });
    pairs.find_map(|pair| {
        let value = pair.strip_prefix(name)?.strip_prefix(b"=")?;
        let value = match value {
            [b'"', inner @ .., b'"'] => inner,
            plain => plain,
        };
        (!value.is_empty() && value.iter().all(|b| is_octet(*b))).then_some(value)
    })
}

/// `cookie-octet` of RFC 6265 section 4.1.1.
fn is_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{RequestHead, Underscores};
    use proptest::prelude::*;

    fn look(lines: &str, name: &str) -> Option<String> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut request = RequestHead::default();
        request.parse(head.as_bytes(), Underscores::Drop).unwrap();
        value(&request.fields, head.as_bytes(), name.as_bytes()).map(|v| String::from_utf8(v.to_vec()).unwrap())
    }

    #[test]
    fn the_first_of_its_name() {
        for (line, want) in [
            ("id=7", Some("7")),
            ("a=1; id=7; id=8", Some("7")),
            ("id=\"7\"; b=2", Some("7")),
            ("id=a=b", Some("a=b")),
            ("id=; id=9", Some("9")),
            ("id=\"\"; id=9", Some("9")),
            ("xid=1; idx=2; id", None),
            ("ID=1", None),
            ("", None),
            // Malformed pairs are none, and harm no others.
            ("a=1;id=7", None),
            ("a=1;  id=7", None),
            ("a=1; id =7", None),
            ("a=1; id= 7", None),
            ("id=x,y; id=7", Some("7")),
            ("id=\"7; id=8", Some("8")),
            ("id=7\\; id=8", Some("8")),
            ("a={\"j\": 1, \"k\"}; ;; id=7", Some("7")),
        ] {
            assert_eq!(look(&format!("Cookie: {line}\r\n"), "id").as_deref(), want, "{line:?}");
        }
        assert_eq!(look("", "id"), None);
        assert_eq!(look("cookie: a=1\r\nCookie2: id=3\r\nCOOKIE: id=7\r\n", "id").as_deref(), Some("7"));
    }

    proptest! {
        #[test]
        fn what_is_found_stands_there(line in "[id=;\" ,\\\\\\x00\\x7fäx]{0,40}") {
            let line = line.as_bytes();
            if let Some(value) = in_line(line, b"id") {
                prop_assert!(!value.is_empty() && value.iter().all(|b| is_octet(*b)));
                let begin = value.as_ptr() as usize - line.as_ptr() as usize;
                prop_assert!(line[..begin].ends_with(b"id=") || line[..begin].ends_with(b"id=\""));
            }
        }
    }
}
