//! One attempt of an exchange: one backend, one connection to it, the request out, the response back.

use super::Core;
use super::buffers::{Buf, Class};
use super::clusters::{LocalBackend, LocalCluster, Sent, add};
use super::deadlines::{Aim, Dir, SlotGuard};
use super::net::{How, Net, Stream, is_local};
use super::relay::{self, Delivered, First, Pace, Uploaded};
use super::session::{End, Rest, Tally, Turn};
use super::story::Ended;
use crate::access_log::Phase;
use crate::exchange::{Exchange, Next, Reason, Trouble};
use crate::http::body::{Body, CHUNK_PREFIX_MAX, Encoding, chunk_prefix};
use crate::http::framing::Framing;
use crate::http::head::{HeadScan, ResponseHead, Scan};
use crate::http::reject::Failure;
use crate::http::rewrite::{self, RequestRewrite, ResponseRewrite};
use crate::http::{Version, persist};
use crate::limits;
use crate::malformed::{Kept, Side};
use crate::route::health_policy::HealthPolicy;
use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

/// How an attempt ended.
pub(super) enum Outcome {
    /// The exchange is over.
    End(End),
    /// The request is at fault: nothing was sent anywhere.
    Refuse { status: u16, reason: Reason },
    /// The backend failed, and nothing final was sent to the client: another attempt may follow.
    Failed { trouble: Trouble, sent: Sent },
}

/// What the two pumps of an attempt tell each other.
pub(super) struct Flow<'a> {
    /// The request's head.
    pub(super) request: &'a [u8],
    /// The microsecond at which the attempt began.
    sent_us: u64,
    pub(super) body_max: u64,
    pub(super) body_timeout: u32,
    pub(super) client_timeout: u32,
    pub(super) client_rate_min: u64,
    head_timeout: u32,
    health: &'a HealthPolicy,
    pub(super) upload_encoding: Encoding,
    /// The whole request is with the backend.
    pub(super) uploaded: Cell<bool>,
    /// The final response head has come.
    head_seen: Cell<bool>,
    /// The upload has ended: the time to the response head counts.
    head_due: Cell<bool>,
    /// The client waits for a 100 before it sends its body: until then its silence is the backend's.
    expecting: Cell<bool>,
    /// An interim or own response is being sent: the watch of this direction is the client's.
    answering: Cell<bool>,
    /// The upload is sending to the backend.
    pub(super) sending: Cell<bool>,
    /// It has found the connection reset.
    pub(super) backend_reset: Cell<bool>,
    /// The backend took no more before even the request's first piece was out: see [`may_have_answered`].
    cut_off: bool,
    /// The response is out; the upload has to end.
    pub(super) stopping: Cell<bool>,
    /// The request turned out to be at fault: status and reason.
    pub(super) refusal: Cell<Option<(u16, Reason)>>,
}

impl Flow<'_> {
    /// From here on the time to the response head counts.
    pub(super) fn wait_for_head(&self, slot: &SlotGuard) {
        self.head_due.set(true);
        if !self.head_seen.get() && !self.answering.get() {
            slot.arm(Dir::Down, Aim::Backend, self.head_timeout);
        }
    }

    /// What the upload waits for is what the exchange waits for, until the response comes.
    pub(super) fn upload_enters<N: Net, C: Stream>(&self, turn: &Turn<'_, N, C>, phase: Phase) {
        if !self.head_seen.get() && !self.answering.get() {
            turn.enter(phase);
        }
    }

    /// The upload waits for bytes of the client now.
    pub(super) fn wait_for_body<N: Net, C: Stream>(&self, turn: &Turn<'_, N, C>) {
        let slot = turn.slot;
        if self.expecting.get() {
            slot.arm(Dir::Up, Aim::Backend, self.head_timeout);
        } else {
            self.upload_enters(turn, Phase::BodyClient);
            slot.arm(Dir::Up, Aim::ClientRead, self.client_timeout);
            slot.reading(true, 0, self.client_rate_min);
        }
    }

    /// The upload has got this many bytes.
    pub(super) fn body_came(&self, slot: &SlotGuard, bytes: usize) {
        self.expecting.set(false);
        slot.reading(false, bytes, self.client_rate_min);
    }

    /// An interim response is out: the watch is the backend's again, and a client that waited for it may send.
    fn interim_sent<N: Net, C: Stream>(&self, turn: &Turn<'_, N, C>) {
        let slot = turn.slot;
        self.answering.set(false);
        if self.expecting.replace(false) && !self.uploaded.get() && !self.stopping.get() {
            self.wait_for_body(turn);
        }
        if self.head_due.get() {
            self.wait_for_head(slot);
        } else {
            slot.disarm(Dir::Down);
        }
    }
}

