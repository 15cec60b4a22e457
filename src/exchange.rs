//! One request and its response, as far as a decision has to be made: what a failed attempt leads to.
//!
//! An exchange makes one or more attempts, each with one backend connection. An attempt ends well, or in a [`Trouble`].
//! [`Exchange::failed`] is asked with the trouble and says what is [`Next`]:
//!
//! * Nothing was handed to the kernel (connect failed, the send failed at its first byte): any method goes elsewhere.
//! * The request was handed over, no response byte came, and the connection ended: sent again only if the method is
//!   idempotent (RFC 9110 section 9.2.2) and the whole request can be replayed from memory.
//! * A response byte came (an interim response counts), or time ran out: never sent again.
//!
//! A connection from the pool that ends without a byte says nothing about its backend: it idled too long. The backend may
//! be tried again at once, with a fresh connection.

pub mod budget;
pub mod reason;

pub use reason::{CODES, Reason};

use crate::http::Method;
use crate::http::framing::Framing;
use crate::http::head::RequestHead;
use crate::http::reject::{Failure, Fault};

/// What Ringway answers by itself to a request with a good head, whatever the route. `secured`: an https resource may be
/// served here. `health`: whether health checks are asked for at this path, and whether the process wants traffic.
#[inline]
pub fn answered_here(
    head: &RequestHead,
    secured: impl FnOnce() -> bool,
    health: impl FnOnce() -> Option<bool>,
) -> Option<(u16, Reason)> {
    if head.max_forwards == Some(0) {
        return Some((200, Reason::Own));
    }
    if head.https && !secured() {
        return Some((421, Reason::Rejected(Fault::InsecureHttps)));
    }
    health().map(|ready| (if ready { 200 } else { 503 }, Reason::Health))
}

/// Whether a body is known to be too large before any of it has come.
#[inline]
pub fn is_too_large(framing: Framing, body_max: u64) -> bool {
    matches!(framing, Framing::Length(n) if n > body_max)
}

/// How an attempt failed before a final response head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No connection: refused, unreachable, no descriptor.
    Connect,
    /// No connection, for want of descriptors, ports or memory on this side, or because the backend's queue is full.
    Busy,
    /// No connection in time.
    ConnectTimeout,
    /// The connection ended before any response byte.
    Closed {
        /// It came from the pool.
        reused: bool,
        /// At least one byte of the request was handed to the kernel.
        handed: bool,
    },
    /// The connection ended within a response head, or after an interim response.
    ClosedInHead,
    /// No final response head in time.
    HeadTimeout,
    /// The head is malformed.
    BadHead(Failure),
}

impl Trouble {
    /// What the failure says about the backend's health.
    pub fn blame(self) -> Blame {
        match self {
            Trouble::Connect | Trouble::ConnectTimeout => Blame::Connect,
            // Whoever sends a malformed head is alive; one bad URL must not take a backend down.
            Trouble::Busy | Trouble::Closed { reused: true, .. } | Trouble::BadHead(_) => Blame::None,
            Trouble::Closed { reused: false, .. } | Trouble::ClosedInHead => Blame::Reset,
            Trouble::HeadTimeout => Blame::Timeout,
        }
    }

    /// Status and reason of the answer if nothing else can be tried.
    pub fn answer(self) -> (u16, Reason) {
        let status = match self {
            Trouble::ConnectTimeout | Trouble::HeadTimeout => 504,
            Trouble::Busy => 503,
            _ => 502,
        };
        (status, self.reason())
    }

