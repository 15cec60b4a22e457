//! The one function that says where a message ends, for both directions (RFC 9112 section 6.3).
//!
//! Stricter than the RFC has to be, because every leniency here has been somebody's request smuggling: what two servers
//! might read in two ways is refused, never repaired. What goes on is written anew from the verdict by `rewrite`.

use super::field::{is_token, members};
use super::reject::{Broken, Fault};
use super::{Method, Version};

/// How the end of a message's body is found. Nobody looks at the framing fields again after this verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// Exactly this many bytes (may be 0: a Content-Length was sent).
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// A response body that ends with the connection.
    UntilClose,
}

impl Framing {
    /// Whether body bytes may follow the head.
    pub fn has_body(self) -> bool {
        !matches!(self, Framing::None | Framing::Length(0))
    }
}

/// Which message is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request of any method: the method never decides whether a request has a body.
    Request,
    /// A response.
    Response {
        /// Method of the request that it answers.
        request_method: Method,
        /// Its status.
        status: u16,
    },
}

/// What the framing fields of one name say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence<'a> {
    /// The first field's value, without white space around it; `None` if there is no such field.
    pub value: Option<&'a [u8]>,
    /// Offset of that value in the head.
    pub at: usize,
    /// There is more than one field of this name.
    pub repeated: bool,
}

/// Judges how a message's body ends: `coding` is Transfer-Encoding, `length` is Content-Length.
///
/// The fields are judged also where no body can follow (HEAD, 1xx, 204, 304): a Content-Length that goes on to a client
/// must be a number there too.
pub fn judge(message: Message, version: Version, coding: Evidence, length: Evidence) -> Result<Framing, Broken> {
    let declared = match (coding.value, length.value) {
        (None, None) => None,
        (None, Some(value)) => {
            // RFC 9112 section 6.3 would allow equal values to be taken as one. No real client repeats the field, and
            // which of two a backend reads is exactly what an attacker plays with.
            if length.repeated {
                return Err(Broken::new(Fault::RepeatedLength, length.at));
            }
            match decimal(value) {
                Some(n) => Some(Framing::Length(n)),
                None => return Err(Broken::new(Fault::BadLength, length.at)),
            }
        }
        // RFC 9112 section 6.3 item 3: "ought to be handled as an error".
        (Some(_), Some(_)) => return Err(Broken::new(Fault::LengthAndCoding, coding.at)),
        (Some(value), None) => {
            // RFC 9112 section 6.1: a Transfer-Encoding in HTTP/1.0 is faulty framing.
            if version == Version::Http10 {
                return Err(Broken::new(Fault::CodingIn10, coding.at));
            }
            if coding.repeated {
                return Err(Broken::new(Fault::RepeatedCoding, coding.at));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Broken::new(refused_coding(value), coding.at));
            }
            Some(Framing::Chunked)
        }
    };
    match message {
        // RFC 9112 section 6.3 item 7: a request without either field has no body.
        Message::Request => Ok(declared.unwrap_or(Framing::None)),
        // Item 1: whatever the fields say.
        Message::Response { request_method: Method::Head, .. }
        | Message::Response { status: 100..=199 | 204 | 304, .. } => Ok(Framing::None),
        // Item 8.
        Message::Response { .. } => Ok(declared.unwrap_or(Framing::UntilClose)),
    }
}

/// Why a Transfer-Encoding other than `chunked` is refused. RFC 9112 section 6.1 wants 501 for a coding that is not
/// understood, section 6.3 wants 400 where the end of the body cannot be found.
fn refused_coding(value: &[u8]) -> Fault {
    let mut chunked_seen = false;
    for member in members(value) {
        let name = member.split(|&b| b == b';').next().unwrap_or_default().trim_ascii_end();
        let chunked = name.eq_ignore_ascii_case(b"chunked");
        // Once chunked has come, nothing may follow; chunked has no parameters; empty members help nobody.
        if !is_token(name) || chunked_seen || (chunked && member.len() != name.len()) {
            return Fault::BadCoding;
        }
        chunked_seen = chunked;
    }
    Fault::UnknownCoding
}

