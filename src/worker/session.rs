//! One busy period of a client connection: head, exchange, head, exchange, until no byte is left or the connection ends.

use super::attempt::{self, Outcome};
use super::buffers::{Buf, Class};
use super::busy::Mailbox;
use super::clusters::{LocalBackend, LocalCluster, add};
use super::deadlines::{Aim, Dir, SlotGuard};
use super::log::{Logged, Watch};
use super::net::{How, Net, Stream};
use super::relay;
use super::search::{Found, Search};
use super::{ConnInfo, Core};
use crate::access_log::{Phase, RequestId};
use crate::config::HalfClose;
use crate::exchange::{Because, Reason, Trouble, answered_here};
use crate::http::body::Body;
use crate::http::forwarded;
use crate::http::head::{HeadScan, RequestHead, Scan};
use crate::http::reject::Reject;
use crate::http::reply::{self, Cause};
use crate::http::{Method, Version};
use crate::limits;
use std::cell::Cell;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::rc::Rc;

/// A client connection between two busy periods.
pub(super) struct Conn<C> {
    pub(super) stream: C,
    pub(super) info: Rc<ConnInfo>,
    /// Requests served so far.
    pub(super) served: u32,
}

/// How a busy period ends.
pub(super) enum Served<C> {
    /// The connection waits for its next request.
    Idle(Conn<C>),
    /// It is closed.
    Closed,
}

/// What an exchange leaves behind.
enum After {
    /// The next request may follow; the buffer holds what has come of it.
    Next(Buf),
    Close {
        linger: bool,
    },
    Reset,
}

/// How an exchange ends, as far as its connection is concerned.
pub(super) enum End {
    /// The next request may follow.
    Next(Rest),
    /// The connection ends. `linger`: request bytes may still be under way, which a plain close would answer with a reset
    /// that destroys the response.
    Close { linger: bool },
    /// The response was cut short: the end must not look like an end.
    Reset,
}

/// Where the bytes are that came behind a request.
pub(super) enum Rest {
    /// In the buffer of the request's head, behind this many bytes.
    Taken(usize),
    /// In the buffer that its body was read with.
    Other(Buf),
}

/// What an exchange is about: one request of one connection.
pub(super) struct Turn<'a, N: Net, C> {
    pub(super) core: &'a Rc<Core<N>>,
    pub(super) stream: &'a C,
    pub(super) info: &'a ConnInfo,
    pub(super) slot: &'a SlotGuard,
    pub(super) head: &'a RequestHead,
    /// Where its time goes.
    pub(super) watch: &'a Watch,
    /// Bytes of the request's body so far, without framing; in a tunnel those of the client.
    pub(super) received: Cell<u64>,
    rules: ClientRules,
}

/// The settings towards this client, as they were when its request came.
#[derive(Clone, Copy)]
struct ClientRules {
    body_timeout: u32,
    fin_is_gone: bool,
    generation: u64,
}

/// What the log line of an exchange tells.
pub(super) struct Tally<S> {
    pub(super) status: u16,
    /// Bytes sent to the client.
    pub(super) bytes: u64,
    /// Of those, bytes of interim responses.
    pub(super) interim_bytes: u64,
    pub(super) reason: Reason,
    pub(super) retries: u32,
    pub(super) client: Option<IpAddr>,
    /// The X-Request-Id of all its attempts, where none is kept; there once one was made.
    pub(super) request_id: Option<u128>,
    /// Whether the connection of the last attempt came from the pool.
    pub(super) reused: Option<bool>,
    pub(super) cluster: Option<Rc<LocalCluster<S>>>,
    pub(super) backend: Option<Rc<LocalBackend<S>>>,
}

/// How the wait for a head ended.
enum Asked {
    Head,
    /// The end, before any byte.
    Silent,
    /// The end, within a head.
    Truncated,
    Timeout,
    Rejected(Reject),
}

