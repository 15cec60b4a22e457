//! Whether a connection lives on after an exchange (RFC 9112 section 9.3), and how a body goes to the client.

use super::body::Encoding;
use super::framing::Framing;
use super::head::{RequestHead, ResponseHead};

/// How a response is framed for this client, and whether the client connection may live on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSide {
    /// Framing of the head that goes out.
    pub framing: Framing,
    /// Encoding of the body that goes out.
    pub encoding: Encoding,
    /// The framing allows another exchange (false: the end of this body is the end of the connection).
    pub persist: bool,
}

/// Decides the client side of a response: `UntilClose` becomes chunked for a 1.1 client; chunked becomes `UntilClose`
/// for a 1.0 client; everything else stays.
pub fn client_side(_request: &RequestHead, _response: &ResponseHead) -> ClientSide {
    todo!()
}
