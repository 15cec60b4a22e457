//! Whether a connection lives on after an exchange (RFC 9112 section 9.3), and how a body goes to the client.

use super::Version;
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
///
/// Whether client and backend want their connections to live stands in their heads, not here.
pub fn client_side(request: &RequestHead, response: &ResponseHead) -> ClientSide {
    let framing = match (response.framing, request.version) {
        (Framing::UntilClose | Framing::Chunked, Version::Http11) => Framing::Chunked,
        // RFC 9112 section 6.1: no Transfer-Encoding to a client of 1.0.
        (Framing::UntilClose | Framing::Chunked, Version::Http10) => Framing::UntilClose,
        (framing, _) => framing,
    };
    ClientSide {
        framing,
        encoding: if framing == Framing::Chunked { Encoding::Chunked } else { Encoding::Plain },
        persist: framing != Framing::UntilClose,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_framing_and_version() {
        use Framing::*;
        for (framing, version, want, encoding, persist) in [
            (None, Version::Http11, None, Encoding::Plain, true),
            (Length(5), Version::Http11, Length(5), Encoding::Plain, true),
            (Chunked, Version::Http11, Chunked, Encoding::Chunked, true),
            (UntilClose, Version::Http11, Chunked, Encoding::Chunked, true),
            (None, Version::Http10, None, Encoding::Plain, true),
            (Length(5), Version::Http10, Length(5), Encoding::Plain, true),
            (Chunked, Version::Http10, UntilClose, Encoding::Plain, false),
            (UntilClose, Version::Http10, UntilClose, Encoding::Plain, false),
        ] {
            let request = RequestHead { version, ..RequestHead::default() };
            let response = ResponseHead { framing, ..ResponseHead::default() };
            assert_eq!(client_side(&request, &response), ClientSide { framing: want, encoding, persist });
        }
    }
}