    /// How the attempt ended, in words.
    pub fn text(self) -> &'static str {
        match self {
            Trouble::Connect => "no connection",
            Trouble::Busy => {
                "no connection, for want of descriptors, ports or memory here or of room in the backend's queue"
            }
            Trouble::ConnectTimeout => "no connection in time",
            Trouble::Closed { reused: true, handed: false } => {
                "the pooled connection had ended, nothing was handed over"
            }
            Trouble::Closed { reused: true, handed: true } => "the pooled connection ended without a byte",
            Trouble::Closed { reused: false, handed: false } => "the connection ended, nothing was handed over",
            Trouble::Closed { reused: false, handed: true } => "the connection ended without a byte",
            Trouble::ClosedInHead => "the connection ended within the response head",
            Trouble::HeadTimeout => "no response head in time",
            Trouble::BadHead(failure) => failure.fault.describe(),
        }
    }

    fn reason(self) -> Reason {
        match self {
            Trouble::Connect => Reason::ConnectFailed,
            Trouble::Busy => Reason::Busy,
            Trouble::ConnectTimeout => Reason::ConnectTimeout,
            Trouble::Closed { .. } | Trouble::ClosedInHead => Reason::BackendClosed,
            Trouble::HeadTimeout => Reason::BackendTimeout,
            Trouble::BadHead(failure) => Reason::BadResponse(failure.fault),
        }
    }
}

/// Which of a backend's counters a failure goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// None: a pooled connection had idled too long, or the failure was not the backend's.
    None,
    /// Connect errors.
    Connect,
    /// Resets and closes before a head.
    Reset,
    /// Response timeouts.
    Timeout,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again.
    Retry {
        /// The failed backend is not to be picked again in this exchange.
        avoid: bool,
    },
    /// Give up and answer.
    Answer {
        /// 502 or 504.
        status: u16,
        /// Why.
        reason: Reason,
    },
}

/// Why a failed attempt is or is not followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// Sent again: nothing was handed over.
    Unsent,
    /// Sent again: doing it twice does no harm, and it can be sent again.
    Idempotent,
    /// Not sent again: the method is not idempotent.
    NotIdempotent,
    /// Not sent again: bytes that were sent are gone.
    NotInMemory,
    /// Not sent again: a part of an answer came.
    Responded,
    /// Not sent again: its time ran out, and the backend may be at work on it.
    TimedOut,
    /// Not sent again: it was often enough.
    Spent,
    /// Not sent again: the cluster affords no more.
    Budget,
    /// To be sent again, and nobody was left.
    NobodyLeft,
    /// To be sent again, and nobody waited for it any more.
    ClientGone,
}

impl Because {
    /// One sentence.
    pub fn text(self) -> &'static str {
        match self {
            Because::Unsent => "sent again: nothing of it was handed over",
            Because::Idempotent => "sent again: the method is idempotent and the whole request was in memory",
            Because::NotIdempotent => "not sent again: it was handed over, and the method is not idempotent",
            Because::NotInMemory => "not sent again: not all of the request was in memory any more",
            Because::Responded => "not sent again: a part of an answer had come",
            Because::TimedOut => "not sent again: its time had run out while the backend may be at work on it",
            Because::Spent => "not sent again: the cluster's number of retries was made",
            Because::Budget => "not sent again: the cluster's retry budget was spent",
            Because::ClientGone => "not sent again: the client had gone, or the process was about to end",
            Because::NobodyLeft => "not sent again: no other backend was left",
        }
    }
}

/// The retry rule's memory for one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    idempotent: bool,
    retries_left: u32,
    /// Attempts after the first so far.
    pub retries: u32,
    /// A pooled connection failed: only fresh ones from here on.
    pub fresh_only: bool,
}

impl Exchange {
    /// Begins. `retries` is the cluster's limit of attempts after the first.
    pub fn new(method: Method, retries: u32) -> Exchange {
        Exchange { idempotent: method.is_idempotent(), retries_left: retries, retries: 0, fresh_only: false }
    }

    /// What is to be said of a failed attempt: the rule of [`Exchange::failed`].
    pub fn because(&self, trouble: Trouble, replayable: bool) -> Because {
        let because = match trouble {
            Trouble::Connect | Trouble::Busy | Trouble::ConnectTimeout | Trouble::Closed { handed: false, .. } => {
                if replayable {
                    Because::Unsent
                } else {
                    Because::NotInMemory
                }
            }
            Trouble::Closed { handed: true, .. } => match (self.idempotent, replayable) {
                (false, _) => Because::NotIdempotent,
                (true, false) => Because::NotInMemory,
                (true, true) => Because::Idempotent,
            },
            Trouble::ClosedInHead | Trouble::BadHead(_) => Because::Responded,
            Trouble::HeadTimeout => Because::TimedOut,
        };
        let repeats = matches!(because, Because::Unsent | Because::Idempotent);
        if repeats && self.retries_left == 0 { Because::Spent } else { because }
    }

