//! The pumps: bodies from a source to a sink, both directions at once, and the tunnel behind an upgrade.
//!
//! A pump reads into one buffer, finds the payload in place (`http/body`), frames it in place, and sends the same buffer.
//! Nothing is held back and nothing is buffered whole.

use super::Core;
use super::attempt::Flow;
use super::buffers::{Buf, Class};
use super::deadlines::{Aim, Dir, SlotGuard};
use super::net::{How, Net, Stream};
use super::session::Turn;
use super::splice::{self, Spliced};
use crate::access_log::Phase;
use crate::exchange::Reason;
use crate::http::body::{Body, CHUNK_PREFIX_MAX, Decoded, Encoding, chunk_prefix};
use crate::limits;
use crate::malformed::{Kept, Side};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Bytes of a body from which on the large buffers are used at once.
const LARGE_FROM: u64 = 64 * 1024;

/// Which watch guards a send, and how long it may go without progress.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) dir: Dir,
    pub(super) aim: Aim,
    pub(super) seconds: u32,
}

/// Sends all of a buffer; each piece that goes out renews the deadline. What was not sent is left in the buffer.
pub(super) async fn send_all<S: Stream>(
    stream: &S,
    slot: &SlotGuard,
    pace: Pace,
    mut buf: Buf,
) -> (io::Result<()>, Buf) {
    while !buf.is_empty() {
        slot.arm(pace.dir, pace.aim, pace.seconds);
        let sent;
        (sent, buf) = stream.send(buf).await;
        match sent {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
            Ok(_) => {}
            Err(error) => return (Err(error), buf),
        }
    }
    (Ok(()), buf)
}

/// The same, for bytes with more or the end of the stream right behind them: see [`Stream::send_more`].
pub(super) async fn send_all_more<S: Stream>(
    stream: &S,
    slot: &SlotGuard,
    pace: Pace,
    buf: Buf,
) -> (io::Result<()>, Buf) {
    if buf.is_empty() {
        return (Ok(()), buf);
    }
    slot.arm(pace.dir, pace.aim, pace.seconds);
    match stream.send_more(buf).await {
        (Ok(_), rest) => send_all(stream, slot, pace, rest).await,
        (Err(error), rest) => (Err(error), rest),
    }
}

/// Leaves in the buffer what goes out for this piece of a body. `false`: the end of the message does not fit and has to be
/// sent by itself ([`last_chunk`]).
#[must_use]
pub(super) fn frame(buf: &mut Buf, piece: Decoded, encoding: Encoding, body: &Body) -> bool {
    let payload = piece.payload.len();
    buf.keep(piece.payload);
    if encoding == Encoding::Plain {
        return true;
    }
    if payload > 0 {
        let mut room = [0; CHUNK_PREFIX_MAX];
        let used = chunk_prefix(payload, &mut room);
        let framed = buf.prepend(&room[CHUNK_PREFIX_MAX - used..]) && buf.append(b"\r\n");
        debug_assert!(framed, "headroom and tail are kept free for this");
    }
    !body.is_done() || last_chunk(buf, body)
}

/// Appends the last chunk with its trailer section.
#[must_use]
pub(super) fn last_chunk(buf: &mut Buf, body: &Body) -> bool {
    let trailers = body.trailers();
    if buf.spare() < trailers.len() && !trailers.is_empty() {
        return false;
    }
    buf.append(b"0\r\n") && buf.append(trailers) && buf.append(b"\r\n")
}

/// Whether a piece of a body is mostly framing. Of such chunks a large buffer would hold tens of thousands, a millisecond's
/// work at once, and even a small one takes as long as ten requests.
/// Its stream is told, if there is more to come of the body.
fn was_hard(from: &impl Stream, piece: &Decoded, body: &Body) -> bool {
    let hard = piece.consumed > limits::TURN_HARD && piece.payload.len() < piece.consumed / 2;
    from.mark_hard(hard && !body.is_done());
    hard
}

