//! One end of a simulated connection, by the rules of Linux: what arrives when, what a close, a shutdown or a reset does
//! to either side, and what poll(2) says of it.

use super::world::{Due, EndId, OpId, World};
use crate::worker::net::How;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// What is on its way to an end.
#[derive(Debug)]
enum Packet {
    Bytes(Vec<u8>),
    Fin,
}

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) peer: EndId,
    pub(super) peer_address: Option<SocketAddr>,
    /// Held by somebody as a descriptor. A queued connection is not, a closed one is not any more.
    pub(super) held: bool,
    /// By this core.
    pub(super) core: usize,
    pub(super) connected: bool,
    pub(super) delayed: bool,
    pub(super) inbox: VecDeque<u8>,
    pub(super) readers: Vec<OpId>,
    /// Key of a parked end that has not stirred yet.
    pub(super) parked: Option<u64>,
    pub(super) writers: Vec<OpId>,
    pub(super) connect: Option<OpId>,
    pub(super) reset_after_sent: Option<u64>,
    pub(super) reset_after_received: Option<u64>,
    unix: bool,
    closed: bool,
    on_the_way: VecDeque<(u64, Packet)>,
    bytes_on_the_way: usize,
    fin_seen: bool,
    read_shut: bool,
    write_shut: bool,
    /// The kernel's pending error of the socket: reported once.
    error: Option<i32>,
    /// The connection is no more: reset, or never made.
    dead: bool,
}

impl End {
    pub(super) fn new(unix: bool, peer: EndId) -> End {
        End {
            peer,
            peer_address: None,
            held: false,
            core: 0,
            connected: false,
            delayed: false,
            inbox: VecDeque::new(),
            readers: Vec::new(),
            parked: None,
            writers: Vec::new(),
            connect: None,
            reset_after_sent: None,
            reset_after_received: None,
            unix,
            closed: false,
            on_the_way: VecDeque::new(),
            bytes_on_the_way: 0,
            fin_seen: false,
            read_shut: false,
            write_shut: false,
            error: None,
            dead: false,
        }
    }

    /// POLLIN.
    pub(super) fn is_readable(&self) -> bool {
        !self.inbox.is_empty() || self.is_read_closed() || self.error.is_some()
    }

    /// POLLRDHUP.
    fn is_read_closed(&self) -> bool {
        self.fin_seen || self.read_shut || self.dead
    }

    /// POLLHUP or POLLERR.
    fn is_gone(&self) -> bool {
        self.error.is_some() || self.dead || (self.is_read_closed() && self.write_shut)
    }

    fn lose_what_is_on_the_way(&mut self) {
        self.on_the_way.clear();
        self.bytes_on_the_way = 0;
    }

    /// What a recv gets when there are no bytes: the end, an error, or nothing yet.
    pub(super) fn end_of_input(&mut self) -> Option<Result<usize, i32>> {
        // After a FIN a TCP socket says "end" for ever, whatever came later.
        if self.fin_seen && !self.unix {
            return Some(Ok(0));
        }
        if let Some(errno) = self.error.take() {
            return Some(Err(errno));
        }
        self.is_read_closed().then_some(Ok(0))
    }
}

impl World {
    /// A new unconnected end with a descriptor of this core.
    pub(super) fn socket(&mut self, core: usize, unix: bool) -> EndId {
        let id = self.ends.len();
        let mut end = End::new(unix, id);
        (end.held, end.core) = (true, core);
        self.ends.push(end);
        id
    }

    /// Free bytes of the pipe that leads to `end`; the network swallows any number for an end that is closed.
    pub(super) fn room_towards(&self, end: EndId) -> usize {
        let end = &self.ends[end];
        match end.closed {
            true => usize::MAX,
            false => self.weather.pipe_bytes.saturating_sub(end.inbox.len() + end.bytes_on_the_way),
        }
    }

    /// The error that a send gets now, if any. One that has sent a part tells of that and leaves the error to the next.
    pub(super) fn refuses_send(&mut self, end: EndId, partly: bool) -> Option<i32> {
        let peer = self.ends[end].peer;
        let (peer_closed, peer_deaf) = (self.ends[peer].closed, self.ends[peer].read_shut);
        let end = &mut self.ends[end];
        let error = if partly { end.error } else { end.error.take() };
        if let Some(errno) = error {
            return Some(errno);
        }
        let unix_refuses = end.unix && (peer_closed || peer_deaf);
        (end.dead || end.write_shut || unix_refuses).then_some(libc::EPIPE)
    }

    /// Puts bytes on their way from `end` to its peer.
    pub(super) fn transmit(&mut self, end: EndId, bytes: Vec<u8>) {
        assert!(!bytes.is_empty(), "no packet is empty: a closed end would answer it with a reset");
        let n = bytes.len() as u64;
        self.trace.note(3, [self.now, end as u64, n]);
        self.post(end, Packet::Bytes(bytes));
        if let Some(left) = &mut self.ends[end].reset_after_sent {
            *left = left.saturating_sub(n);
            if *left == 0 {
                self.ends[end].reset_after_sent = None;
                self.abort(end);
            }
        }
    }

    fn post(&mut self, from: EndId, packet: Packet) {
        let to = self.ends[from].peer;
        let latency = if self.ends[from].unix { 0 } else { self.dice.below(self.weather.latency_us + 1) };
        if let Packet::Bytes(bytes) = &packet {
            self.ends[to].bytes_on_the_way += bytes.len();
        }
        // In order: nothing overtakes what was sent before.
        let last = self.ends[to].on_the_way.back().map_or(0, |(at, _)| *at);
        let at = last.max(self.now + latency);
        self.ends[to].on_the_way.push_back((at, packet));
        match at > self.now {
            true => self.after(at - self.now, Due::Arrive(to)),
            false => self.arrive(to),
        }
    }

