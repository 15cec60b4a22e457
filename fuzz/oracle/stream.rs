//! What the oracles of both directions share: a connection's bytes are read message by message as they come, any split of them
//! must give the same messages, and where each ends is compared with the grammar.

use super::grammar::{self, No};
use super::policy::{self, Case};
use super::{pieces, wire};
use ringway::http::body::{Body, Encoding};
use ringway::http::framing::Framing;
use ringway::http::head::{HeadScan, Scan};
use ringway::http::reject::Reject;
use std::fmt::Debug;

/// One of the two directions, and what has to be known of it from one message to the next.
pub trait Side {
    /// What is told of a head beyond what [`Seen`] has.
    type Told: Debug + PartialEq;

    /// Looks for the end of a head.
    fn scan(&self, scan: &mut HeadScan, bytes: &[u8]) -> Result<Scan, Reject>;

    /// Judges a whole head and writes the one that goes on. [`Seen::new`] makes the rest of the message that it returns, beside
    /// the body that follows.
    fn head(&mut self, bytes: &[u8]) -> Result<(Seen<Self::Told>, Body), Reject>;
}

/// One message as Ringway saw it.
#[derive(Debug, PartialEq)]
pub struct Seen<T> {
    /// Where it begins in the stream.
    pub at: usize,
    pub head_bytes: usize,
    pub told: T,
    /// How its body came.
    pub framing: Framing,
    /// How its body goes on, if it does.
    pub onward: Option<Framing>,
    /// Nothing is read behind it.
    pub last: bool,
    /// The head that goes on, or the answer if none does.
    pub out: Vec<u8>,
    pub content: Vec<u8>,
    pub trailers: Vec<u8>,
    /// Its end was seen.
    pub whole: bool,
}

impl<T> Seen<T> {
    /// A message of which nothing but the head was read.
    pub fn new(told: T, framing: Framing, onward: Option<Framing>, last: bool, out: Vec<u8>) -> Seen<T> {
        let (content, trailers) = (Vec::new(), Vec::new());
        Seen { at: 0, head_bytes: 0, told, framing, onward, last, out, content, trailers, whole: false }
    }
}

/// How a connection's bytes ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// Well, or within a message.
    Bytes,
    /// Nothing is read behind the last message.
    Close,
    /// Refused at this place in the stream.
    Refused(Reject),
}

/// What became of a connection's bytes.
#[derive(Debug)]
pub struct Trace<T> {
    pub seen: Vec<Seen<T>>,
    pub end: End,
    /// What went on of each message.
    pub forwarded: Vec<Vec<u8>>,
}

/// What a session does with these bytes as far as it is pure.
struct Reading<S: Side> {
    side: S,
    trace: Trace<S::Told>,
    /// Received and not yet used, beginning at `at` in the stream.
    buffer: Vec<u8>,
    at: usize,
    scan: HeadScan,
    body: Option<Body>,
}

/// Reads a connection that comes in these pieces and then ends.
pub fn read<S: Side>(side: S, bytes: &[u8], pieces: &[usize]) -> Trace<S::Told> {
    let trace = Trace { seen: Vec::new(), end: End::Bytes, forwarded: Vec::new() };
    let mut reading = Reading { side, trace, buffer: Vec::new(), at: 0, scan: HeadScan::default(), body: None };
    let mut from = 0;
    for piece in pieces {
        reading.buffer.extend_from_slice(&bytes[from..from + piece]);
        from += piece;
        while reading.trace.end == End::Bytes {
            match reading.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(reject) => reading.trace.end = End::Refused(Reject { at: reading.at + reject.at, ..reject }),
            }
        }
    }
    reading.close();
    reading.trace
}

impl<S: Side> Reading<S> {
    /// One head or one piece of a body; `false` if more bytes are needed.
    fn step(&mut self) -> Result<bool, Reject> {
        let (Some(body), Some(seen), Some(out)) =
            (&mut self.body, self.trace.seen.last_mut(), self.trace.forwarded.last_mut())
        else {
            return self.head();
        };
        if !body.is_done() {
            if self.buffer.is_empty() {
                return Ok(false);
            }
            let decoded = body.decode(&mut self.buffer).map_err(|broken| Reject {
                status: broken.fault.status(),
                fault: broken.fault,
                at: broken.at,
            })?;
            seen.content.extend_from_slice(&self.buffer[decoded.payload.clone()]);
            if let Some(framing) = seen.onward {
                let encoding = if framing == Framing::Chunked { Encoding::Chunked } else { Encoding::Plain };
                wire::write_body(&self.buffer, &decoded, body, encoding, out);
            }
            self.take(decoded.consumed);
        } else {
            seen.trailers = body.trailers().to_vec();
            seen.whole = true;
            if seen.last {
                self.trace.end = End::Close;
            }
            self.body = None;
            self.scan = HeadScan::default();
        }
        Ok(true)
    }

