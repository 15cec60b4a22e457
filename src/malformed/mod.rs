//! The latest messages of each core that were refused, as bytes, for `ringway ctl errors`: what was sent, and where it is
//! wrong. Bounded, and the worker never waits for whoever reads them.
//!
//! They are kept by kind, which is the rule that was broken and the side that broke it: a flood of one kind leaves the
//! others as they are. Of a message the head is kept, never a body: of a body with a fault in its coding only the line that
//! holds the fault. Secrets in the head are masked (`mask`), each by as many bytes, so that offsets stay true. What is kept
//! has the same fault at the same byte as what was sent ([`crate::parse`] tells), unless it is [`Kept::partial`].

mod mask;

use crate::http::body::{Body, BodyFault};
use crate::http::head::{HeadScan, Scan};
use crate::http::reject::Fault;
use crate::limits::{
    HEAD_BYTES_MAX, MALFORMED_BYTES_MAX, MALFORMED_CONTEXT_BYTES, MALFORMED_PER_KIND, MALFORMED_TEXT_BYTES_MAX,
};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Whose message it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client's request.
    Client,
    /// A backend's response.
    Backend,
}

/// One message that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// How many the core had refused by then, this one included; the core's name for it.
    pub number: u64,
    /// Seconds since 1970.
    pub unix: u64,
    /// Name of the listener that its exchange came by.
    pub listener: String,
    /// Who sent it: the address of the connection's other end, and of a backend `CLUSTER/ID` before that.
    pub peer: String,
    /// What was sent.
    pub kept: Kept,
}

/// What is kept of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whose it was.
    pub side: Side,
    /// The rule that was broken.
    pub fault: Fault,
    /// Offset of the first offending byte in `bytes`; their number, where what is missing would have had to follow.
    pub at: usize,
    /// The head with secrets masked, and the line of the body that holds the fault.
    pub bytes: Box<[u8]>,
    /// Bytes that were masked.
    pub masked: usize,
    /// Bytes of the body that are left out before that line.
    pub left_out: u64,
    /// `bytes` alone do not have the fault: too much is left out.
    pub partial: bool,
}

/// What stands for the head of a response that has gone on already when its body turns out to be malformed.
const HEAD_GONE: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

impl Kept {
    /// Of a message whose head is refused at an offset. `bytes` begin with the head; what follows it is not looked at.
    #[cold]
    pub fn of_head(side: Side, bytes: &[u8], fault: Fault, at: usize) -> Kept {
        let mut scan = HeadScan::default();
        let end = match side {
            Side::Client => scan.request(bytes).ok(),
            Side::Backend => scan.response(bytes).ok(),
        };
        let end = match end {
            Some(Scan::Complete(end)) => end,
            // Where no head was found, what follows the fault may be anything.
            _ => line_behind(bytes, at),
        };
        let mut kept = bytes[..end.min(HEAD_BYTES_MAX)].to_vec();
        let masked = mask::secrets(&mut kept, fault, at);
        // What is wrong with these two is how many there are, and that they come unasked.
        let partial = matches!(fault, Fault::TooManyInterim);
        Kept { side, fault, at, bytes: kept.into(), masked, left_out: 0, partial }
    }

    /// Of a message with a fault in its body. `head` are the bytes of the head, if they are still there; `piece` are those
    /// that the call of [`Body::decode`] was given that has found the fault, from the line with the fault on as they came.
    #[cold]
    pub fn of_body(side: Side, head: Option<&[u8]>, body: &Body, fault: BodyFault, piece: &[u8]) -> Kept {
        let mut kept = head.unwrap_or(HEAD_GONE).to_vec();
        let masked = mask::secrets(&mut kept, fault.fault, 0);
        let line = body.faulty_line(fault);
        let here = line.map_or(0, |(_, begin)| begin);
        if let Some((before, begin)) = line {
            kept.extend_from_slice(before);
            // What stands behind the fault may be payload.
            kept.extend_from_slice(&piece[begin..piece.len().min(fault.at + 1)]);
        }
        let at = kept.len() - usize::from(line.is_some());
        let left_out = body.before_fault() + here as u64;
        Kept { side, fault: fault.fault, at, bytes: kept.into(), masked, left_out, partial: line.is_none() }
    }

    /// Status of the answer that the rule asks for: to a request; a response that is refused is a 502.
    pub fn status(&self) -> u16 {
        match self.side {
            Side::Client => self.fault.status(),
            Side::Backend => 502,
        }
    }
}

/// The end of the line that begins at a fault, which may be far.
fn line_behind(bytes: &[u8], at: usize) -> usize {
    let at = at.min(bytes.len());
    let near = &bytes[at..bytes.len().min(at + MALFORMED_CONTEXT_BYTES)];
    at + near.iter().position(|&byte| byte == b'\n').map_or(near.len(), |lf| lf + 1)
}