/// Chooses the buffer for the next read of a body.
fn next_buffer<N: Net>(core: &Core<N>, used: Buf, body: &Body, was_full: bool) -> Buf {
    let large = was_full || body.remaining().is_some_and(|rest| rest > LARGE_FROM);
    let class = if large { Class::Large } else { Class::Small };
    if used.class() == class {
        let mut buf = used;
        buf.clear();
        return buf;
    }
    core.buffers.put(used);
    core.buffers.take(class)
}

/// How an upload ended.
pub(super) enum Uploaded {
    /// All of it is with the backend; the buffer holds what came behind.
    Done(Buf),
    /// All of it is with the backend, and it ended in the buffer of its head: this many bytes stand behind it there.
    DoneInHead { behind: usize },
    /// Not all of it. `drained`: what the client still sent was read and thrown away.
    Stopped { drained: bool },
}

/// Pumps the request body that is not yet in memory to the backend. `rest` is what of it is.
pub(super) async fn upload<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    backend: &N::Stream,
    flow: &Flow<'_>,
    mut body: Body,
    mut rest: &[u8],
) -> Uploaded {
    let (core, slot) = (turn.core, turn.slot);
    let mut buf = core.buffers.take(Class::Small);
    let mut was_full = false;
    let mut copies = false;
    let refusal = loop {
        let in_bounds = body.remaining().is_some_and(|rest| rest + body.payload_bytes() <= flow.body_max);
        if rest.is_empty()
            && in_bounds
            && !copies
            && let Some(mut pipe) = splice::pipe_for(core, turn.stream, backend, &body)
        {
            core.buffers.put(buf);
            let spliced = splice::up(turn, backend, flow, &mut body, &mut pipe).await;
            core.pipes.put(pipe);
            buf = core.buffers.take(Class::Small);
            match spliced {
                Spliced::Whole => {
                    upload_done(turn, flow);
                    return Uploaded::Done(buf);
                }
                Spliced::Refused => copies = true,
                Spliced::SourceEnded(n) if flow.stopping.get() => return discard(turn, buf, n).await,
                Spliced::SourceEnded(_) => break client_ended(slot),
                Spliced::SinkEnded(error) => return not_taken(turn, flow, &error, buf).await,
            }
        }
        buf = next_buffer(core, buf, &body, was_full);
        if rest.is_empty() {
            flow.wait_for_body(turn);
            let received;
            (received, buf) = turn.stream.recv(buf).await;
            let n = received.unwrap_or(0);
            flow.body_came(slot, n);
            if flow.stopping.get() {
                return discard(turn, buf, n).await;
            }
            if n == 0 {
                break client_ended(slot);
            }
            was_full = buf.spare() == 0;
        } else {
            let fits = buf.append(&rest[..rest.len().min(buf.spare())]);
            debug_assert!(fits);
        }
        let in_head = !rest.is_empty();
        let piece = match body.decode(buf.filled_mut()) {
            Ok(piece) => piece,
            Err(fault) => {
                turn.keep_body(flow.request, &body, fault, buf.filled());
                break (fault.fault.status(), Reason::Rejected(fault.fault));
            }
        };
        if body.payload_bytes() > flow.body_max {
            break (413, Reason::BodyTooLarge);
        }
        turn.received.set(body.payload_bytes());
        was_full &= !was_hard(turn.stream, &piece, &body);
        if in_head {
            rest = &rest[piece.consumed..];
        }
        let behind = (!in_head && piece.consumed < buf.len()).then(|| {
            let bytes = &buf.filled()[piece.consumed..];
            let mut behind = core.buffers.take_for(bytes.len());
            let fits = behind.append(bytes);
            debug_assert!(fits, "taken for as many");
            behind
        });
        let whole = frame(&mut buf, piece, flow.upload_encoding, &body);
        let pace = Pace { dir: Dir::Up, aim: Aim::Backend, seconds: flow.body_timeout };
        let mut sent;
        flow.upload_enters(turn, Phase::BodyBackend);
        flow.sending.set(true);
        (sent, buf) = send_all(backend, slot, pace, buf).await;
        if sent.is_ok() && !whole {
            buf.clear();
            let fits = last_chunk(&mut buf, &body);
            debug_assert!(fits, "an empty buffer holds any trailer section");
            (sent, buf) = send_all(backend, slot, pace, buf).await;
        }
        flow.sending.set(false);
        if let Err(error) = sent {
            if let Some(behind) = behind {
                core.buffers.put(behind);
            }
            return not_taken(turn, flow, &error, buf).await;
        }
        if body.is_done() {
            core.buffers.put(buf);
            upload_done(turn, flow);
            if in_head {
                return Uploaded::DoneInHead { behind: rest.len() };
            }
            return Uploaded::Done(behind.unwrap_or_else(|| core.buffers.take(Class::Small)));
        }
    };
    core.buffers.put(buf);
    flow.refusal.set(Some(refusal));
    // No FIN: there are servers that take what came before it for the whole body. The attempt ends by resetting the connection.
    core.net.shutdown(backend.handle(), How::Read);
    Uploaded::Stopped { drained: false }
}