/// A backend connection while an attempt holds it.
struct Lease<'a, N: Net> {
    stream: Option<N::Stream>,
    reused: bool,
    backend: &'a Rc<LocalBackend<N::Stream>>,
    slot: &'a SlotGuard,
}

impl<N: Net> Lease<'_, N> {
    /// Gives the stream up: the slot forgets it first, so that no deadline can hit its number's next owner.
    fn take(&mut self) -> Option<N::Stream> {
        self.slot.backend(None);
        self.stream.take()
    }
}

impl<'a, N: Net> Lease<'a, N> {
    /// What is known of the attempt when it ends here.
    fn ended(&self, sent: Sent, handed: Option<usize>) -> Ended<'a, N::Stream> {
        let connection = self.stream.as_ref().map(|stream| (stream.handle(), self.reused));
        Ended { backend: self.backend, connection, sent, handed }
    }
}

impl<N: Net> Drop for Lease<'_, N> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// How the response's side of an attempt ended.
pub(super) enum Down {
    /// Before the final head.
    Failed(Trouble),
    /// The upload found the request at fault, before the final head.
    Refused { status: u16, reason: Reason },
    /// An own answer was sent instead.
    Answered,
    /// The response is delivered. `pool`: its connection may be used again, for as long as the backend said.
    Done { persist: bool, pool: Option<Option<u32>> },
    /// It was cut within its body, or the client is gone.
    Cut,
    /// 101 was sent: a tunnel follows.
    Upgraded,
}