    /// Takes in what has arrived at an end by now.
    pub(super) fn arrive(&mut self, id: EndId) {
        let mut refused = false;
        while let Some((at, _)) = self.ends[id].on_the_way.front() {
            if *at > self.now {
                break;
            }
            let end = &mut self.ends[id];
            match end.on_the_way.pop_front() {
                Some((_, Packet::Bytes(bytes))) if end.closed || end.dead => {
                    end.bytes_on_the_way -= bytes.len();
                    refused = true;
                }
                Some((_, Packet::Bytes(bytes))) => {
                    end.bytes_on_the_way -= bytes.len();
                    end.inbox.extend(&bytes);
                    if let Some(left) = &mut end.reset_after_received {
                        *left = left.saturating_sub(bytes.len() as u64);
                    }
                }
                Some((_, Packet::Fin)) => end.fin_seen = true,
                None => break,
            }
        }
        if self.ends[id].reset_after_received == Some(0) {
            self.ends[id].reset_after_received = None;
            return self.abort(id);
        }
        if refused {
            // Bytes for a socket that is closed are answered with a reset.
            self.send_reset(id);
        }
        self.wake_readers(id);
    }

    fn wake_readers(&mut self, end: EndId) {
        for op in self.ends[end].readers.clone() {
            self.start(op);
        }
        self.look_at_parked(end);
    }

    pub(super) fn wake_writers(&mut self, end: EndId) {
        for op in self.ends[end].writers.clone() {
            self.start(op);
        }
    }

    fn send_reset(&mut self, from: EndId) {
        let to = self.ends[from].peer;
        let us = self.dice.below(self.weather.latency_us + 1);
        self.after(us, Due::Reset(to));
    }

    /// A reset arrives: what is still on its way is lost, what has arrived can still be read.
    pub(super) fn reset_arrives(&mut self, id: EndId) {
        let end = &mut self.ends[id];
        if end.closed || end.dead {
            return;
        }
        self.trace.note(4, [self.now, id as u64, end.inbox.len() as u64]);
        end.lose_what_is_on_the_way();
        end.error = Some(if end.fin_seen { libc::EPIPE } else { libc::ECONNRESET });
        end.dead = true;
        self.wake_readers(id);
        self.wake_writers(id);
    }

    /// Breaks a connection from this end, as a close with SO_LINGER 0 or a dying machine does.
    pub(super) fn abort(&mut self, id: EndId) {
        let end = &mut self.ends[id];
        if end.dead || !end.connected {
            return;
        }
        end.dead = true;
        end.inbox.clear();
        end.lose_what_is_on_the_way();
        end.error = Some(libc::ECONNRESET);
        self.send_reset(id);
        self.wake_readers(id);
        self.wake_writers(id);
    }

    /// close(2).
    pub(super) fn close(&mut self, id: EndId) {
        let end = &mut self.ends[id];
        if std::mem::replace(&mut end.closed, true) {
            return;
        }
        end.held = false;
        end.parked = None;
        let unread = !end.inbox.is_empty();
        let (connected, dead, unix, fin_sent) = (end.connected, end.dead, end.unix, end.write_shut);
        let peer = end.peer;
        end.inbox.clear();
        self.trace.note(5, [self.now, id as u64, u64::from(unread)]);
        if !connected || dead {
            return;
        }
        if unix {
            let other = &mut self.ends[peer];
            // The other side's socket is shut in both directions at once.
            other.write_shut = true;
            other.fin_seen = true;
            if unread {
                other.error = Some(libc::ECONNRESET);
            }
            self.wake_readers(peer);
        } else if unread {
            self.ends[id].dead = true;
            self.send_reset(id);
        } else if !fin_sent {
            self.ends[id].write_shut = true;
            self.post(id, Packet::Fin);
        }
        self.wake_writers(peer);
    }

    /// shutdown(2).
    pub(super) fn shutdown(&mut self, id: EndId, how: How) {
        let Some(end) = self.ends.get_mut(id).filter(|end| end.held && !end.closed) else {
            self.stale_handles += 1;
            return;
        };
        self.trace.note(6, [self.now, id as u64, how as u64]);
        if let Some(connect) = end.connect {
            end.dead = true;
            return self.decide(connect, Err(libc::ECONNRESET));
        }
        if end.dead || !end.connected {
            return;
        }
        let (peer, unix) = (end.peer, end.unix);
        if how != How::Write {
            end.read_shut = true;
        }
        if how != How::Read && !std::mem::replace(&mut end.write_shut, true) {
            self.post(id, Packet::Fin);
        }
        self.wake_readers(id);
        // A Unix socket that is shut only for writing does not become writable by that.
        if !unix || how == How::Both {
            self.wake_writers(id);
        }
        self.wake_writers(peer);
    }

    pub(super) fn gone(&mut self, id: EndId, fin: bool) -> bool {
        match self.ends.get(id).filter(|end| end.held) {
            Some(end) => end.is_gone() || (fin && end.is_read_closed()),
            None => {
                self.stale_handles += 1;
                true
            }
        }
    }

    pub(super) fn quiet(&mut self, id: EndId) -> bool {
        match self.ends.get(id).filter(|end| end.held) {
            Some(end) => !end.is_readable() && !end.is_gone(),
            None => {
                self.stale_handles += 1;
                true
            }
        }
    }
}
