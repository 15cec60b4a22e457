//! The one function that says where a message ends, for both directions (RFC 9112 section 6.3).

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