/// Makes one attempt. `fail_open`: the backend is not up.
pub(super) async fn attempt<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    cluster: &LocalCluster<N::Stream>,
    (backend, fail_open): (&Rc<LocalBackend<N::Stream>>, bool),
    state: &mut Exchange,
    buf: &Buf,
    tally: &mut Tally<N::Stream>,
) -> Outcome {
    let (core, slot, policy) = (turn.core, turn.slot, &cluster.shared.policy);
    let mut body = Body::behind(buf.filled(), &turn.head.fields, turn.head.framing);
    tally.reused = None;
    // All attempts carry the same one.
    tally.request_id.get_or_insert_with(|| core.new_request_id());
    let mut out = core.buffers.take(Class::Small);
    let taken = match compose(turn, buf, &mut body, policy.body_max, tally, &mut out) {
        Ok(taken) => taken,
        Err((status, reason)) => {
            core.buffers.put(out);
            return Outcome::Refuse { status, reason };
        }
    };
    // From here on the exchange is the backend's: one that was picked and never asked is neither named nor counted.
    tally.backend = Some(backend.clone());
    let sent = backend.sent(fail_open, slot.now(), core.stats.epoch.load(Relaxed), core.net.now_us());
    let mut lease = Lease { stream: None, reused: false, backend, slot };
    if let Err(trouble) = connect(turn, policy.connect_timeout, (state.fresh_only, body.is_done()), &mut lease).await {
        core.buffers.put(out);
        turn.note_failed(lease.ended(sent, Some(0)), (trouble, state.because(trouble, true)), tally);
        return Outcome::Failed { trouble, sent };
    }
    let Some(stream) = &lease.stream else { return Outcome::Failed { trouble: Trouble::Connect, sent } };
    let reused = lease.reused;
    tally.reused = Some(reused);
    turn.received.set(body.payload_bytes());

    let before = out.len();
    let pace = Pace { dir: Dir::Up, aim: Aim::Backend, seconds: policy.body_timeout };
    let (result, out) = relay::send_all(stream, slot, pace, out).await;
    let handed_bytes = before - out.len();
    let handed = handed_bytes > 0;
    core.buffers.put(out);
    slot.disarm(Dir::Up);
    let unsent = result.err().map(|error| error.kind());
    if let Some(kind) = unsent
        && (slot.backend_ended() || !may_have_answered(kind, reused, handed))
    {
        let trouble = if slot.fired(Dir::Up) { Trouble::HeadTimeout } else { Trouble::Closed { reused, handed } };
        turn.note_failed(lease.ended(sent, Some(handed_bytes)), (trouble, state.because(trouble, true)), tally);
        return Outcome::Failed { trouble, sent };
    }

    let flow = Flow {
        request: &buf.filled()[..turn.head.bytes],
        sent_us: sent.us,
        body_max: policy.body_max,
        body_timeout: policy.body_timeout,
        client_timeout: policy.client_body_timeout,
        client_rate_min: policy.client_rate_min,
        head_timeout: policy.head_timeout,
        health: &policy.health,
        upload_encoding: encoding(turn.head.framing),
        uploaded: Cell::new(body.is_done() && unsent.is_none()),
        head_seen: Cell::new(false),
        head_due: Cell::new(false),
        answering: Cell::new(false),
        expecting: Cell::new(turn.head.expect_continue && buf.len() == turn.head.bytes && unsent.is_none()),
        sending: Cell::new(false),
        // Behind a FIN a reset says broken pipe.
        backend_reset: Cell::new(unsent == Some(ErrorKind::ConnectionReset)),
        cut_off: unsent.is_some(),
        stopping: Cell::new(false),
        refusal: Cell::new(None),
    };
    let (rest, down) = if body.is_done() || flow.cut_off {
        flow.wait_for_head(slot);
        let down = download(turn, stream, reused, backend, &flow, tally).await;
        if let Down::Failed(trouble) = down {
            // What was not handed over may go elsewhere, whatever came of an answer.
            let trouble = if handed { trouble } else { Trouble::Closed { reused, handed } };
            let handed = unsent.map(|_| handed_bytes);
            turn.note_failed(lease.ended(sent, handed), (trouble, state.because(trouble, true)), tally);
            return Outcome::Failed { trouble, sent };
        }
        (Rest::Taken(taken), down)
    } else {
        let up = relay::upload(turn, stream, &flow, body, &buf.filled()[taken..]);
        let down = async {
            let down = download(turn, stream, reused, backend, &flow, tally).await;
            conclude(turn, down, &flow, (state, lease.ended(sent, None)), tally).await
        };
        let stop = |down: &Down| stop_upload(turn, stream, &flow, down);
        let (up, down) = relay::both(up, down, stop).await;
        match up {
            Uploaded::Done(behind) => (Rest::Other(behind), down),
            Uploaded::DoneInHead { behind } => (Rest::Taken(buf.len() - behind), down),
            // What the upload has thrown away need not be waited for again.
            Uploaded::Stopped { drained } => {
                if flow.refusal.get().is_some()
                    && let Some(stream) = lease.take()
                {
                    stream.reset();
                }
                let end = if matches!(down, Down::Cut) { End::Reset } else { End::Close { linger: !drained } };
                return Outcome::End(end);
            }
        }
    };
    if turn.wants_answer(tally) {
        turn.note_answer(lease.ended(sent, None), &down, tally);
    }
    Outcome::End(match down {
        Down::Done { persist, pool } => {
            if let Some(said) = pool
                && !backend.is_gone()
                && !core.is_draining()
                && let Some(stream) = lease.take()
            {
                core.check_in(backend, stream, policy, said);
            }
            if persist {
                return Outcome::End(End::Next(rest));
            }
            let more = rest.put_back(core) || buf.len() > taken || flow.cut_off;
            // Who has said that nothing follows is not waited for; but what stands there against his word would make of the
            // close a reset.
            End::Close { linger: more || turn.head.persist || !core.net.quiet(turn.stream.handle()) }
        }
        Down::Upgraded => {
            slot.backend_answered();
            slot.tunnel();
            turn.enter(Phase::Tunnel);
            tally.bytes += relay::tunnel(turn, stream, policy.tunnel_timeout, &buf.filled()[taken..]).await;
            let idle = slot.fired(Dir::Up) || slot.fired(Dir::Down);
            tally.reason = if idle { Reason::TunnelIdle } else { Reason::Tunnel };
            turn.client_is_gone(tally);
            End::Close { linger: false }
        }
        Down::Cut => {
            rest.put_back(core);
            End::Reset
        }
        Down::Failed(_) | Down::Refused { .. } | Down::Answered => {
            rest.put_back(core);
            End::Close { linger: true }
        }
    })
}

