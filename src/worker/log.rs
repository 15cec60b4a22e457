//! What the access log gets to know of an exchange: the stopwatch that runs meanwhile, and the line at its end.

use super::Core;
use super::clusters::LocalCluster;
use super::net::{Net, Stream};
use super::session::{Tally, Turn};
use super::story::Attempts;
use crate::access_log::{More, NOTHING, Phase, Phases, Record, RequestId};
use crate::config::{LogField, LogTarget, Settings};
use crate::http::Version;
use crate::http::head::Known;
use crate::route::balance::Tried;
use crate::route::skip::{Skip, is_full, skips};
use std::cell::{Cell, RefCell};

/// The stopwatch of one connection's exchanges. It runs, and asks the clock, only if the log was on or all exchanges were kept
/// when this one began: else every call here is one look at a flag.
pub(super) struct Watch {
    wanted: Cell<Wanted>,
    phases: RefCell<Phases>,
    notes: RefCell<Option<Box<Notes>>>,
}

/// What there is to note of an exchange; by default nothing but what goes wrong.
#[derive(Clone, Copy, Default)]
struct Wanted {
    /// Where the time goes.
    times: bool,
    /// How a backend was looked for.
    picks: bool,
    /// What became of each attempt.
    attempts: bool,
}

/// What few exchanges have anything of.
#[derive(Default)]
struct Notes {
    picked: Option<Picked>,
    attempts: Option<Attempts>,
}

/// How a backend was looked for, in the words of the line.
struct Picked {
    rule: Option<String>,
    skipped: String,
    key: Option<String>,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { wanted: Cell::default(), phases: RefCell::new(Phases::new(0)), notes: RefCell::default() }
    }
}

impl Watch {
    /// An exchange begins, in the phase of its head; its end will want a line if the log is on.
    pub(super) fn begin<N: Net>(&self, core: &Core<N>) {
        let (logs, attempts) = {
            let view = core.view();
            (view.settings.log_target != LogTarget::Off, view.settings.recent > 0)
        };
        if logs || attempts {
            let picks = core.view().settings.log_lines.fields.tell_pick();
            self.wanted.set(Wanted { times: true, picks, attempts });
            *self.phases.borrow_mut() = Phases::new(core.net.now_us());
            *self.notes.borrow_mut() = None;
        } else {
            self.wanted.set(Wanted::default());
        }
    }

    /// Whether it runs.
    #[inline]
    fn runs(&self) -> bool {
        self.wanted.get().times
    }

    /// Whether every attempt is to be noted.
    #[inline]
    pub(super) fn wants_attempts(&self) -> bool {
        self.wanted.get().attempts
    }

    /// Where the time went until now, if it runs.
    pub(super) fn phases_at(&self, net: &impl Net) -> Option<Phases> {
        self.runs().then(|| {
            let mut phases = *self.phases.borrow();
            phases.end(net.now_us());
            phases
        })
    }

    /// Looks at what is noted of attempts, or notes it.
    pub(super) fn attempts(&self, look: impl FnOnce(&mut Option<Attempts>)) {
        look(&mut self.notes.borrow_mut().get_or_insert_default().attempts);
    }

    #[inline(never)]
    fn enter(&self, phase: Phase, net: &impl Net) {
        self.phases.borrow_mut().enter(phase, net.now_us());
    }
}

impl<N: Net, C: Stream> Turn<'_, N, C> {
    /// From here on the exchange waits for this; what it has waited for until now is charged to the phase it leaves.
    #[inline]
    pub(super) fn enter(&self, phase: Phase) {
        if self.watch.runs() {
            self.watch.enter(phase, &self.core.net);
        }
    }

    /// The same, where nothing was waited for since a phase was entered last: no clock call.
    #[inline]
    pub(super) fn pass_to(&self, phase: Phase) {
        if self.watch.runs() {
            self.watch.phases.borrow_mut().pass_to(phase);
        }
    }

    /// The attempt before has failed, and another begins.
    pub(super) fn enter_retry(&self) {
        if self.watch.runs() {
            self.watch.phases.borrow_mut().retry(self.core.net.now_us());
        }
    }
}

impl<N: Net, C: Stream> Turn<'_, N, C> {
    /// A backend was looked for, `picked` is who was found: noted if lines tell that.
    #[inline]
    pub(super) fn looked(
        &self,
        bytes: &[u8],
        cluster: &LocalCluster<N::Stream>,
        (tried, key, picked): (&Tried, Option<u64>, Option<usize>),
    ) {
        if self.watch.wanted.get().picks {
            self.note_pick(bytes, cluster, (tried, key, picked));
        }
    }

    #[inline(never)]
    fn note_pick(
        &self,
        bytes: &[u8],
        cluster: &LocalCluster<N::Stream>,
        (tried, key, picked): (&Tried, Option<u64>, Option<usize>),
    ) {
        let view = self.core.view();
        let shared = &cluster.shared;
        let candidates: Vec<usize> = cluster.balancer.borrow().candidates().map(|pick| pick.index).collect();
        let suspected = cluster.suspected(&view.states, &Tried::default());
        let avoided = |index| match () {
            () if tried.has(index) => Some(Skip::Tried),
            () => suspected.has(index).then_some(Skip::Suspected),
        };
        let mut skipped = String::new();
        for ((index, backend), skip) in
            shared.backends.iter().enumerate().zip(skips(shared, &view.states, &candidates, &avoided, &is_full))
        {
            if let Some(skip) = skip.filter(|_| picked != Some(index)) {
                let space = if skipped.is_empty() { "" } else { " " };
                skipped.extend([space, &backend.name, "=", skip.word()]);
            }
        }
        let route = view.table.find(self.head.host.of(bytes), self.head.path.of(bytes));
        let rule = route.map(|route| route.name.clone());
        let key = key.map(|key| format!("{key:016x}"));
        self.watch.notes.borrow_mut().get_or_insert_default().picked = Some(Picked { rule, skipped, key });
    }
}