    fn head(&mut self) -> Result<bool, Reject> {
        let Scan::Complete(head_bytes) = self.side.scan(&mut self.scan, &self.buffer)? else { return Ok(false) };
        let (seen, body) = self.side.head(&self.buffer[..head_bytes])?;
        let seen = Seen { at: self.at, head_bytes, ..seen };
        self.trace.forwarded.push(seen.onward.map_or_else(Vec::new, |_| seen.out.clone()));
        self.body = Some(body);
        self.trace.seen.push(seen);
        self.take(head_bytes);
        Ok(true)
    }

    fn take(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        self.at += bytes;
    }

    /// The connection ends: a body that ends with it is whole, and the pump writes its end.
    fn close(&mut self) {
        let (Some(body), Some(seen), End::Bytes) = (&self.body, self.trace.seen.last_mut(), self.trace.end) else {
            return;
        };
        seen.whole = body.complete_at_eof();
        if let (true, Some(Framing::Chunked), Some(out)) = (seen.whole, seen.onward, self.trace.forwarded.last_mut()) {
            wire::write_end(body, out);
        }
    }
}

/// Reads a connection in several splits, which must not be told apart: each is given to `forwarded`, the first to `verdicts`.
pub fn check<S: Side>(
    bytes: &[u8],
    side: impl Fn() -> S,
    forwarded: impl Fn(&Trace<S::Told>),
    verdicts: impl Fn(&Trace<S::Told>),
) {
    let mut first: Option<Trace<S::Told>> = None;
    for split in pieces::splits(bytes) {
        let mut trace = read(side(), bytes, &split);
        forwarded(&trace);
        // What of a broken body had gone on before it broke depends on the split, and on nothing else does anything.
        if let (End::Refused(_), Some(seen)) = (trace.end, trace.seen.last_mut())
            && !seen.whole
        {
            seen.content.clear();
        }
        match &first {
            None => {
                verdicts(&trace);
                first = Some(trace);
            }
            Some(first) => assert_eq!((&trace.seen, trace.end), (&first.seen, first.end), "pieces of {split:?}"),
        }
    }
}

/// Compares the body of a message, which the case begins with, with the grammar's. Returns the bytes of the message if another
/// may stand behind it.
pub fn judge_body<T>(seen: &Seen<T>, end: End, framing: grammar::Framing, case: &Case<'_>) -> Option<usize> {
    let body = grammar::body::body(framing, &case.bytes[seen.head_bytes..]);
    match (&body.end, seen.whole) {
        (Ok(end), true) => {
            assert_eq!(seen.content, body.content);
            wire::judge_trailers(&wire::trailer_lines(&seen.trailers), &end.trailers, case.lines());
            return Some(seen.head_bytes + end.bytes);
        }
        (Err(No::Partial), true) => {
            assert_eq!(framing, grammar::Framing::UntilClose);
            assert_eq!(seen.content, body.content);
        }
        (Err(No::Refused { .. }), false) => {}
        (said, false) => match end {
            End::Refused(Reject { fault, .. }) => {
                assert!(policy::allows(fault, case), "a body refused for {fault:?}, the grammar says {said:?}");
            }
            _ => {
                assert_eq!(*said, Err(No::Partial), "the end of a body was not seen");
                assert_eq!(seen.content, body.content);
            }
        },
        (said, true) => panic!("a body was taken, the grammar says {said:?}"),
    }
    None
}

/// Compares how a connection ended with what the grammar says of the head behind its last message.
pub fn judge_end<H: Debug>(end: End, said: &grammar::Parsed<H>, case: &Case<'_>) {
    let text = case.bytes.escape_ascii();
    match (end, said) {
        (End::Close, _) | (_, Err(No::Refused { .. })) | (End::Bytes, Err(No::Partial)) => {}
        (End::Bytes, Ok(_)) => panic!("the end of a head was not seen: {text}"),
        (End::Refused(Reject { fault, .. }), said) => {
            assert!(policy::allows(fault, case), "refused for {fault:?}, the grammar says {said:?}: {text}");
        }
    }
}