impl Rest {
    /// Of no use any more; whether bytes had come behind the request (those in the head's own buffer are not looked at).
    fn put_back<N: Net>(self, core: &Core<N>) -> bool {
        match self {
            Rest::Taken(_) => false,
            Rest::Other(behind) => {
                let more = !behind.is_empty();
                core.buffers.put(behind);
                more
            }
        }
    }
}

/// Whether an answer is looked for on a connection that took no more, or nothing, of a request's first piece: whoever
/// refuses (413, 503) may answer and close before it has read anything, and its reset overtakes the request (RFC 9112
/// section 9.6). What it sent before is still there to be received. It counts only if it stands there whole, and goes out
/// as the answer to this request only where it cannot be one to nothing: nobody else ever used the connection, or some of
/// the request was taken since the pool has seen it quiet. What came on a used one before that is the notice of its end.
#[cold]
fn may_have_answered(kind: ErrorKind, reused: bool, handed: bool) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) && (!reused || handed)
}

/// Whether the answer that `bytes` begin with is all there: on a connection that has ended no more will come.
#[cold]
fn stands_whole(head: &ResponseHead, bytes: &[u8], flow: &Flow<'_>) -> bool {
    let whole = match head.framing {
        Framing::UntilClose => !flow.backend_reset.get(),
        framing => Body::whole(framing, &mut bytes[head.bytes..].to_vec()).is_some(),
    };
    // Nobody switches protocols for a request that did not come.
    whole && head.status != 101
}

fn encoding(framing: Framing) -> Encoding {
    if framing == Framing::Chunked { Encoding::Chunked } else { Encoding::Plain }
}