impl<N: Net, C: Stream> Turn<'_, N, C> {
    /// X-Request-Id as the backend gets it: that of a trusted proxy, else one of our own, once it was made.
    pub(super) fn request_id<'b>(&self, head_bytes: Option<&'b [u8]>, tally: &Tally<N::Stream>) -> RequestId<'b> {
        let Some(made) = tally.request_id else { return RequestId::None };
        let view = self.core.view();
        let listener = view.settings.listener(self.info.listener);
        let trusted = listener.zip(self.info.peer).is_some_and(|(listener, peer)| listener.trusts(peer.ip()));
        let kept = head_bytes.filter(|_| trusted).and_then(|bytes| self.head.fields.value(Known::XRequestId, bytes));
        kept.map_or(RequestId::Made(made), RequestId::Kept)
    }
}

impl<N: Net> Core<N> {
    #[inline(never)]
    fn keep_recent<C: Stream>(
        &self,
        turn: &Turn<'_, N, C>,
        head_bytes: Option<&[u8]>,
        tally: &Tally<N::Stream>,
        most: u32,
    ) {
        // Those of which anything went wrong have been kept elsewhere.
        if tally.reason.is_regular() && tally.retries == 0 {
            self.stats.stories.add_recent(most as usize, || turn.story(head_bytes, tally));
        }
    }

    /// The line of an exchange that has ended, if it gets one. `head_bytes` are those of its head, if that was good.
    pub(super) fn log<C: Stream>(
        &self,
        turn: &Turn<'_, N, C>,
        head_bytes: Option<&[u8]>,
        tally: &Tally<N::Stream>,
    ) -> Logged {
        if !turn.watch.runs() {
            return Logged::Off;
        }
        let view = self.view();
        let settings = &view.settings;
        let lines = &settings.log_lines;
        if settings.recent > 0 {
            self.keep_recent(turn, head_bytes, tally, settings.recent);
        }
        if settings.log_target == LogTarget::Off {
            return Logged::Off;
        }
        let mut phases = turn.watch.phases.borrow_mut();
        let notes = turn.watch.notes.borrow();
        let looked = notes.as_ref().and_then(|notes| notes.picked.as_ref());
        let picked = tally.status >= 500 || !tally.reason.is_regular() || lines.sample.takes(self.random() as u32);
        if !picked && lines.slow_us.is_none() {
            return Logged::SampledOut;
        }
        phases.end(self.net.now_us());
        if !picked && lines.slow_us.is_some_and(|slow| phases.total() < slow) {
            return Logged::SampledOut;
        }
        let of = |span: crate::http::Span| head_bytes.map_or(&[][..], |bytes| span.of(bytes));
        let head = turn.head;
        let asked;
        let more = if lines.fields.is_usual() {
            &NOTHING
        } else {
            asked = more(turn, head_bytes, (tally, looked), settings);
            &asked
        };
        let record = Record {
            time: self.unix_seconds.get(),
            client: tally.client,
            method: of(head.method_span),
            host: of(head.authority),
            path: of(head.target),
            status: tally.status_sent(),
            bytes: tally.bytes,
            phases: &phases,
            cluster: tally.cluster.as_ref().map(|cluster| cluster.shared.name.as_str()),
            backend: tally.backend.as_ref().map(|backend| backend.name.as_str()),
            retries: tally.retries,
            generation: turn.generation(),
            reason: tally.reason.code(),
            more,
        };
        self.log.borrow_mut().add(&record, (settings.log_format, &lines.fields));
        Logged::Line
    }
}

/// What became of the log line of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// The log is off.
    Off,
    /// It was not picked.
    SampledOut,
    /// It is with the writer, or counted as dropped.
    Line,
}

/// The fields that few ask for; those that take looking up only if they are asked for.
fn more<'a, N: Net, C: Stream>(
    turn: &'a Turn<'_, N, C>,
    head_bytes: Option<&'a [u8]>,
    (tally, looked): (&'a Tally<N::Stream>, Option<&'a Picked>),
    settings: &'a Settings,
) -> More<'a> {
    let asks = |field| settings.log_lines.fields.has(field);
    let listener = settings.listener(turn.info.listener);
    let field = |name: &[u8]| {
        let bytes = head_bytes?;
        let found = turn.head.fields.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(name))?;
        Some(found.value.of(bytes))
    };
    More {
        version: match (head_bytes, turn.head.version) {
            (None, _) => "",
            (_, Version::Http10) => "HTTP/1.0",
            (_, Version::Http11) => "HTTP/1.1",
        },
        scheme: turn.info.scheme(),
        listener: listener.map(|listener| listener.name.as_str()),
        endpoint: tally.backend.as_ref().map(|backend| &backend.endpoint),
        reused: tally.reused,
        received: turn.received.get(),
        user_agent: if asks(LogField::UserAgent) { field(b"user-agent") } else { None },
        referer: if asks(LogField::Referer) { field(b"referer") } else { None },
        request_id: if asks(LogField::RequestId) { turn.request_id(head_bytes, tally) } else { RequestId::None },
        rule: looked.and_then(|looked| looked.rule.as_deref()),
        skipped: looked.map(|looked| looked.skipped.as_str()),
        key: looked.and_then(|looked| looked.key.as_deref()),
    }
}