/// A decimal number of at most 63 bits: backends that count in signed integers must not see it turn negative.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut n: u64 = 0;
    for &byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n = n.checked_mul(10)?.checked_add(digit.into())?;
    }
    (n <= i64::MAX as u64).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(value: Option<&str>) -> Evidence<'_> {
        Evidence { value: value.map(str::as_bytes), at: 7, repeated: false }
    }

    fn request(coding: Option<&str>, length: Option<&str>) -> Result<Framing, Fault> {
        judge(Message::Request, Version::Http11, evidence(coding), evidence(length)).map_err(|b| b.fault)
    }

    fn response(
        request_method: Method,
        status: u16,
        coding: Option<&str>,
        length: Option<&str>,
    ) -> Result<Framing, Fault> {
        let message = Message::Response { request_method, status };
        judge(message, Version::Http11, evidence(coding), evidence(length)).map_err(|b| b.fault)
    }

    #[test]
    fn requests() {
        assert_eq!(request(None, None), Ok(Framing::None));
        assert_eq!(request(None, Some("0")), Ok(Framing::Length(0)));
        assert_eq!(request(None, Some("0005")), Ok(Framing::Length(5)));
        assert_eq!(request(Some("chunked"), None), Ok(Framing::Chunked));
        assert_eq!(request(Some("CHUNKED"), None), Ok(Framing::Chunked));
        assert_eq!(request(Some("chunked"), Some("5")), Err(Fault::LengthAndCoding));
        assert_eq!(request(Some("identity"), Some("x")), Err(Fault::LengthAndCoding));
    }

    #[test]
    fn lengths_that_are_no_number() {
        for bad in [
            "",
            "+5",
            "-5",
            "-0",
            "0x5",
            "a",
            "5, 5",
            "5,5",
            "5,",
            "1 5",
            "5.0",
            "5e0",
            "1_0",
            "\"5\"",
            "five",
            "5;5",
            "18446744073709551621",
            "9223372036854775808",
            "999999999999999999999999",
            "5\0",
            "\u{b}5",
            "５",
        ] {
            assert_eq!(request(None, Some(bad)), Err(Fault::BadLength), "{bad:?}");
        }
        assert_eq!(request(None, Some("9223372036854775807")), Ok(Framing::Length(i64::MAX as u64)));
        assert_eq!(request(None, Some(&format!("{}5", "0".repeat(40)))), Ok(Framing::Length(5)));
    }

    #[test]
    fn codings_that_are_not_chunked() {
        for unknown in ["gzip", "identity", "xchunked", "chunkedx", "gzip, chunked", "gzip;q=1, chunked", "cow"] {
            assert_eq!(request(Some(unknown), None), Err(Fault::UnknownCoding), "{unknown:?}");
        }
        for bad in [
            "",
            ",",
            "chunked,",
            ", chunked",
            "chunked, chunked",
            "chunked, gzip",
            "chunked, identity",
            "chunked;q=1",
            "chunked;",
            "\"chunked\"",
            "chunked chunked",
            "chun ked",
            ": chunked",
            "chunked=1",
            "chunked\\",
            "chunked\u{a0}",
            "\u{b}chunked",
        ] {
            assert_eq!(request(Some(bad), None), Err(Fault::BadCoding), "{bad:?}");
        }
    }

    #[test]
    fn repeated_fields_and_old_versions() {
        let twice = Evidence { value: Some(b"5"), at: 3, repeated: true };
        assert_eq!(
            judge(Message::Request, Version::Http11, Evidence::default(), twice),
            Err(Broken::new(Fault::RepeatedLength, 3))
        );
        let twice = Evidence { value: Some(b"chunked"), at: 9, repeated: true };
        assert_eq!(
            judge(Message::Request, Version::Http11, twice, Evidence::default()),
            Err(Broken::new(Fault::RepeatedCoding, 9))
        );
        let once = evidence(Some("chunked"));
        assert_eq!(
            judge(Message::Request, Version::Http10, once, Evidence::default()),
            Err(Broken::new(Fault::CodingIn10, 7))
        );
    }

    #[test]
    fn responses() {
        assert_eq!(response(Method::Get, 200, None, None), Ok(Framing::UntilClose));
        assert_eq!(response(Method::Get, 200, None, Some("5")), Ok(Framing::Length(5)));
        assert_eq!(response(Method::Get, 200, Some("chunked"), None), Ok(Framing::Chunked));
        assert_eq!(response(Method::Get, 205, None, Some("0")), Ok(Framing::Length(0)));
        for (method, status) in [(Method::Head, 200), (Method::Get, 204), (Method::Get, 304), (Method::Get, 103)] {
            assert_eq!(response(method, status, None, Some("5")), Ok(Framing::None));
            assert_eq!(response(method, status, Some("chunked"), None), Ok(Framing::None));
            assert_eq!(response(method, status, None, Some("x")), Err(Fault::BadLength));
        }
        assert_eq!(response(Method::Get, 200, Some("gzip"), None), Err(Fault::UnknownCoding));
        assert_eq!(response(Method::Get, 200, Some("chunked"), Some("3")), Err(Fault::LengthAndCoding));
    }
}
