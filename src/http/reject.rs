//! Whose fault it is, stated in the type.

/// One table makes the enum and what can be said about each variant, so that none of it can be forgotten.
macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident $status:literal $name:literal $clause:literal $text:literal;)*) => {
        /// What is wrong with a message: one variant per rule that was broken.
        ///
        /// [`Fault::clause`] names the rule's section, [`Fault::name`] the short word used in logs and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $(#[doc = $text] $(#[$doc])* $variant,)*
        }

        impl Fault {
            /// All faults, in the order of their declaration.
            pub const ALL: &[Fault] = &[$(Fault::$variant,)*];

            /// The short word for logs and metrics: kebab-case, stable over releases.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name,)* }
            }

            /// Where the rule stands that was broken.
            pub fn clause(self) -> &'static str {
                match self { $(Fault::$variant => $clause,)* }
            }

            /// One sentence for people; never contains anything that was received.
            pub fn describe(self) -> &'static str {
                match self { $(Fault::$variant => $text,)* }
            }

            /// Status of the answer where a request has this fault. In a response every fault is a 502.
            pub fn status(self) -> u16 {
                match self { $(Fault::$variant => $status,)* }
            }
        }
    };
}

faults! {
    // Where a message begins and how its lines end.
    NotHttp 400 "not-http" "RFC 9112 section 2.1" "The first byte cannot begin an HTTP message.";
    TlsHello 400 "tls-hello" "RFC 9112 section 2.1" "A TLS handshake came to a port that speaks plain HTTP.";
    LeadingEmptyLines 400 "leading-empty-lines" "RFC 9112 section 2.2" "Too many empty lines stand before the request line.";
    BareLf 400 "bare-lf" "RFC 9112 section 2.2" "A line ends with LF alone.";
    BareCr 400 "bare-cr" "RFC 9112 section 2.2" "A CR stands without an LF behind it.";
    Nul 400 "nul" "RFC 9110 section 5.5" "The message head contains a NUL byte.";
    Control 400 "control" "RFC 9110 section 5.5" "A field value contains a control character.";
    UriTooLong 414 "uri-too-long" "RFC 9110 section 15.5.15" "The request line is longer than a whole head may be.";
    HeadTooLarge 431 "head-too-large" "RFC 6585 section 5" "The message head is larger than the limit.";
    TooManyFields 431 "too-many-fields" "RFC 6585 section 5" "The message has more field lines than the limit.";
    Malformed 400 "malformed" "RFC 9112 section 2.1" "The message head does not follow the grammar.";

    // The start line.
    BadMethod 400 "bad-method" "RFC 9110 section 9.1" "The method is not a token.";
    RequestLine 400 "request-line" "RFC 9112 section 3" "The request line is not method, target and version with one space between them.";
    NoVersion 400 "no-version" "RFC 9112 section 3" "The request line has no HTTP version.";
    BadVersion 400 "bad-version" "RFC 9112 section 2.3" "The HTTP version is malformed.";
    UnsupportedVersion 505 "unsupported-version" "RFC 9110 section 15.6.6" "Only HTTP/1.0 and HTTP/1.1 are served here.";
    Http2Preface 505 "http2-preface" "RFC 9113 section 3.4" "The preface of HTTP/2 came to a port that speaks HTTP/1.1.";
    StatusLine 400 "status-line" "RFC 9112 section 4" "The status line is malformed.";
    BadStatus 400 "bad-status" "RFC 9110 section 15" "The status code is not between 100 and 599.";
    UnsolicitedUpgrade 400 "unsolicited-upgrade" "RFC 9110 section 7.8" "A 101 response came to a request that asked for no upgrade.";
    TooManyInterim 400 "too-many-interim" "RFC 9110 section 15.2" "Too many interim responses came before the final one.";
    NoUpgrade 400 "no-upgrade" "RFC 9110 section 15.2.2" "A 101 response does not name the protocol it switches to, once.";

    // The request target and the Host field.
    BadTarget 400 "bad-target" "RFC 9112 section 3.2" "The request target has none of the four forms.";
    TargetByte 400 "target-byte" "RFC 3986 section 3.3" "The request target contains a character that must be percent-encoded.";
    Fragment 400 "fragment" "RFC 9112 section 3.2" "The request target has a fragment.";
    BadPercent 400 "bad-percent" "RFC 3986 section 2.1" "A percent sign is not followed by two hexadecimal digits.";
    EncodedNul 400 "encoded-nul" "RFC 3986 section 7.3" "The path contains a percent-encoded NUL.";
    DotSegment 400 "dot-segment" "RFC 3986 section 5.2.4" "The path contains a dot segment.";
    Asterisk 400 "asterisk" "RFC 9112 section 3.2.4" "Only OPTIONS may have the target `*`.";
    Scheme 400 "scheme" "RFC 9110 section 4.2" "The scheme of the request target is neither http nor https.";
    InsecureHttps 421 "insecure-https" "RFC 9110 section 7.4" "The request is for an https resource, but its connection is not secured.";
    Userinfo 400 "userinfo" "RFC 9110 section 4.2.4" "An authority contains user information.";
    Connect 501 "connect" "RFC 9110 section 9.3.6" "CONNECT is not served here.";
    NoHost 400 "no-host" "RFC 9112 section 3.2" "An HTTP/1.1 request has no Host field.";
    RepeatedHost 400 "repeated-host" "RFC 9112 section 3.2" "The request has more than one Host field.";
    BadHost 400 "bad-host" "RFC 3986 section 3.2.2" "The host is not a valid name or address.";
    BadPort 400 "bad-port" "RFC 3986 section 3.2.3" "The port is not a decimal number below 65536.";

    // Field lines.
    EmptyName 400 "empty-name" "RFC 9112 section 5" "A field line has no name.";
    BadName 400 "bad-name" "RFC 9110 section 5.1" "A field name is not a token.";
    NoColon 400 "no-colon" "RFC 9112 section 5" "A field line has no colon.";
    SpaceBeforeColon 400 "space-before-colon" "RFC 9112 section 5.1" "White space stands between a field name and its colon.";
    ObsFold 400 "obs-fold" "RFC 9112 section 5.2" "A line begins with white space.";
    Underscore 400 "underscore" "RFC 3875 section 4.1.18" "A field name contains an underscore, which this server is set to reject.";
    BadConnection 400 "bad-connection" "RFC 9110 section 7.6.1" "A Connection field is not a list of tokens, or is too long a list.";
    Expectation 417 "expectation" "RFC 9110 section 10.1.1" "The request expects something other than 100-continue.";
    BadMaxForwards 400 "bad-max-forwards" "RFC 9110 section 7.6.2" "Max-Forwards is not one decimal number.";

    // Framing.
    LengthAndCoding 400 "length-and-coding" "RFC 9112 section 6.3" "Both Content-Length and Transfer-Encoding are present.";
    RepeatedLength 400 "repeated-length" "RFC 9112 section 6.3" "Content-Length is present more than once.";
    BadLength 400 "bad-length" "RFC 9110 section 8.6" "Content-Length is not one decimal number of at most 63 bits.";
    CodingIn10 400 "coding-in-1.0" "RFC 9112 section 6.1" "An HTTP/1.0 message has a Transfer-Encoding.";
    RepeatedCoding 400 "repeated-coding" "RFC 9112 section 6.1" "Transfer-Encoding is present more than once.";
    BadCoding 400 "bad-coding" "RFC 9112 section 6.3" "Transfer-Encoding is malformed, or chunked is not applied once and last.";
    UnknownCoding 501 "unknown-coding" "RFC 9112 section 6.1" "Transfer-Encoding names a coding other than chunked.";
    TraceBody 400 "trace-body" "RFC 9110 section 9.3.8" "A TRACE request has a body.";

    // The chunked coding.
    ChunkSize 400 "chunk-size" "RFC 9112 section 7.1" "A chunk size is not a hexadecimal number.";
    ChunkOverflow 400 "chunk-overflow" "RFC 9112 section 7.1" "A chunk size has more than 63 bits.";
    ChunkExtension 400 "chunk-extension" "RFC 9112 section 7.1.1" "A chunk extension is malformed.";
    ChunkLineTooLong 400 "chunk-line-too-long" "RFC 9112 section 7.1.1" "A chunk-size line is longer than the limit.";
    ChunkExtensions 400 "chunk-extensions" "RFC 9112 section 7.1.1" "The chunk extensions of one body are longer than the limit.";
    ChunkEnd 400 "chunk-end" "RFC 9112 section 7.1" "A chunk's data is not followed by CRLF.";
    TrailerTooLarge 431 "trailer-too-large" "RFC 6585 section 5" "The trailer section is larger than the limit.";
}