/// Serves one busy connection after the other, for ever.
pub(super) async fn serve_each<N: Net, C: Stream>(core: Rc<Core<N>>, mailbox: Rc<Mailbox<Conn<C>, Served<C>>>) {
    let mut head = RequestHead::default();
    loop {
        let conn = mailbox.next().await;
        mailbox.done(serve(&core, conn, &mut head).await);
    }
}

/// Serves requests until the connection is idle or closed.
async fn serve<N: Net, C: Stream>(core: &Rc<Core<N>>, mut conn: Conn<C>, head: &mut RequestHead) -> Served<C> {
    let (first, mut buf) = conn.stream.recv_now(core.buffers.take(Class::Small)).await;
    match first {
        Ok(n) if n > 0 => {}
        ended => {
            core.buffers.put(buf);
            let nothing_yet = ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            return if nothing_yet { Served::Idle(conn) } else { Served::Closed };
        }
    }
    let slot = core.slots.open(conn.stream.handle());
    let watch = Watch::default();
    loop {
        slot.begin();
        let (head_timeout, underscores) = {
            let view = core.view();
            (view.settings.client_head_timeout, view.settings.underscores)
        };
        slot.arm(Dir::Up, Aim::ClientRead, head_timeout);
        watch.begin(core);
        let mut scan = HeadScan::default();
        let (asked, waited);
        ((asked, waited), buf) = read_head(&conn.stream, &slot, &mut scan, head, underscores, buf).await;
        slot.disarm(Dir::Up);
        if matches!(asked, Asked::Silent) {
            core.buffers.put(buf);
            return Served::Closed;
        }
        let after = {
            let rules = core.client_rules();
            let (stream, info, received) = (&conn.stream, &*conn.info, Cell::new(0));
            let turn = Turn { core, stream, info, slot: &slot, head, watch: &watch, received, rules };
            // A head that came whole was not waited for.
            if waited {
                turn.enter(Phase::Connect)
            } else {
                turn.pass_to(Phase::Connect)
            }
            let mut tally = Tally::default();
            match asked {
                Asked::Head => exchange(&turn, buf, &mut tally).await,
                refused => turn.refuse(refused, buf, &mut tally).await,
            }
        };
        match after {
            After::Next(rest) => buf = rest,
            After::Close { linger } => {
                if linger {
                    turn_away(core, &conn.stream, &slot).await;
                }
                drop(slot);
                conn.stream.close();
                return Served::Closed;
            }
            After::Reset => {
                drop(slot);
                conn.stream.reset();
                return Served::Closed;
            }
        }
        conn.served += 1;
        if buf.is_empty() {
            core.buffers.put(buf);
            return Served::Idle(conn);
        }
    }
}

/// Receives until a head is complete and judged; and whether its first bytes were not all.
async fn read_head<C: Stream>(
    stream: &C,
    slot: &SlotGuard,
    scan: &mut HeadScan,
    head: &mut RequestHead,
    underscores: crate::http::head::Underscores,
    mut buf: Buf,
) -> ((Asked, bool), Buf) {
    let mut waited = false;
    loop {
        if !buf.is_empty() {
            match scan.request(buf.filled()) {
                Ok(Scan::Partial) => waited = true,
                Ok(Scan::Complete(bytes)) => {
                    let judged = head.parse(&buf.filled()[..bytes], underscores);
                    return ((judged.map_or_else(Asked::Rejected, |()| Asked::Head), waited), buf);
                }
                Err(reject) => return ((Asked::Rejected(reject), waited), buf),
            }
        }
        buf.compact();
        if waited {
            // Thousands of heads that trickle are received one by one, when it is their turn, and not by the ring all at once.
            // An error shows again in the receive.
            let _ = stream.more_readable().await;
        }
        let received;
        (received, buf) = stream.recv(buf).await;
        match received {
            Ok(n) if n > 0 => {}
            // RFC 9112 section 2.2: the CRLF that some send behind a body is no request, so nobody waits for an answer.
            _ if !scan.has_begun() => return ((Asked::Silent, waited), buf),
            _ if slot.fired(Dir::Up) => return ((Asked::Timeout, waited), buf),
            _ => return ((Asked::Truncated, waited), buf),
        }
    }
}