/// Writes the request's head and as much of its body as is here into `out`. Returns how many bytes of `buf` that covers.
fn compose<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    buf: &Buf,
    body: &mut Body,
    body_max: u64,
    tally: &Tally<N::Stream>,
    out: &mut Buf,
) -> Result<usize, (u16, Reason)> {
    let (core, head, info) = (turn.core, turn.head, turn.info);
    {
        let view = core.view();
        let listener = view.settings.listener(info.listener);
        let peer = info.peer.map(|peer| peer.ip());
        let how = RequestRewrite {
            peer,
            trusted: listener.zip(peer).is_some_and(|(listener, peer)| listener.trusts(peer)),
            client: tally.client,
            scheme: info.scheme(),
            port: info.local.map_or(0, |local| local.port()),
            request_id: tally.request_id.unwrap_or_default(),
            via: view.settings.via.as_deref(),
            underscores: view.settings.underscores,
        };
        rewrite::request(head, buf.filled(), &how, out.vec());
    }
    let here = &buf.filled()[head.bytes..];
    if body.is_done() || here.is_empty() {
        return Ok(head.bytes);
    }
    // The body's bytes are put behind the head, decoded and framed in place; in between is room for a chunk-size line.
    let chunked = encoding(head.framing) == Encoding::Chunked;
    let head_len = out.len();
    let gap = if chunked { CHUNK_PREFIX_MAX } else { 0 };
    let room = out.spare().saturating_sub(gap + limits::TRAILER_BYTES_MAX * usize::from(chunked));
    let here = &here[..here.len().min(room)];
    if !(out.append(&[0; CHUNK_PREFIX_MAX][..gap]) && out.append(here)) {
        return Ok(head.bytes);
    }
    let piece = match body.decode(&mut out.filled_mut()[head_len + gap..]) {
        Ok(piece) => piece,
        Err(fault) => {
            turn.keep_body(&buf.filled()[..head.bytes], body, fault, here);
            return Err((fault.fault.status(), Reason::Rejected(fault.fault)));
        }
    };
    if body.payload_bytes() > body_max {
        return Err((413, Reason::BodyTooLarge));
    }
    let taken = head.bytes + piece.consumed;
    let begin = head_len + gap + piece.payload.start;
    out.truncate(head_len + gap + piece.payload.end);
    if chunked {
        let payload = piece.payload.len();
        let mut prefix = [0; CHUNK_PREFIX_MAX];
        let used = if payload > 0 { chunk_prefix(payload, &mut prefix) } else { 0 };
        out.close_gap(head_len, begin - used);
        out.filled_mut()[head_len..head_len + used].copy_from_slice(&prefix[CHUNK_PREFIX_MAX - used..]);
        let framed = payload == 0 || out.append(b"\r\n");
        let ended = !body.is_done() || relay::last_chunk(out, body);
        debug_assert!(framed && ended, "room for trailers was kept free");
    }
    Ok(taken)
}

/// Gets a connection: a pooled one just seen alive, else a new one.
async fn connect<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    seconds: u32,
    (fresh_only, whole): (bool, bool),
    lease: &mut Lease<'_, N>,
) -> Result<(), Trouble> {
    let (core, slot, backend) = (turn.core, turn.slot, lease.backend);
    let once = !turn.head.method.is_idempotent() || !whole;
    if !fresh_only && let Some(stream) = backend.pool.check_out(&core.net, slot.now(), once) {
        slot.backend(Some(stream.handle()));
        add(&core.stats.pool_hits, 1);
        (lease.stream, lease.reused) = (Some(stream), true);
        turn.pass_to(Phase::FirstByte);
        return Ok(());
    }
    add(&core.stats.pool_misses, 1);
    slot.arm(Dir::Down, Aim::Backend, seconds);
    let connected = core.net.connect(&backend.endpoint, |handle| slot.backend(Some(handle))).await;
    slot.disarm(Dir::Down);
    match connected {
        Ok(stream) => {
            add(&core.stats.connects, 1);
            turn.enter(Phase::FirstByte);
            lease.stream = Some(stream);
            Ok(())
        }
        Err(error) => {
            slot.backend(None);
            Err(match error {
                _ if slot.fired(Dir::Down) => Trouble::ConnectTimeout,
                error if is_local(&error) => Trouble::Busy,
                _ => Trouble::Connect,
            })
        }
    }
}