    /// Decides after a failed attempt. `replayable`: every byte of the request that was sent is still in memory.
    pub fn failed(&mut self, trouble: Trouble, replayable: bool) -> Next {
        if matches!(self.because(trouble, replayable), Because::Unsent | Because::Idempotent) {
            self.retries_left -= 1;
            self.retries += 1;
            let stale = matches!(trouble, Trouble::Closed { reused: true, .. });
            self.fresh_only |= stale;
            return Next::Retry { avoid: !stale };
        }
        let (status, reason) = trouble.answer();
        Next::Answer { status, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(method: Method, trouble: Trouble, replayable: bool) -> Next {
        Exchange::new(method, 3).failed(trouble, replayable)
    }

    #[test]
    fn a_post_is_never_sent_twice() {
        let handed = Trouble::Closed { reused: true, handed: true };
        assert!(matches!(next(Method::Post, handed, true), Next::Answer { status: 502, .. }));
        let unsent = Trouble::Closed { reused: true, handed: false };
        assert_eq!(next(Method::Post, unsent, true), Next::Retry { avoid: false });
        assert_eq!(next(Method::Post, Trouble::Connect, true), Next::Retry { avoid: true });
    }

    #[test]
    fn a_get_is_sent_again_only_before_the_first_response_byte() {
        assert_eq!(
            next(Method::Get, Trouble::Closed { reused: false, handed: true }, true),
            Next::Retry { avoid: true }
        );
        assert!(matches!(next(Method::Get, Trouble::ClosedInHead, true), Next::Answer { status: 502, .. }));
        assert!(matches!(next(Method::Get, Trouble::HeadTimeout, true), Next::Answer { status: 504, .. }));
    }

    #[test]
    fn why_it_is_or_is_not_sent_again() {
        let handed = |reused| Trouble::Closed { reused, handed: true };
        for (method, trouble, replayable, because) in [
            (Method::Get, Trouble::Connect, true, Because::Unsent),
            (Method::Post, Trouble::Closed { reused: true, handed: false }, true, Because::Unsent),
            (Method::Post, Trouble::Connect, false, Because::NotInMemory),
            (Method::Get, handed(true), true, Because::Idempotent),
            (Method::Put, handed(true), false, Because::NotInMemory),
            (Method::Post, handed(false), true, Because::NotIdempotent),
            (Method::Get, Trouble::ClosedInHead, true, Because::Responded),
            (Method::Get, Trouble::HeadTimeout, true, Because::TimedOut),
        ] {
            let exchange = Exchange::new(method, 1);
            assert_eq!(exchange.because(trouble, replayable), because, "{method:?} {trouble:?}");
            let spent = Exchange::new(method, 0).because(trouble, replayable);
            let again = matches!(because, Because::Unsent | Because::Idempotent);
            assert_eq!(spent, if again { Because::Spent } else { because });
            assert_eq!(matches!(next(method, trouble, replayable), Next::Retry { .. }), again);
        }
    }

    #[test]
    fn what_cannot_be_replayed_is_answered() {
        for trouble in [Trouble::Connect, Trouble::Closed { reused: true, handed: true }] {
            assert!(matches!(next(Method::Put, trouble, false), Next::Answer { status: 502, .. }));
        }
    }

    #[test]
    fn retries_are_counted_and_end() {
        let mut exchange = Exchange::new(Method::Get, 2);
        assert_eq!(exchange.failed(Trouble::Connect, true), Next::Retry { avoid: true });
        let stale = Trouble::Closed { reused: true, handed: true };
        assert_eq!(exchange.failed(stale, true), Next::Retry { avoid: false });
        assert!(exchange.fresh_only);
        assert_eq!(exchange.retries, 2);
        let end = exchange.failed(Trouble::ConnectTimeout, true);
        assert_eq!(end, Next::Answer { status: 504, reason: Reason::ConnectTimeout });
    }
}