/// The whole request is with the backend.
fn upload_done<N: Net, C: Stream>(turn: &Turn<'_, N, C>, flow: &Flow<'_>) {
    turn.slot.disarm(Dir::Up);
    flow.uploaded.set(true);
    flow.upload_enters(turn, Phase::FirstByte);
    flow.wait_for_head(turn.slot);
}

/// Why a client's body ended before its end.
fn client_ended(slot: &SlotGuard) -> (u16, Reason) {
    match () {
        () if slot.drained() => (503, Reason::Drained),
        () if slot.slow() => (408, Reason::ClientSlow),
        () if slot.fired(Dir::Up) => (408, Reason::ClientTimeout),
        () => (400, Reason::ClientTruncated),
    }
}

/// The backend took no more of the request.
async fn not_taken<N: Net, C: Stream>(turn: &Turn<'_, N, C>, flow: &Flow<'_>, error: &io::Error, buf: Buf) -> Uploaded {
    // Behind a FIN a reset says broken pipe: then the response may well be whole.
    flow.backend_reset.set(error.kind() != io::ErrorKind::BrokenPipe);
    if flow.stopping.get() {
        return discard(turn, buf, 0).await;
    }
    // The backend may have answered before it stopped reading: the other pump finds out, in bounded time.
    turn.core.buffers.put(buf);
    turn.slot.disarm(Dir::Up);
    flow.upload_enters(turn, Phase::FirstByte);
    flow.wait_for_head(turn.slot);
    Uploaded::Stopped { drained: false }
}

/// The response is out although the request is not: reads on for a while, so that no reset destroys the response.
async fn discard<N: Net, C: Stream>(turn: &Turn<'_, N, C>, mut buf: Buf, already: usize) -> Uploaded {
    // Whatever the watch was armed for: from now on this is all that is waited for.
    turn.slot.arm(Dir::Up, Aim::ClientRead, limits::LINGER_TICKS);
    let mut thrown_away = already;
    let mut ended = false;
    while !ended && thrown_away < limits::LINGER_BYTES_MAX {
        buf.clear();
        let received;
        (received, buf) = turn.stream.recv(buf).await;
        let n = received.unwrap_or(0);
        thrown_away += n;
        ended = n == 0;
    }
    turn.core.buffers.put(buf);
    Uploaded::Stopped { drained: true }
}

/// Runs the two pumps of an exchange to their ends; neither is ever dropped with an operation under way. When the response
/// ends first, `stop` makes the upload end.
pub(super) async fn both<U, D>(
    up: impl Future<Output = U>,
    down: impl Future<Output = D>,
    stop: impl Fn(&D),
) -> (U, D) {
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (mut up_end, mut down_end) = (None, None);
    poll_fn(move |cx| {
        if up_end.is_none()
            && let Poll::Ready(end) = up.as_mut().poll(cx)
        {
            up_end = Some(end);
        }
        if down_end.is_none()
            && let Poll::Ready(end) = down.as_mut().poll(cx)
        {
            if up_end.is_none() {
                stop(&end);
            }
            down_end = Some(end);
        }
        match (up_end.take(), down_end.take()) {
            (Some(up), Some(down)) => Poll::Ready((up, down)),
            (up, down) => {
                (up_end, down_end) = (up, down);
                Poll::Pending
            }
        }
    })
    .await
}