/// RFC 9112 section 9.6: ends the sending side, then reads and throws away what the client still sends, for a while.
async fn turn_away<N: Net, C: Stream>(core: &Core<N>, stream: &C, slot: &SlotGuard) {
    core.net.shutdown(stream.handle(), How::Write);
    slot.arm(Dir::Up, Aim::ClientRead, limits::LINGER_TICKS);
    let mut buf = core.buffers.take(Class::Small);
    let mut thrown_away = 0;
    while thrown_away < limits::LINGER_BYTES_MAX {
        buf.clear();
        let received;
        (received, buf) = stream.recv(buf).await;
        match received {
            Ok(n) if n > 0 => thrown_away += n,
            _ => break,
        }
    }
    core.buffers.put(buf);
}

/// One exchange, from a judged head to its log line.
async fn exchange<N: Net, C: Stream>(turn: &Turn<'_, N, C>, buf: Buf, tally: &mut Tally<N::Stream>) -> After {
    tally.client = turn.client(buf.filled());
    turn.slot.wait_for_backend(turn.rules.fin_is_gone);
    let (end, mut buf) = run(turn, buf, tally).await;
    turn.core.conclude(turn, Some(buf.filled()), tally);
    let rest = match end {
        End::Next(Rest::Taken(taken)) => {
            buf.consume(taken);
            return After::Next(buf);
        }
        End::Next(Rest::Other(rest)) => After::Next(rest),
        End::Close { linger } => After::Close { linger },
        End::Reset => After::Reset,
    };
    turn.core.buffers.put(buf);
    rest
}

/// Routes, then attempts until one attempt ends well or no other is allowed.
async fn run<N: Net, C: Stream>(turn: &Turn<'_, N, C>, buf: Buf, tally: &mut Tally<N::Stream>) -> (End, Buf) {
    let (core, head) = (turn.core, turn.head);
    let health = || turn.asks_for_health(buf.filled()).then(|| core.is_ready());
    if let Some((status, reason)) = answered_here(head, || turn.is_secured(), health) {
        return turn.answer(status, reason, buf, tally).await;
    }
    let mut search = Search::new(head.method);
    loop {
        let (cluster, pick, backend) = match search.look(turn, buf.filled(), tally) {
            Found::Backend(cluster, pick, backend) => (cluster, pick, backend),
            Found::Answer(status, reason) => return turn.answer(status, reason, buf, tally).await,
            Found::Wait(cluster, why) => match search.wait(turn, &cluster, why).await {
                Ok(()) => continue,
                Err(Some((status, reason))) => return turn.answer(status, reason, buf, tally).await,
                Err(None) => {
                    turn.client_is_gone(tally);
                    return (End::Close { linger: false }, buf);
                }
            },
        };
        let chosen = (&*backend, pick.fail_open);
        let answer = match attempt::attempt(turn, &cluster, chosen, &mut search.state, &buf, tally).await {
            Outcome::End(end) => {
                if pick.fail_open && tally.reason == Reason::Done {
                    tally.reason = Reason::FailOpen;
                }
                return (end, buf);
            }
            Outcome::Refuse { status, reason } => Some((status, reason)),
            Outcome::Failed { trouble, sent } => {
                if turn.client_is_gone(tally) {
                    turn.amend(Because::ClientGone);
                    return (End::Close { linger: false }, buf);
                }
                core.blame(&backend, trouble.blame(), sent);
                if matches!(trouble, Trouble::Closed { reused: true, .. }) {
                    backend.pool.reused(false);
                }
                search.failed(turn, &cluster, (pick.index, trouble), tally)
            }
        };
        // It is free for others while the client takes its answer.
        drop(backend);
        if let Some((status, reason)) = answer {
            return turn.answer(status, reason, buf, tally).await;
        }
        turn.slot.retry();
    }
}

