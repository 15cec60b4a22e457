//! One message body: which of the bytes that come are payload, and where the message ends.

use super::framing::Framing;
use super::reject::Fault;
use std::ops::Range;

/// What a call of [`Body::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where in the given slice the payload now stands, contiguous (chunks are moved together in place).
    pub payload: Range<usize>,
    /// Input bytes that belong to this message; what follows is the next message's. Everything given, unless done.
    /// `consumed >= payload.end`, and where the body is chunked and a chunk ended, the bytes between are free to be
    /// overwritten by framing that is not longer than what came in.
    pub consumed: usize,
}

/// A fault in a body, with the offset in the given slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFault {
    /// The rule that was broken.
    pub fault: Fault,
    /// Offset in the slice given to `decode`.
    pub at: usize,
}

/// Walks one body of any framing.
#[derive(Debug)]
pub struct Body {
    // framing, rest, chunk decoder with its trailer section
    _todo: (),
}

impl Body {
    /// A body that has not begun.
    pub fn new(_framing: Framing) -> Body {
        todo!()
    }

    /// Whether the end has been seen. True from the start for `None` and `Length(0)`; never for `UntilClose`.
    pub fn is_done(&self) -> bool {
        todo!()
    }

    /// Takes the next bytes. Payload is compacted in place; nothing is copied where one run of payload came.
    pub fn decode(&mut self, _bytes: &mut [u8]) -> Result<Decoded, BodyFault> {
        todo!()
    }

    /// Whether an end of the stream here is the end of the body (`UntilClose`, or done): else the body is truncated.
    pub fn complete_at_eof(&self) -> bool {
        todo!()
    }

    /// Bytes that are still to come if the framing says so (`Length`), for buffer and splice choices.
    pub fn remaining(&self) -> Option<u64> {
        todo!()
    }

    /// Payload bytes seen so far.
    pub fn payload_bytes(&self) -> u64 {
        todo!()
    }

    /// After the end of a chunked body: the trailer section's field lines that may be passed on, each with CRLF, or
    /// empty. Fields that must not be in trailers (RFC 9110 section 6.5.1: framing, routing, authentication, ...) are gone.
    pub fn trailers(&self) -> &[u8] {
        todo!()
    }
}

/// How a body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Payload bytes as they are (`Length`, `UntilClose`, none).
    Plain,
    /// Each payload run as one chunk.
    Chunked,
}

/// Most bytes that [`chunk_prefix`] writes.
pub const CHUNK_PREFIX_MAX: usize = 18;

/// Writes the chunk-size line for `payload` bytes right-justified into `room`; returns how many bytes of it are used.
pub fn chunk_prefix(_payload: usize, _room: &mut [u8; CHUNK_PREFIX_MAX]) -> usize {
    todo!()
}