/// Receives the response and delivers it.
async fn download<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    stream: &N::Stream,
    reused: bool,
    backend: &LocalBackend<N::Stream>,
    flow: &Flow<'_>,
    tally: &mut Tally<N::Stream>,
) -> Down {
    let (core, slot, request) = (turn.core, turn.slot, turn.head);
    let (mut buf, head) = match final_head(turn, stream, (reused, flow), tally).await {
        Ok(final_head) => final_head,
        Err(trouble) => {
            return match flow.refusal.get() {
                Some((status, reason)) => Down::Refused { status, reason },
                None => Down::Failed(trouble),
            };
        }
    };
    if flow.cut_off && !stands_whole(&head, buf.filled(), flow) {
        core.buffers.put(buf);
        return Down::Failed(Trouble::ClosedInHead);
    }
    flow.head_seen.set(true);
    turn.enter(Phase::BodyClient);
    slot.disarm(Dir::Down);
    slot.backend_answered();
    let took_us = core.net.now_us().saturating_sub(flow.sent_us);
    if flow.health.statuses.contains(head.status) && !asks_for_patience(&head, buf.filled()) {
        core.answered_badly(backend, head.status, took_us);
    } else {
        backend.answered(head.status, slot.now(), took_us);
    }
    if reused {
        backend.pool.reused(true);
    }
    tally.status = head.status;

    let side = persist::client_side(request, &head);
    let persist = request.persist && side.persist && flow.uploaded.get() && !core.is_draining() && !slot.fired(Dir::Up);
    let upgraded = head.status == 101;
    let mut out = core.buffers.take(Class::Small);
    turn.write_head(&head, buf.filled(), side.framing, !persist && !upgraded, &mut out);
    let mut body = Body::behind(buf.filled(), &head.fields, head.framing);
    let (clean, whole) = if upgraded {
        // Whatever stands behind a 101 is the tunnel's.
        buf.consume(head.bytes);
        (false, true)
    } else {
        match body.decode(&mut buf.filled_mut()[head.bytes..]) {
            Ok(piece) => {
                buf.consume(head.bytes);
                (piece.consumed == buf.len(), relay::frame(&mut buf, piece, side.encoding, &body))
            }
            Err(fault) => {
                let (head, piece) = buf.filled().split_at(head.bytes);
                turn.keep_response(tally, || Kept::of_body(Side::Backend, Some(head), &body, fault, piece));
                core.buffers.put(out);
                core.buffers.put(buf);
                return Down::Failed(Trouble::BadHead(Failure { fault: fault.fault, at: fault.at }));
            }
        }
    };
    let (may_persist, keep_alive_timeout) = (head.persist, head.keep_alive_timeout);
    core.response_head.set(Some(head));
    if buf.prepend(out.filled()) {
        core.buffers.put(out);
    } else if !turn.send(out, tally).await {
        core.buffers.put(buf);
        tally.reason = Reason::ClientAbort;
        return Down::Cut;
    }
    if upgraded {
        if turn.send(buf, tally).await {
            return Down::Upgraded;
        }
        tally.reason = Reason::ClientAbort;
        return Down::Cut;
    }
    let first = First { buf, body: &mut body, clean, whole, closes: !persist };
    match relay::deliver(turn, stream, flow, side.encoding, first, &mut tally.bytes).await {
        Delivered::Whole { clean } => {
            let reusable = clean && may_persist && flow.uploaded.get();
            Down::Done { persist, pool: reusable.then_some(keep_alive_timeout) }
        }
        Delivered::Cut(reason) => {
            tally.reason = reason;
            turn.client_is_gone(tally);
            Down::Cut
        }
        Delivered::Malformed(kept) => {
            tally.reason = Reason::BadResponse(kept.fault);
            turn.keep_response(tally, || *kept);
            turn.client_is_gone(tally);
            Down::Cut
        }
    }
}

/// Whether a backend is only busy: it says when it wants to be asked again (RFC 9110 section 15.6.4).
fn asks_for_patience(head: &ResponseHead, bytes: &[u8]) -> bool {
    head.status == 503 && head.has_field(bytes, b"retry-after")
}