impl<S> Default for Tally<S> {
    fn default() -> Self {
        Tally {
            status: 0,
            bytes: 0,
            interim_bytes: 0,
            reason: Reason::Done,
            retries: 0,
            client: None,
            request_id: None,
            reused: None,
            cluster: None,
            backend: None,
        }
    }
}

impl<S> Tally<S> {
    /// The status that the client was sent; 0 if nothing of a final response went out.
    pub(super) fn status_sent(&self) -> u16 {
        if self.bytes > self.interim_bytes { self.status } else { 0 }
    }
}

impl<N: Net, C: Stream> Turn<'_, N, C> {
    /// Of the table that was current when the request came.
    pub(super) fn generation(&self) -> u64 {
        self.rules.generation
    }

    /// The client's address, by the listener's trusted proxies.
    fn client(&self, head_bytes: &[u8]) -> Option<IpAddr> {
        let peer = self.info.peer.map(|peer| peer.ip());
        let view = self.core.view();
        let listener = view.settings.listener(self.info.listener);
        let Some(listener) = listener.filter(|l| !l.trusted_proxies.is_empty()) else { return peer };
        forwarded::client(self.head, head_bytes, peer, &|ip| listener.trusts(ip))
    }

    /// Whether an https resource may be served here (RFC 9110 section 7.4): the connection is secured, or its peer is a
    /// trusted proxy that may have secured its own.
    fn is_secured(&self) -> bool {
        let view = self.core.view();
        let listener = view.settings.listener(self.info.listener);
        self.info.tls || listener.zip(self.info.peer).is_some_and(|(listener, peer)| listener.trusts(peer.ip()))
    }

    /// Whether this is a health check, which is answered here whatever its Host says.
    fn asks_for_health(&self, head_bytes: &[u8]) -> bool {
        let view = self.core.view();
        let path = view.settings.listener(self.info.listener).and_then(|l| l.health_path.as_deref());
        path.is_some_and(|path| path.as_bytes() == self.head.path.of(head_bytes))
    }

    /// Whether the exchange has lost its client; books the reason.
    pub(super) fn client_is_gone(&self, tally: &mut Tally<N::Stream>) -> bool {
        let (gone, drained) = (self.slot.client_gone(), self.slot.drained());
        if gone || drained {
            tally.reason = if drained { Reason::Drained } else { Reason::ClientAbort };
        }
        gone || drained
    }

    /// Answers a request that never became an exchange.
    async fn refuse(&self, asked: Asked, buf: Buf, tally: &mut Tally<N::Stream>) -> After {
        let (status, reason) = match asked {
            Asked::Rejected(reject) => {
                self.keep_request(buf.filled(), reject.fault, reject.at);
                (reject.status, Reason::Rejected(reject.fault))
            }
            Asked::Timeout => (408, Reason::ClientTimeout),
            _ if self.slot.drained() => (503, Reason::Drained),
            _ => (400, Reason::ClientTruncated),
        };
        tally.client = self.info.peer.map(|peer| peer.ip());
        self.send_answer(status, reason, None, true, tally).await;
        self.core.conclude(self, None, tally);
        self.core.buffers.put(buf);
        After::Close { linger: true }
    }

    /// Answers by itself before anything was sent to the client. The connection lives on if the whole request is here.
    async fn answer(&self, status: u16, reason: Reason, mut buf: Buf, tally: &mut Tally<N::Stream>) -> (End, Buf) {
        let body = Body::whole(self.head.framing, &mut buf.filled_mut()[self.head.bytes..]);
        let taken = body.map(|bytes| self.head.bytes + bytes);
        let close = taken.is_none() || !self.head.persist || self.core.is_draining() || status == 413;
        let sent = self.send_answer(status, reason, Some(buf.filled()), close, tally).await;
        let end = match taken {
            Some(taken) if sent && !close => End::Next(Rest::Taken(taken)),
            _ => End::Close { linger: true },
        };
        (end, buf)
    }

    /// Sends an own answer; `false` if the client did not take it.
    pub(super) async fn send_answer(
        &self,
        status: u16,
        reason: Reason,
        head_bytes: Option<&[u8]>,
        close: bool,
        tally: &mut Tally<N::Stream>,
    ) -> bool {
        let core = self.core;
        self.enter(Phase::BodyClient);
        tally.status = status;
        tally.reason = reason;
        let known = head_bytes.is_some();
        let keep_alive = known && self.head.version == Version::Http10 && !close;
        let mut out = core.buffers.take(Class::Small);
        if let (Reason::Own, Some(bytes)) = (reason, head_bytes) {
            reply::final_recipient(self.head, bytes, &core.date.get(), close, keep_alive, out.vec());
        } else {
            let health = reason == Reason::Health;
            if !health {
                add(&core.stats.own_answers[usize::from(status >= 500)], 1);
            }
            tally.request_id.get_or_insert_with(|| core.new_request_id());
            let id = match self.request_id(head_bytes, tally) {
                made @ RequestId::Made(_) if !health => made.shown(),
                // What a trusted proxy has named is that proxy's to tell.
                _ => String::new(),
            };
            let view = core.view();
            let by = view.settings.via.as_deref().unwrap_or("proxy");
            let cause = Cause { by, error: reason.proxy_error(), code: reason.code(), request_id: &id };
            let page = if health && status == 200 {
                Some(("text/plain; charset=utf-8", &b"ok\n"[..]))
            } else {
                view.settings.pages.get(&status).map(|page| (page.content_type.as_str(), &page.body[..]))
            };
            let accept = head_bytes.and_then(|bytes| self.head.accept(bytes));
            reply::write(
                &reply::Reply {
                    status,
                    accept,
                    head_only: known && self.head.method == Method::Head,
                    close,
                    keep_alive,
                    retry_after: (status == 503).then_some(view.settings.retry_after),
                    date: &core.date.get(),
                    page,
                    detail: reason.detail(),
                    cause: (!health).then_some(cause),
                },
                out.vec(),
            );
        }
        self.send(out, tally).await
    }

    /// Sends to the client and counts; `false` if it did not take all.
    pub(super) async fn send(&self, out: Buf, tally: &mut Tally<N::Stream>) -> bool {
        let before = out.len();
        let policy = tally.cluster.as_ref().map(|cluster| cluster.shared.policy.client_body_timeout);
        let seconds = policy.unwrap_or(self.rules.body_timeout);
        let pace = relay::Pace { dir: Dir::Down, aim: Aim::ClientSend, seconds };
        let (result, out) = relay::send_all(self.stream, self.slot, pace, out).await;
        tally.bytes += (before - out.len()) as u64;
        self.core.buffers.put(out);
        result.is_ok()
    }
}

impl<N: Net> Core<N> {
    /// A number for an exchange that no trusted proxy has named.
    pub(super) fn new_request_id(&self) -> u128 {
        (u128::from(self.random()) << 64) | u128::from(self.random())
    }

    fn client_rules(&self) -> ClientRules {
        let view = self.view();
        let settings = &view.settings;
        ClientRules {
            body_timeout: settings.client_body_timeout,
            fin_is_gone: settings.client_half_close == HalfClose::Abort,
            generation: view.generation,
        }
    }

    /// The end of an exchange: counters, and its log line.
    fn conclude<C: Stream>(&self, turn: &Turn<'_, N, C>, head_bytes: Option<&[u8]>, tally: &Tally<N::Stream>) {
        add(&self.stats.exchanges, 1);
        let ends = tally.cluster.as_ref().map_or(&self.stats.ends, |cluster| cluster.shared.ends.core(self.index));
        ends.add(tally.reason.index(), tally.status);
        if tally.retries > 0 || !tally.reason.is_regular() {
            self.keep_failed(turn, head_bytes, tally);
        }
        if self.log(turn, head_bytes, tally) == Logged::SampledOut {
            add(&self.stats.log_sampled_out, 1);
        }
    }
}
