//! Bodies of known length that the kernel moves: through a pipe, past this process.
//!
//! Only what is certainly payload goes this way: never more than the length still to come. A round fills an empty pipe and
//! pours all of it out, so that what has been received has also been sent when a stream ends, and a cut body is cut where
//! the copying pumps would cut it. Where the kernel refuses to splice, the pump goes on with copies.

use super::Core;
use super::attempt::Flow;
use super::buffers::Buf;
use super::deadlines::{Aim, Dir, SlotGuard};
use super::net::pipe::Pipe;
use super::net::{Net, Stream};
use super::relay::{Pace, send_all, send_all_more};
use super::session::Turn;
use crate::access_log::Phase;
use crate::http::body::Body;
use std::io;

/// How the spliced part of a body ended.
pub(super) enum Spliced {
    /// With the body.
    Whole,
    /// The kernel refuses to go on: what is left is to be copied.
    Refused,
    /// The source ended, or broke, or was shut down. For an upload that was stopped: this many bytes came and are lost.
    SourceEnded(usize),
    /// The sink took no more.
    SinkEnded(io::Error),
}

/// A pipe for the rest of a body, if both streams can be spliced and it is long enough for that to be worth it.
pub(super) fn pipe_for<N: Net>(core: &Core<N>, from: &impl Stream, to: &impl Stream, body: &Body) -> Option<Pipe> {
    let worth_it = from.splice_from()?.max(to.splice_from()?);
    if body.remaining()? < worth_it {
        return None;
    }
    core.pipes.take(&core.net, core.view().settings.pipes_per_worker)
}

/// Sends all that stands in a pipe; each piece that goes out renews the deadline and is added to `bytes`.
async fn pour_all<N: Net, S: Stream>(
    core: &Core<N>,
    stream: &S,
    (slot, pace): (&SlotGuard, Pace),
    pipe: &mut Pipe,
    bytes: &mut u64,
) -> io::Result<()> {
    slot.arm(pace.dir, pace.aim, pace.seconds);
    while !pipe.is_empty() {
        match stream.pour(pipe).await {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                *bytes += n as u64;
                slot.arm(pace.dir, pace.aim, pace.seconds);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => core.net.next_turn().await,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Splices the rest of a request body. Every wait is the copying pump's, with the same watches.
pub(super) async fn up<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    backend: &N::Stream,
    flow: &Flow<'_>,
    body: &mut Body,
    pipe: &mut Pipe,
) -> Spliced {
    let (core, slot) = (turn.core, turn.slot);
    let pace = Pace { dir: Dir::Up, aim: Aim::Backend, seconds: flow.body_timeout };
    let mut sent_bytes = 0;
    while let Some(rest @ 1..) = body.remaining() {
        flow.wait_for_body(turn);
        let filled = turn.stream.fill(pipe, rest).await;
        let n = *filled.as_ref().unwrap_or(&0);
        flow.body_came(slot, n);
        match filled {
            _ if flow.stopping.get() => return Spliced::SourceEnded(n),
            Ok(1..) => {
                body.pass(n as u64);
                turn.received.set(body.payload_bytes());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Spliced::Refused,
            _ => return Spliced::SourceEnded(0),
        }
        flow.upload_enters(turn, Phase::BodyBackend);
        flow.sending.set(true);
        let sent = pour_all(core, backend, (slot, pace), pipe, &mut sent_bytes).await;
        flow.sending.set(false);
        if let Err(error) = sent {
            return Spliced::SinkEnded(error);
        }
    }
    Spliced::Whole
}

/// Splices the rest of a response body. `lead` is what goes before it, copied.
pub(super) async fn down<N: Net, C: Stream>(
    turn: &Turn<'_, N, C>,
    backend: &N::Stream,
    flow: &Flow<'_>,
    (mut lead, body, bytes): (Buf, &mut Body, &mut u64),
    pipe: &mut Pipe,
) -> Spliced {
    let (core, slot) = (turn.core, turn.slot);
    let pace = Pace { dir: Dir::Down, aim: Aim::ClientSend, seconds: flow.client_timeout };
    // What is here already goes out with the lead: sent by itself, that would wake the client once more. (The lead is not
    // put into the pipe: with BBR that made a body of 256 KiB cost twice as much.)
    let before = lead.len();
    let sent;
    (sent, lead) = if body.remaining() > Some(0) && !core.net.quiet(backend.handle()) {
        send_all_more(turn.stream, slot, pace, lead).await
    } else {
        send_all(turn.stream, slot, pace, lead).await
    };
    *bytes += (before - lead.len()) as u64;
    core.buffers.put(lead);
    if let Err(error) = sent {
        return Spliced::SinkEnded(error);
    }
    while let Some(rest @ 1..) = body.remaining() {
        slot.arm(Dir::Down, Aim::Backend, flow.body_timeout);
        turn.enter(Phase::BodyBackend);
        let filled = backend.fill(pipe, rest).await;
        turn.enter(Phase::BodyClient);
        let n = match filled {
            Ok(n @ 1..) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Spliced::Refused,
            _ => return Spliced::SourceEnded(0),
        };
        body.pass(n as u64);
        if let Err(error) = pour_all(core, turn.stream, (slot, pace), pipe, bytes).await {
            return Spliced::SinkEnded(error);
        }
    }
    Spliced::Whole
}