/// How a response body ended.
pub(super) enum Delivered {
    /// Whole. `clean`: nothing came behind it, the connection may be used again.
    Whole { clean: bool },
    /// Cut short, for this reason.
    Cut(Reason),
    /// Cut short, since its coding is malformed.
    Malformed(Box<Kept>),
}

/// A response whose head is judged: the head and the first piece of the body, framed, stand in the buffer.
pub(super) struct First<'a> {
    pub(super) buf: Buf,
    pub(super) body: &'a mut Body,
    /// Nothing stands behind the body's end.
    pub(super) clean: bool,
    /// See [`frame`].
    pub(super) whole: bool,
    /// The client's connection ends behind it.
    pub(super) closes: bool,
}

/// Sends a response's head and first piece to the client and pumps the rest of the body.
pub(super) async fn deliver<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    backend: &N::Stream,
    flow: &Flow<'_>,
    encoding: Encoding,
    first: First<'_>,
    bytes: &mut u64,
) -> Delivered {
    let (core, slot) = (turn.core, turn.slot);
    let First { mut buf, body, mut clean, mut whole, closes } = first;
    let mut was_full = buf.spare() == 0;
    let mut ended = body.is_done();
    let mut copies = false;
    let pace = Pace { dir: Dir::Down, aim: Aim::ClientSend, seconds: flow.client_timeout };
    let cut = loop {
        if encoding == Encoding::Plain
            && !copies
            && let Some(mut pipe) = splice::pipe_for(core, backend, turn.stream, body)
        {
            let spliced = splice::down(turn, backend, flow, (buf, &mut *body, bytes), &mut pipe).await;
            core.pipes.put(pipe);
            match spliced {
                Spliced::Whole => {
                    slot.disarm(Dir::Down);
                    return Delivered::Whole { clean: true };
                }
                Spliced::Refused => copies = true,
                Spliced::SourceEnded(_) => return Delivered::Cut(cut_by_backend(slot, flow)),
                Spliced::SinkEnded(_) => return Delivered::Cut(Reason::ClientAbort),
            }
            buf = core.buffers.take(Class::Small);
        }
        let before = buf.len();
        let mut sent;
        (sent, buf) = if ended && whole && closes {
            // It goes out with the FIN of the close behind it. (Were that close to find bytes that its client sent against
            // its word a moment ago, it would be a reset and take this along.)
            send_all_more(turn.stream, slot, pace, buf).await
        } else {
            send_all(turn.stream, slot, pace, buf).await
        };
        *bytes += (before - buf.len()) as u64;
        if sent.is_ok() && !whole {
            buf.clear();
            let fits = last_chunk(&mut buf, body);
            debug_assert!(fits, "an empty buffer holds any trailer section");
            let before = buf.len();
            (sent, buf) = send_all(turn.stream, slot, pace, buf).await;
            *bytes += (before - buf.len()) as u64;
        }
        if sent.is_err() {
            break Reason::ClientAbort;
        }
        if ended {
            core.buffers.put(buf);
            slot.disarm(Dir::Down);
            return Delivered::Whole { clean };
        }
        buf = next_buffer(core, buf, body, was_full);
        slot.arm(Dir::Down, Aim::Backend, flow.body_timeout);
        turn.enter(Phase::BodyBackend);
        let received;
        (received, buf) = backend.recv(buf).await;
        turn.enter(Phase::BodyClient);
        match received {
            Ok(n) if n > 0 => was_full = buf.spare() == 0,
            Ok(_) if body.complete_at_eof() && ended_by_backend(turn, backend, flow).await => {
                // The end of the connection is the end of the body; a client that speaks chunks is told so.
                ended = true;
                clean = false;
                whole = encoding == Encoding::Plain;
                buf.clear();
                continue;
            }
            _ => break cut_by_backend(slot, flow),
        }
        let piece = match body.decode(buf.filled_mut()) {
            Ok(piece) => piece,
            Err(fault) => {
                let kept = Kept::of_body(Side::Backend, None, body, fault, buf.filled());
                core.buffers.put(buf);
                return Delivered::Malformed(Box::new(kept));
            }
        };
        clean = piece.consumed == buf.len();
        ended = body.is_done();
        was_full &= !was_hard(backend, &piece, body);
        whole = frame(&mut buf, piece, encoding, body);
    };
    core.buffers.put(buf);
    Delivered::Cut(cut)
}