/// A name as it is kept: no longer than the limit.
pub fn text(name: &str) -> String {
    let end = (0..=name.len().min(MALFORMED_TEXT_BYTES_MAX)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name[..end].to_owned()
}

/// The latest of one core.
#[derive(Debug, Default)]
pub struct Malformed {
    latest: Mutex<Shelf>,
    total: AtomicU64,
}

/// By kind, the oldest first.
#[derive(Debug, Default)]
struct Shelf {
    /// At [`place`]; empty until the first one comes.
    kinds: Vec<VecDeque<Arc<Message>>>,
    /// Bytes of all.
    bytes: usize,
}

/// Kinds of messages.
const KINDS: usize = 2 * Fault::ALL.len();

const _: () = {
    assert!(MALFORMED_BYTES_MAX >= 4 * HEAD_BYTES_MAX);
    // What docs/OPERATIONS.md says of one message beside its bytes: two names, the numbers, the counts of its Arc.
    assert!(2 * MALFORMED_TEXT_BYTES_MAX + size_of::<Message>() + 2 * size_of::<usize>() <= 400);
};

fn place(side: Side, fault: Fault) -> usize {
    2 * fault as usize + usize::from(side == Side::Backend)
}

impl Malformed {
    /// Takes one in. Called by the core alone; where a reader is at it just then, it is only counted. `message` is given
    /// its number.
    pub fn add(&self, message: impl FnOnce(u64) -> Message) {
        let number = self.total.load(Relaxed) + 1;
        self.total.store(number, Relaxed);
        let Ok(mut latest) = self.latest.try_lock() else { return };
        latest.add(message(number));
    }

    /// The latest of each kind, in no order.
    pub fn latest(&self) -> Vec<Arc<Message>> {
        // A poisoned lock holds whole messages all the same.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).kinds.iter().flatten().cloned().collect()
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

impl Shelf {
    fn add(&mut self, message: Message) {
        self.kinds.resize_with(KINDS, VecDeque::new);
        let kind = place(message.kept.side, message.kept.fault);
        if self.kinds[kind].len() == MALFORMED_PER_KIND {
            self.forget(kind);
        }
        self.bytes += message.kept.bytes.len();
        // The newest is not weighed, so that it stays.
        while self.bytes > MALFORMED_BYTES_MAX {
            let weight = |kind: &VecDeque<Arc<Message>>| {
                let bytes: usize = kind.iter().map(|one| one.kept.bytes.len()).sum();
                (bytes, Reverse(kind.front().map(|one| one.number)))
            };
            let Some(heaviest) = (0..KINDS).max_by_key(|kind| weight(&self.kinds[*kind])) else { break };
            self.forget(heaviest);
        }
        self.kinds[kind].push_back(Arc::new(message));
    }

    /// The oldest of a kind goes.
    fn forget(&mut self, kind: usize) {
        if let Some(oldest) = self.kinds[kind].pop_front() {
            self.bytes -= oldest.kept.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;
    use crate::http::framing::Framing;
    use crate::parse::tests::a_stream;
    use crate::parse::{self, Refusal};
    use proptest::prelude::*;

    const SIDES: [(Side, parse::Side); 2] = [
        (Side::Client, parse::Side::Client),
        (Side::Backend, parse::Side::Backend { method: Method::Get, upgrade: b"" }),
    ];

    fn message(number: u64, kept: Kept) -> Message {
        Message { number, unix: number, listener: String::new(), peer: String::new(), kept }
    }

    fn of(fault: Fault, bytes: usize) -> Kept {
        let bytes = vec![0; bytes].into();
        Kept { side: Side::Client, fault, at: 0, bytes, masked: 0, left_out: 0, partial: false }
    }

    /// What is kept of these bytes, and that it is refused just as they are.
    fn kept(side: Side, bytes: &[u8]) -> Kept {
        let parse_side = SIDES[usize::from(side == Side::Backend)].1;
        let refusal = parse::parse(bytes, parse_side).refusal().expect("malformed");
        let fault = *Fault::ALL.iter().find(|fault| fault.name() == refusal.reason).expect("a fault");
        let kept = Kept::of_head(side, bytes, fault, refusal.at);
        let again = parse::parse(&kept.bytes, parse_side).refusal();
        assert_eq!(again, Some(refusal), "{}", bytes.escape_ascii());
        kept
    }

    #[test]
    fn heads_are_kept_and_bodies_are_not() {
        let text = b"PUT / HTTP/1.1\r\nHost : a\r\nContent-Length: 6\r\n\r\nsecret";
        assert_eq!(&*kept(Side::Client, text).bytes, &text[..text.len() - 6]);
        let text = b"PUT / HTTP/1.1\nHost: a\nContent-Length: 6\n\nsecret";
        assert_eq!(&*kept(Side::Client, text).bytes, b"PUT / HTTP/1.1\n");
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nsecret";
        assert_eq!(&*kept(Side::Backend, text).bytes, &text[..text.len() - 6]);
        let hello = [&[0x16, 3, 1][..], &[7; 300]].concat();
        assert_eq!(kept(Side::Client, &hello).bytes.len(), MALFORMED_CONTEXT_BYTES);
        assert_eq!(&*kept(Side::Client, b"\rGET").bytes, b"\rGET");
        let long = [&b"GET / HTTP/1.1\r\nCookie: "[..], &vec![b'c'; HEAD_BYTES_MAX]].concat();
        let long = kept(Side::Client, &long);
        assert_eq!((long.bytes.len(), long.masked), (HEAD_BYTES_MAX, HEAD_BYTES_MAX - 24));
    }

    #[test]
    fn of_a_body_the_faulty_line_is_kept() {
        let head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut body = Body::new(Framing::Chunked);
        body.decode(&mut b"6\r\nsec".to_vec()).expect("good so far");
        let piece = b"ret\r\n5;a\0secret";
        let fault = body.decode(&mut piece.to_vec()).expect_err("a fault");
        let kept = Kept::of_body(Side::Client, Some(head), &body, fault, piece);
        assert_eq!(&*kept.bytes, [&head[..], b"5;a\0"].concat());
        assert_eq!((kept.at, kept.left_out, kept.partial), (head.len() + 3, 11, false));
        let refusal = parse::parse(&kept.bytes, parse::Side::Client).refusal().expect("malformed");
        assert_eq!((refusal.at, refusal.reason), (kept.at, kept.fault.name()));
        // The head has gone, and so has the beginning of the line.
        let mut body = Body::new(Framing::Chunked);
        body.decode(&mut b"5;a".to_vec()).expect("good so far");
        let fault = body.decode(&mut b"\n".to_vec()).expect_err("a fault");
        let kept = Kept::of_body(Side::Backend, None, &body, fault, b"\n");
        assert_eq!((&*kept.bytes, kept.at, kept.partial), (HEAD_GONE, HEAD_GONE.len(), true));
    }

    #[test]
    fn the_latest_of_each_kind_are_kept_and_all_are_counted() {
        let malformed = Malformed::default();
        malformed.add(|number| message(number, of(Fault::BareCr, 10)));
        for _ in 0..10_000 {
            malformed.add(|number| message(number, of(Fault::BareLf, 10)));
        }
        let mut numbers: Vec<u64> = malformed.latest().iter().map(|one| one.number).collect();
        numbers.sort_unstable();
        let flood = 10_002 - MALFORMED_PER_KIND as u64..=10_001;
        assert_eq!(numbers, std::iter::once(1).chain(flood).collect::<Vec<_>>());
        assert_eq!(malformed.total(), 10_001);
    }

    #[test]
    fn bytes_are_bounded_over_all_kinds() {
        let malformed = Malformed::default();
        malformed.add(|number| message(number, of(Fault::NotHttp, 100)));
        for round in 0..3 {
            for fault in Fault::ALL.iter().filter(|fault| **fault != Fault::NotHttp) {
                for side in [Side::Client, Side::Backend] {
                    let bytes = HEAD_BYTES_MAX - round;
                    malformed.add(|number| message(number, Kept { side, ..of(*fault, bytes) }));
                }
            }
        }
        let latest = malformed.latest();
        let bytes: usize = latest.iter().map(|one| one.kept.bytes.len()).sum();
        assert!(bytes <= MALFORMED_BYTES_MAX && bytes > MALFORMED_BYTES_MAX - HEAD_BYTES_MAX, "{bytes}");
        assert!(latest.iter().any(|one| one.number == 1), "small ones stay");
        assert_eq!(latest.iter().map(|one| one.number).max(), Some(malformed.total()));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_refused_as_what_was_sent(bytes in a_stream()) {
            for (side, parse_side) in SIDES {
                let parsed = parse::parse(&bytes, parse_side);
                let Some((refusal, last)) = parsed.refusal().zip(parsed.messages.last()) else { continue };
                let Some(fault) = Fault::ALL.iter().find(|fault| fault.name() == refusal.reason) else { continue };
                if last.head.is_some() || *fault == Fault::TooManyInterim {
                    continue;
                }
                let kept = Kept::of_head(side, &bytes[last.at..], *fault, refusal.at - last.at);
                let again = parse::parse(&kept.bytes, parse_side).refusal();
                prop_assert_eq!(again, Some(Refusal { at: kept.at, ..refusal }));
            }
        }
    }

    #[test]
    fn nobody_waits_for_a_reader() {
        let malformed = Malformed::default();
        let reading = malformed.latest.lock().expect("not poisoned");
        malformed.add(|_| unreachable!("not made in vain"));
        drop(reading);
        assert_eq!((malformed.total(), malformed.latest().len()), (1, 0));
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(text("main"), "main");
        let long = text(&"é".repeat(MALFORMED_TEXT_BYTES_MAX));
        assert!(long.len() <= MALFORMED_TEXT_BYTES_MAX && long.len() > MALFORMED_TEXT_BYTES_MAX - 2);
    }
}
