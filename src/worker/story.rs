//! What is kept of an exchange for `ringway ctl why`: what failed is noted as it fails, everything else at the end.

use super::Core;
use super::attempt::Down;
use super::clusters::{LocalBackend, Sent};
use super::net::{Handle, Net, Stream};
use super::session::{Tally, Turn};
use crate::access_log::Phase;
use crate::exchange::{Because, Trouble};
use crate::http::Span;
use crate::limits;
use crate::stories::{Attempt, Carried, Story, text};

/// The attempts of one exchange that are told.
pub(super) struct Attempts {
    /// The exchange's number: those of an earlier one are of no use.
    of: u128,
    list: Vec<Attempt>,
}

/// What is known of an attempt at its end.
pub(super) struct Ended<'a, S> {
    pub(super) backend: &'a LocalBackend<S>,
    /// Its connection, and whether that came from the pool; `None` if there never was one.
    pub(super) connection: Option<(Handle, bool)>,
    pub(super) sent: Sent,
    /// Of the first piece, what the kernel took; `None` if all.
    pub(super) handed: Option<usize>,
}

impl<N: Net, C: Stream> Turn<'_, N, C> {
    /// An attempt has failed.
    #[cold]
    pub(super) fn note_failed(
        &self,
        ended: Ended<'_, N::Stream>,
        (trouble, because): (Trouble, Because),
        tally: &Tally<N::Stream>,
    ) {
        if self.core.stats.stories.has_room(self.slot.now()) {
            self.note_attempt(ended, (trouble.text(), because.text()), tally);
        }
    }

    /// Whether an attempt that had an answer, or has begun one, is to be noted: all exchanges are kept, or earlier attempts
    /// were noted.
    #[inline]
    pub(super) fn wants_answer(&self, tally: &Tally<N::Stream>) -> bool {
        self.watch.wants_attempts() || tally.retries > 0
    }

    /// Notes it.
    #[cold]
    pub(super) fn note_answer(&self, ended: Ended<'_, N::Stream>, down: &Down, tally: &Tally<N::Stream>) {
        let outcome = match down {
            Down::Done { .. } => "answered",
            Down::Upgraded => "answered, a tunnel followed",
            Down::Cut => "begun to be answered, and cut",
            Down::Failed(_) | Down::Refused { .. } | Down::Answered => return,
        };
        self.note_attempt(ended, (outcome, ""), tally);
    }

    fn note_attempt(
        &self,
        ended: Ended<'_, N::Stream>,
        (outcome, then): (&'static str, &'static str),
        tally: &Tally<N::Stream>,
    ) {
        let Ended { backend, connection, sent, handed } = ended;
        let net = &self.core.net;
        let carried = connection.and_then(|(handle, _)| net.carried(handle));
        let attempt = Attempt {
            backend: backend.name.clone(),
            endpoint: backend.endpoint.to_string(),
            reused: connection.map(|(_, reused)| reused),
            took_us: net.now_us().saturating_sub(sent.us),
            handed: handed.map(|bytes| bytes as u64),
            carried: carried.map(|[received, acknowledged]| Carried { acknowledged, received }),
            outcome,
            then,
        };
        let of = tally.request_id.unwrap_or_default();
        self.watch.attempts(|attempts| match attempts {
            Some(attempts) if attempts.of == of && attempts.list.len() < limits::STORY_ATTEMPTS_MAX => {
                attempts.list.push(attempt);
            }
            Some(attempts) if attempts.of == of => {}
            other => *other = Some(Attempts { of, list: vec![attempt] }),
        });
    }

    /// It went another way than the retry rule alone would have it.
    #[cold]
    pub(super) fn amend(&self, because: Because) {
        self.watch.attempts(|attempts| {
            if let Some(last) = attempts.as_mut().and_then(|attempts| attempts.list.last_mut()) {
                last.then = because.text();
            }
        });
    }

    /// The story of an exchange at its end. `head_bytes` are those of its head, if that was good.
    pub(super) fn story(&self, head_bytes: Option<&[u8]>, tally: &Tally<N::Stream>) -> Story {
        let of = |span: Span| head_bytes.map_or_else(String::new, |bytes| text(span.of(bytes)));
        let (head, watch) = (self.head, self.watch);
        let mut attempts = Vec::new();
        watch.attempts(|noted| {
            if let Some(noted) = noted.take_if(|noted| Some(noted.of) == tally.request_id) {
                attempts = noted.list;
            }
        });
        Story {
            unix: self.core.unix_seconds.get(),
            request_id: self.request_id(head_bytes, tally).shown(),
            client: tally.client,
            method: of(head.method_span),
            host: of(head.authority),
            path: of(head.target),
            status: tally.status_sent(),
            bytes: tally.bytes,
            received: self.received.get(),
            reason: tally.reason.code(),
            detail: tally.reason.detail(),
            regular: tally.reason.is_regular(),
            cluster: tally.cluster.as_ref().map(|cluster| cluster.shared.name.clone()),
            backend: tally.backend.as_ref().map(|backend| backend.name.clone()),
            generation: self.generation(),
            phases: watch.phases_at(&self.core.net).map_or_else(Vec::new, |phases| {
                let named = Phase::ALL.iter().map(|phase| (phase.name(), phases.of(*phase)));
                named.filter(|(_, us)| *us > 0).collect()
            }),
            attempts,
        }
    }
}

impl<N: Net> Core<N> {
    /// Keeps the story of an exchange that has ended.
    #[cold]
    pub(super) fn keep_failed<C: Stream>(
        &self,
        turn: &Turn<'_, N, C>,
        head_bytes: Option<&[u8]>,
        tally: &Tally<N::Stream>,
    ) {
        let regular = tally.reason.is_regular();
        self.stats.stories.add_failed(turn.slot.now(), regular, || turn.story(head_bytes, tally));
    }
}