/// Why a backend's body ended before its end.
fn cut_by_backend(slot: &SlotGuard, flow: &Flow<'_>) -> Reason {
    match flow.refusal.get() {
        _ if slot.fired(Dir::Down) => Reason::BackendStalled,
        Some((_, reason)) => reason,
        None => Reason::BackendTruncated,
    }
}

/// Whether the end of what a backend sends is an end that it meant: not one that was made here, and not a reset. The kernel
/// tells of a reset once, to the first operation that asks: to the upload's send, perhaps, and the receive sees an end.
async fn ended_by_backend<N: Net, C: Stream>(turn: &Turn<'_, N, C>, backend: &N::Stream, flow: &Flow<'_>) -> bool {
    if !flow.uploaded.get() && turn.core.net.gone(backend.handle(), false) {
        // Nothing can be sent any more, so this ends at once; the upload's pump wakes the task that both run in.
        poll_fn(|_| if flow.sending.get() { Poll::Pending } else { Poll::Ready(()) }).await;
    }
    !turn.slot.backend_ended() && flow.refusal.get().is_none() && !flow.backend_reset.get()
}

/// Carries bytes both ways until both sides have ended or nothing has moved for the tunnel's time. `early` bytes of the
/// client came behind its request. Returns the bytes sent to the client.
pub(super) async fn tunnel<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    backend: &N::Stream,
    seconds: u32,
    early: &[u8],
) -> u64 {
    let core: &Rc<Core<N>> = turn.core;
    let slot = turn.slot;
    let both_moved = move || {
        // Both aims end sends and receives: either side may be the one that takes no bytes.
        slot.arm(Dir::Up, Aim::ClientSend, seconds);
        slot.arm(Dir::Down, Aim::Backend, seconds);
    };
    both_moved();
    let (from_client, to_client) = both(
        carry(core, turn.stream, backend, early, &both_moved),
        carry(core, backend, turn.stream, &[], &both_moved),
        |_| {},
    )
    .await;
    turn.received.set(from_client);
    to_client
}

/// One direction of a tunnel: until the end of `from`, which is passed on as a half-close. Holds no buffer while it waits.
async fn carry<N: Net, A: Stream, B: Stream>(
    core: &Core<N>,
    from: &A,
    to: &B,
    mut early: &[u8],
    moved: &impl Fn(),
) -> u64 {
    let mut carried = 0;
    loop {
        let mut buf;
        if early.is_empty() {
            if from.readable().await.is_err() {
                core.net.shutdown(to.handle(), How::Both);
                return carried;
            }
            buf = core.buffers.take(Class::Small);
            let received;
            (received, buf) = from.recv(buf).await;
            match received {
                Ok(n) if n > 0 => {}
                end => {
                    core.buffers.put(buf);
                    if end.is_err() {
                        core.net.shutdown(to.handle(), How::Both);
                        return carried;
                    }
                    break;
                }
            }
        } else {
            buf = core.buffers.take(Class::Small);
            let n = early.len().min(buf.spare());
            let fits = buf.append(&early[..n]);
            debug_assert!(fits);
            early = &early[n..];
        }
        while !buf.is_empty() {
            moved();
            let sent;
            (sent, buf) = to.send(buf).await;
            match sent {
                Ok(n) if n > 0 => carried += n as u64,
                _ => {
                    core.buffers.put(buf);
                    // Nobody takes these bytes: the other direction has no meaning any more.
                    core.net.shutdown(from.handle(), How::Both);
                    core.net.shutdown(to.handle(), How::Both);
                    return carried;
                }
            }
        }
        core.buffers.put(buf);
        moved();
    }
    core.net.shutdown(to.handle(), How::Write);
    carried
}
