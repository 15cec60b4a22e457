//! One message body: which of the bytes that come are payload, and where the message ends.
//!
//! What a pump may rely on, when it puts new framing around the payload in the buffer that it received:
//!
//! * In front of the payload: [`chunk_prefix`] needs at most [`CHUNK_PREFIX_MAX`] bytes; everything before
//!   `payload.start` is free.
//! * Behind it: `payload.end .. consumed` is free. Bytes of the next message stand behind `consumed` only if the body is
//!   done. If it is done by a call that also gave payload, then [`END_OF_CHUNK`], [`LAST_CHUNK`], the trailers and the
//!   final CRLF fit there: the same came in, never shorter.
//! * If the body is done by a call without payload, the end may have come in pieces, and nothing is promised about the
//!   room: `LAST_CHUNK`, trailers and CRLF then go in front of `consumed` if the headroom suffices, or out by themselves.
//! * If the body is not done, nothing stands behind `consumed`, and what is appended overwrites nobody's bytes.

use super::chunked::{Decoder, Step};
use super::field::Fields;
use super::framing::Framing;
use super::reject::{Broken, Fault};
use std::ops::Range;

/// What a call of [`Body::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where in the given slice the payload now stands, contiguous (chunks are moved together in place).
    pub payload: Range<usize>,
    /// Input bytes that belong to this message; what follows is the next message's. Everything given, unless done.
    /// `consumed >= payload.end`; the bytes between may be overwritten, as the head of this file tells.
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

impl From<Broken> for BodyFault {
    fn from(broken: Broken) -> BodyFault {
        BodyFault { fault: broken.fault, at: broken.at }
    }
}

/// Walks one body of any framing.
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    payload_bytes: u64,
}

#[derive(Debug)]
enum Kind {
    /// This many bytes are still to come; no body is one of none.
    Length(u64),
    Chunked(Decoder),
    UntilClose,
}

impl Body {
    /// A body that has not begun.
    pub fn new(framing: Framing) -> Body {
        let kind = match framing {
            Framing::None => Kind::Length(0),
            Framing::Length(n) => Kind::Length(n),
            Framing::Chunked => Kind::Chunked(Decoder::new()),
            Framing::UntilClose => Kind::UntilClose,
        };
        Body { kind, payload_bytes: 0 }
    }

    /// The same behind a head, of which these are the fields. Its Connection options take away trailers of that name, too (RFC
    /// 9110 section 7.6.1).
    pub fn behind(head: &[u8], fields: &Fields, framing: Framing) -> Body {
        let mut body = Body::new(framing);
        if let Kind::Chunked(decoder) = &mut body.kind {
            fields.options(head).for_each(|option| decoder.drop_trailers(option));
        }
        body
    }

    /// Whether the end has been seen. True from the start for `None` and `Length(0)`; never for `UntilClose`.
    pub fn is_done(&self) -> bool {
        match &self.kind {
            Kind::Length(left) => *left == 0,
            Kind::Chunked(decoder) => decoder.is_done(),
            Kind::UntilClose => false,
        }
    }

    /// How many of `bytes` a body takes that begins with them and ends among them; `None` if it does not, or is malformed. They
    /// are of no use afterwards: this is for whoever only has to know. One place for all of these, so that another caller does
    /// not change how `decode` is compiled where bodies are passed on.
    #[cold]
    #[inline(never)]
    pub fn whole(framing: Framing, bytes: &mut [u8]) -> Option<usize> {
        let mut body = Body::new(framing);
        let decoded = body.decode(bytes).ok()?;
        body.is_done().then_some(decoded.consumed)
    }