/// A broken rule and where: what parsing finds before anybody says whose message it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule that was broken.
    pub fault: Fault,
    /// Offset of the first offending byte in the message.
    pub at: usize,
}

impl Broken {
    pub(super) fn new(fault: Fault, at: usize) -> Broken {
        Broken { fault, at }
    }
}

/// A request that Ringway refuses: the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Status code of the answer (400, 413, 414, 417, 421, 431, 501, 505).
    pub status: u16,
    /// The rule that was broken.
    pub fault: Fault,
    /// Offset of the first offending byte in the message.
    pub at: usize,
}

impl From<Broken> for Reject {
    fn from(broken: Broken) -> Reject {
        Reject { status: broken.fault.status(), fault: broken.fault, at: broken.at }
    }
}

/// A response that Ringway refuses: the backend's fault, answered to the client with 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The rule that was broken.
    pub fault: Fault,
    /// Offset of the first offending byte in the message.
    pub at: usize,
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Failure {
        Failure { fault: broken.fault, at: broken.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct_words_and_statuses_are_known() {
        let names: HashSet<_> = Fault::ALL.iter().map(|f| f.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        for fault in Fault::ALL {
            assert!(fault.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b)));
            assert!(fault.clause().starts_with("RFC "), "{fault:?}");
            assert!(fault.describe().ends_with('.'), "{fault:?}");
            assert!([400, 414, 417, 421, 431, 501, 505].contains(&fault.status()), "{fault:?}");
        }
    }
}