/// Receives until the final response head is complete; passes interim ones on. The buffer begins with the head.
async fn final_head<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    stream: &N::Stream,
    (reused, flow): (bool, &Flow<'_>),
    tally: &mut Tally<N::Stream>,
) -> Result<(Buf, Box<ResponseHead>), Trouble> {
    let (core, slot, request) = (turn.core, turn.slot, turn.head);
    let mut buf = core.buffers.take(Class::Small);
    let mut scan = HeadScan::default();
    let mut interims = 0;
    let trouble = loop {
        let complete = if buf.is_empty() { Ok(Scan::Partial) } else { scan.response(buf.filled()) };
        match complete {
            Ok(Scan::Partial) => {}
            Ok(Scan::Complete(bytes)) => {
                let mut head = core.response_head.take().unwrap_or_default();
                if let Err(failure) = head.parse(&buf.filled()[..bytes], request.method) {
                    break Trouble::BadHead(failure);
                }
                let asked = request.upgrade.of(flow.request);
                if let Err(failure) = head.in_place(&buf.filled()[..bytes], asked, interims) {
                    break Trouble::BadHead(failure);
                }
                if !head.is_interim() {
                    return Ok((buf, head));
                }
                interims += 1;
                if request.version == Version::Http11 {
                    flow.answering.set(true);
                    if !interim(turn, head, &buf, tally).await {
                        slot.lose_client();
                        break Trouble::ClosedInHead;
                    }
                    flow.interim_sent(turn);
                }
                buf.consume(bytes);
                scan = HeadScan::default();
                continue;
            }
            Err(failure) => break Trouble::BadHead(failure),
        }
        buf.compact();
        let received;
        (received, buf) = stream.recv(buf).await;
        match received {
            Ok(n) if n > 0 => {}
            _ if slot.fired(Dir::Down) || slot.fired(Dir::Up) => break Trouble::HeadTimeout,
            _ if interims > 0 || !buf.is_empty() => break Trouble::ClosedInHead,
            _ => break Trouble::Closed { reused, handed: true },
        }
    };
    if let Trouble::BadHead(failure) = trouble {
        turn.keep_response(tally, || Kept::of_head(Side::Backend, buf.filled(), failure.fault, failure.at));
    }
    core.buffers.put(buf);
    Err(trouble)
}

/// Passes an interim response on; `false` if the client did not take it.
async fn interim<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    head: Box<ResponseHead>,
    buf: &Buf,
    tally: &mut Tally<N::Stream>,
) -> bool {
    let core = turn.core;
    let mut out = core.buffers.take(Class::Small);
    turn.write_head(&head, buf.filled(), Framing::None, false, &mut out);
    core.response_head.set(Some(head));
    let before = tally.bytes;
    let sent = turn.send(out, tally).await;
    tally.interim_bytes += tally.bytes - before;
    sent
}

/// In an attempt whose request is only partly in memory nothing can be tried again: what failed is answered here, while
/// the upload may still wait for its client.
async fn conclude<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    down: Down,
    flow: &Flow<'_>,
    (state, ended): (&mut Exchange, Ended<'_, N::Stream>),
    tally: &mut Tally<N::Stream>,
) -> Down {
    let (status, reason) = match down {
        Down::Failed(_) if turn.client_is_gone(tally) => return Down::Cut,
        Down::Failed(trouble) => {
            turn.core.blame(ended.backend, trouble.blame(), ended.sent);
            turn.note_failed(ended, (trouble, state.because(trouble, false)), tally);
            match state.failed(trouble, false) {
                Next::Answer { status, reason } => (status, reason),
                Next::Retry { .. } => trouble.answer(),
            }
        }
        Down::Refused { status, reason } => (status, reason),
        other => return other,
    };
    flow.answering.set(true);
    turn.send_answer(status, reason, Some(flow.request), true, tally).await;
    Down::Answered
}

/// The response has ended before the request: the upload is made to stop without losing what the client got.
fn stop_upload<N: Net, C: Stream>(turn: &Turn<'_, N, C>, stream: &N::Stream, flow: &Flow<'_>, down: &Down) {
    flow.stopping.set(true);
    turn.core.net.shutdown(stream.handle(), How::Both);
    if matches!(down, Down::Cut) {
        turn.core.net.shutdown(turn.stream.handle(), How::Read);
    } else {
        turn.core.net.shutdown(turn.stream.handle(), How::Write);
        turn.slot.arm(Dir::Up, Aim::ClientRead, limits::LINGER_TICKS);
    }
}

impl<N: Net, C: Stream> Turn<'_, N, C> {
    fn write_head(&self, head: &ResponseHead, bytes: &[u8], framing: Framing, close: bool, out: &mut Buf) {
        let view = self.core.view();
        let (date, via) = (self.core.date.get(), view.settings.via.as_deref());
        let how = ResponseRewrite { client_version: self.head.version, close, framing, date: &date, via };
        rewrite::response(head, bytes, &how, out.vec());
    }
}