    /// Takes the next bytes. Payload is compacted in place; nothing is copied where one run of payload came.
    ///
    /// After an error the body is broken and no byte of this call may be used.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, BodyFault> {
        let decoded = match &mut self.kind {
            Kind::Length(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= len as u64;
                Decoded { payload: 0..len, consumed: len }
            }
            Kind::UntilClose => Decoded { payload: 0..bytes.len(), consumed: bytes.len() },
            Kind::Chunked(decoder) => unchunk(decoder, bytes)?,
        };
        self.payload_bytes += decoded.payload.len() as u64;
        Ok(decoded)
    }

    /// Whether an end of the stream here is the end of the body (`UntilClose`, or done): else the body is truncated.
    pub fn complete_at_eof(&self) -> bool {
        matches!(self.kind, Kind::UntilClose) || self.is_done()
    }

    /// Bytes that are still to come if the framing says so (`Length`), for buffer and splice choices.
    pub fn remaining(&self) -> Option<u64> {
        match self.kind {
            Kind::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Bytes of a `Length` that went by unseen, at most [`Body::remaining`].
    pub fn pass(&mut self, bytes: u64) {
        if let Kind::Length(left) = &mut self.kind {
            debug_assert!(bytes <= *left, "no more than remain");
            *left = left.saturating_sub(bytes);
            self.payload_bytes += bytes;
        }
    }

    /// After a fault: bytes of this body, coding included, that came before those of the call that found it.
    pub fn before_fault(&self) -> u64 {
        match &self.kind {
            Kind::Chunked(decoder) => decoder.taken(),
            _ => 0,
        }
    }

    /// After a fault at `at` of the bytes of that call: where in them the line begins that holds it, and what may stand for
    /// the body before that line, so that both together are a body with the same fault. `None` where the line began in
    /// bytes that are gone, or where what is wrong is the body as a whole: more of something than the limit.
    pub fn faulty_line(&self, fault: BodyFault) -> Option<(&'static [u8], usize)> {
        match &self.kind {
            Kind::Chunked(decoder) => decoder.faulty_line(fault.fault, fault.at),
            _ => None,
        }
    }

    /// Payload bytes seen so far.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// After the end of a chunked body: the trailer section's field lines that may be passed on, each with CRLF, or
    /// empty. Fields that must not be in trailers (RFC 9110 section 6.5.1: framing, routing, authentication, ...) are gone.
    pub fn trailers(&self) -> &[u8] {
        match &self.kind {
            Kind::Chunked(decoder) if decoder.is_done() => decoder.trailers(),
            _ => &[],
        }
    }
}

/// Decodes all of `bytes`, or up to the end of the body, and moves the payload together behind its first run.
fn unchunk(decoder: &mut Decoder, bytes: &mut [u8]) -> Result<Decoded, Broken> {
    let mut payload = 0..0;
    let mut at = 0;
    while at < bytes.len() && !decoder.is_done() {
        let step = decoder.step(&bytes[at..]).map_err(|b| Broken::new(b.fault, at + b.at))?;
        match step {
            Step::Coding(n) => at += n,
            Step::Payload { skip, len } => {
                let from = at + skip;
                at = from + len;
                if payload.is_empty() {
                    payload = from..at;
                } else {
                    bytes.copy_within(from..at, payload.end);
                    payload.end += len;
                }
            }
        }
    }
    decoder.took(at);
    Ok(Decoded { payload, consumed: at })
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

/// Ends a chunk's data.
pub const END_OF_CHUNK: &[u8] = b"\r\n";

/// Ends a chunked body, with [`Body::trailers`] and an empty line behind it.
pub const LAST_CHUNK: &[u8] = b"0\r\n";

/// Writes the chunk-size line for `payload` bytes right-justified into `room`; returns how many bytes of it are used.
///
/// `payload` must not be 0: that would be the last chunk.
pub fn chunk_prefix(payload: usize, room: &mut [u8; CHUNK_PREFIX_MAX]) -> usize {
    assert_ne!(payload, 0, "a chunk of nothing ends the body");
    let mut at = CHUNK_PREFIX_MAX - 2;
    room[at..].copy_from_slice(b"\r\n");
    let mut rest = payload;
    while rest > 0 {
        at -= 1;
        room[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    CHUNK_PREFIX_MAX - at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_bodies_are_told_from_others() {
        let whole = |framing, bytes: &str| Body::whole(framing, &mut bytes.as_bytes().to_vec());
        assert_eq!(whole(Framing::None, "GET"), Some(0));
        assert_eq!((whole(Framing::Length(3), "abcGET"), whole(Framing::Length(3), "ab")), (Some(3), None));
        let chunked = "1\r\nx\r\n0\r\n\r\n";
        assert_eq!(whole(Framing::Chunked, &format!("{chunked}GET")), Some(chunked.len()));
        assert_eq!(
            (whole(Framing::Chunked, &chunked[..chunked.len() - 1]), whole(Framing::Chunked, "zz")),
            (None, None)
        );
        assert_eq!(whole(Framing::UntilClose, "abc"), None);
    }

    #[test]
    fn bytes_that_pass_unseen_count() {
        let mut body = Body::new(Framing::Length(10));
        assert_eq!(body.decode(&mut [0; 3]).map(|piece| piece.consumed), Ok(3));
        body.pass(5);
        assert_eq!((body.remaining(), body.payload_bytes(), body.is_done()), (Some(2), 8, false));
        body.pass(2);
        assert!(body.is_done() && body.complete_at_eof());
    }

    #[test]
    fn prefixes() {
        let mut room = [0; CHUNK_PREFIX_MAX];
        for (n, text) in [(1, "1\r\n"), (16, "10\r\n"), (0xabcdef, "abcdef\r\n"), (usize::MAX, "ffffffffffffffff\r\n")]
        {
            let used = chunk_prefix(n, &mut room);
            assert_eq!(&room[CHUNK_PREFIX_MAX - used..], text.as_bytes());
        }
    }

    #[test]
    fn plain_bodies() {
        let mut body = Body::new(Framing::Length(5));
        assert_eq!((body.is_done(), body.remaining(), body.complete_at_eof()), (false, Some(5), false));
        assert_eq!(body.decode(&mut b"hel".to_vec()), Ok(Decoded { payload: 0..3, consumed: 3 }));
        assert_eq!(body.decode(&mut b"loGET".to_vec()), Ok(Decoded { payload: 0..2, consumed: 2 }));
        assert_eq!((body.is_done(), body.remaining(), body.payload_bytes()), (true, Some(0), 5));
        assert_eq!(body.decode(&mut b"GET".to_vec()), Ok(Decoded { payload: 0..0, consumed: 0 }));
        assert!(Body::new(Framing::None).is_done() && Body::new(Framing::Length(0)).is_done());

        let mut body = Body::new(Framing::UntilClose);
        assert_eq!(body.decode(&mut b"hel".to_vec()), Ok(Decoded { payload: 0..3, consumed: 3 }));
        assert_eq!((body.is_done(), body.remaining(), body.complete_at_eof()), (false, None, true));
    }

    #[test]
    fn chunks_are_moved_together() {
        let mut bytes = b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-T: v\r\nHost: h\r\n\r\nGET".to_vec();
        let mut body = Body::new(Framing::Chunked);
        let decoded = body.decode(&mut bytes).unwrap();
        assert_eq!(&bytes[decoded.payload.clone()], b"hello");
        assert_eq!(decoded.payload, 3..8);
        assert_eq!(&bytes[decoded.consumed..], b"GET");
        assert_eq!((body.is_done(), body.trailers(), body.payload_bytes()), (true, &b"X-T: v\r\n"[..], 5));
        assert_eq!(body.decode(&mut b"GET".to_vec()), Ok(Decoded { payload: 0..0, consumed: 0 }));
    }

    #[test]
    fn connection_options_name_trailers_too() {
        let head = b"Connection: x-a, close, ,X-Forwarded-For\r\nConnection: X-C\r\n";
        let at = |begin: u16, end: u16| super::super::Span { start: begin, end };
        let mut fields = Fields::default();
        assert!(fields.push(&head[..10], at(0, 10), at(12, 40)) && fields.push(&head[42..52], at(42, 52), at(54, 57)));
        let mut body = Body::behind(head, &fields, Framing::Chunked);
        body.decode(&mut b"0\r\nX-A: 1\r\nX-B: 2\r\nx-c: 3\r\nX: 4\r\n\r\n".to_vec()).unwrap();
        assert_eq!((body.is_done(), body.trailers()), (true, &b"X-B: 2\r\nX: 4\r\n"[..]));
    }

    #[test]
    fn truncated_chunks_are_not_complete() {
        let whole = b"5\r\nhello\r\n0\r\nX: y\r\n\r\n";
        for len in 0..whole.len() {
            let mut body = Body::new(Framing::Chunked);
            body.decode(&mut whole[..len].to_vec()).unwrap();
            assert!(!body.is_done() && !body.complete_at_eof(), "{len}");
        }
    }

    #[test]
    fn faults_tell_the_offset_in_the_slice() {
        let mut body = Body::new(Framing::Chunked);
        body.decode(&mut b"5\r\nhel".to_vec()).unwrap();
        assert_eq!(body.decode(&mut b"loXX".to_vec()), Err(BodyFault { fault: Fault::ChunkEnd, at: 2 }));
    }

    #[test]
    fn a_faulty_line_stands_for_its_body() {
        for text in [
            &b"5\r\nhello\r\n6x\r\n"[..],
            b"5\r\nhello\r\n 6\r\n",
            b"5\r\nhello\r\n6\r7",
            b"5\r\nhello\r\n6;a=\"b\n",
            b"5\r\nhello\r\n11111111111111111",
            b"1\r\na\r\n5\r\nhelloworld",
            b"1\r\na\r\n5\r\nhello\rworld",
            b"5\r\nhello\r\n0\r\nA: b\r\nC : d\r\n\r\n",
            b"5\r\nhello\r\n0\r\nA: b\r\nC: d\n\r\n",
            b"5\r\nhello\r\n0\r\nA: b\r\nC: d\rx\r\n",
            b"5\r\nhello\r\n0\r\nA: b\r\n\rx",
        ] {
            let mut body = Body::new(Framing::Chunked);
            body.decode(&mut text[..4].to_vec()).expect("good so far");
            let piece = &text[4..];
            let fault = body.decode(&mut piece.to_vec()).expect_err("a fault");
            assert_eq!(body.before_fault(), 4);
            let shown = text.escape_ascii().to_string();
            let (before, line) = body.faulty_line(fault).unwrap_or_else(|| panic!("{shown}"));
            let alone = [before, &piece[line..]].concat();
            let again = Body::new(Framing::Chunked).decode(&mut alone.clone()).expect_err("the same fault");
            assert_eq!((again.fault, again.at), (fault.fault, before.len() + fault.at - line), "{shown}");
        }
        let mut body = Body::new(Framing::Chunked);
        body.decode(&mut b"5;a".to_vec()).expect("good so far");
        let fault = body.decode(&mut b"\n".to_vec()).expect_err("a fault");
        assert_eq!(body.faulty_line(fault), None, "the line began in bytes that are gone");
    }

    /// A chunked body as some client might write it, with its payload.
    fn chunked_body() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let extension = prop_oneof![Just(""), Just(";a"), Just(";a=b;c=\"d;e\""), Just(" ; x = y")];
        let chunk = (proptest::collection::vec(any::<u8>(), 1..40), extension, 0..4usize);
        let trailer = prop_oneof![Just(""), Just("X-T: v\r\n"), Just("Host: h\r\n"), Just("A: b\r\nX_Y: z\r\nC:\r\n")];
        (proptest::collection::vec(chunk, 0..8), trailer).prop_map(|(chunks, trailer)| {
            let (mut coded, mut payload) = (Vec::new(), Vec::new());
            for (data, extension, zeros) in chunks {
                coded.extend(format!("{}{:X}{extension}\r\n", "0".repeat(zeros), data.len()).into_bytes());
                coded.extend_from_slice(&data);
                coded.extend_from_slice(b"\r\n");
                payload.extend(data);
            }
            coded.extend(format!("0\r\n{trailer}\r\n").into_bytes());
            (coded, payload)
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_payload_and_new_framing_fits(
            (coded, payload) in chunked_body(),
            cuts in proptest::collection::vec(1..50usize, 1..20),
        ) {
            let next = b"GET / HTTP/1.1\r\n";
            let input = [&coded[..], next].concat();
            let mut body = Body::new(Framing::Chunked);
            let (mut got, mut at) = (Vec::new(), 0);
            let mut cuts = cuts.iter().cycle();
            while !body.is_done() {
                let end = (at + cuts.next().unwrap()).min(input.len());
                let mut piece = input[at..end].to_vec();
                let decoded = body.decode(&mut piece).unwrap();
                got.extend_from_slice(&piece[decoded.payload.clone()]);
                prop_assert!(decoded.payload.end <= decoded.consumed);
                if body.is_done() && !decoded.payload.is_empty() {
                    let framing = END_OF_CHUNK.len() + LAST_CHUNK.len() + body.trailers().len() + 2;
                    prop_assert!(framing <= decoded.consumed - decoded.payload.end);
                }
                prop_assert!(body.is_done() || decoded.consumed == piece.len());
                at += decoded.consumed;
            }
            prop_assert_eq!(got, payload);
            prop_assert_eq!(&input[at..], &next[..]);
        }

        #[test]
        fn any_split_of_anything_gives_the_same_verdict(
            input in proptest::collection::vec(prop_oneof![
                Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'5'), Just(b';'), Just(b'"'), Just(b'='), Just(b':'), Just(b'a'),
                Just(b' '), any::<u8>(),
            ], 0..60),
            piece in 1..8usize,
        ) {
            let run = |piece: usize| {
                let mut body = Body::new(Framing::Chunked);
                let (mut got, mut at) = (Vec::new(), 0);
                for part in input.chunks(piece) {
                    let mut part = part.to_vec();
                    match body.decode(&mut part) {
                        Ok(d) => {
                            got.extend_from_slice(&part[d.payload]);
                            at += d.consumed;
                        }
                        Err(fault) => return Err((fault.fault, at + fault.at)),
                    }
                    if body.is_done() {
                        break;
                    }
                }
                Ok((got, at, body.is_done(), body.trailers().to_vec()))
            };
            prop_assert_eq!(run(piece), run(input.len().max(1)));
        }
    }
}
