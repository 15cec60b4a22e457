//! The kernel's side of the simulation: a clock, a queue of what is due, operations, streams' ends and listeners.
//!
//! An operation is begun by a future, starts a little later, may wait for its stream, is *decided* (from then on its bytes
//! are its own, also if nobody takes them), and becomes *visible* later still, when its future is woken. As with the ring,
//! the operation takes the bytes and not the future: one dropped while it is decided, or before its cancellation comes
//! through, loses them.

use super::Weather;
use super::dice::{Dice, Trace};
use super::wire::End;
use crate::limits;
use crate::route::Endpoint;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::task::{Context, Poll, Waker};

/// Names an operation.
pub(super) type OpId = u64;
/// Index of an end.
pub(super) type EndId = usize;
/// Index of a listener.
pub(super) type DoorId = usize;

/// What an operation is about.
#[derive(Debug)]
pub(super) enum Kind {
    Readable(EndId),
    Recv(EndId, usize),
    Send(EndId, Vec<u8>),
    Connect(EndId, Endpoint),
    Accept(DoorId),
    Tick(usize),
    Rung(usize),
    Stirred(usize),
    Sleep(u64),
}

/// What an operation brought: a count or an errno, and what it took.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) result: Option<Result<usize, i32>>,
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<EndId>,
    /// Keys of parked streams.
    pub(super) keys: Vec<u64>,
    /// Bytes of a send that the kernel has, also when the result is an error.
    pub(super) sent: usize,
}

#[derive(Debug)]
struct Op {
    kind: Kind,
    outcome: Outcome,
    waker: Option<Waker>,
    visible: bool,
    abandoned: bool,
}

/// Something that happens at its time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    /// An operation starts, or goes on.
    Start(OpId),
    /// Its outcome is shown to its future.
    Show(OpId),
    /// The cancellation of an abandoned operation comes through.
    Cancel(OpId),
    /// Something may have arrived at an end.
    Arrive(EndId),
    /// A reset arrives at an end.
    Reset(EndId),
}

/// A listener.
#[derive(Debug)]
pub(super) struct Door {
    /// The core that accepts on it.
    pub(super) core: usize,
    pub(super) endpoint: Endpoint,
    pub(super) queue: VecDeque<EndId>,
    pub(super) closing: bool,
    pub(super) open: bool,
    accept: Option<OpId>,
}

/// What goes wrong at an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Connects are refused although somebody listens.
    pub refuse: bool,
    /// Connects are never answered; a shutdown ends them.
    pub blackhole: bool,
    /// Connects take this much longer.
    pub delay_us: u64,
    /// The listening side resets each connection once it has sent this many bytes.
    pub reset_after_sent: Option<u64>,
    /// The listening side resets each connection once this many bytes have come to it.
    pub reset_after_received: Option<u64>,
}

#[derive(Debug)]
struct Core {
    /// Descriptors that it may hold, and what it is told beyond them.
    scarcity: (usize, i32),
    /// One operation on a stream in so many fails, with this.
    hunger: (u64, i32),
    ticked: u64,
    rings: u64,
    bell: Option<OpId>,
    /// Keys of parked streams that have stirred, and who waits for them.
    stirred: Vec<u64>,
    watcher: Option<OpId>,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) trace: Trace,
    pub(super) weather: Weather,
    pub(super) now: u64,
    pub(super) ends: Vec<End>,
    pub(super) doors: Vec<Door>,
    pub(super) faults: BTreeMap<Endpoint, Fault>,
    /// Listeners whose descriptors have been handed on, by the descriptor's number.
    pub(super) offered: BTreeMap<RawFd, DoorId>,
    /// Streams on their way from one core to another, by the same.
    pub(super) detached: BTreeMap<RawFd, EndId>,
    pub(super) stale_handles: usize,
    pub(super) bytes_lost: usize,
    due: BTreeMap<(u64, u64), Due>,
    ops: BTreeMap<OpId, Op>,
    cores: Vec<Core>,
    serial: u64,
}

const TICK_US: u64 = limits::TICK_MS * 1000;

impl World {
    pub(super) fn new(seed: u64, weather: Weather) -> World {
        World {
            dice: Dice::new(seed),
            trace: Trace::new(),
            weather,
            now: 0,
            ends: Vec::new(),
            doors: Vec::new(),
            faults: BTreeMap::new(),
            offered: BTreeMap::new(),
            detached: BTreeMap::new(),
            stale_handles: 0,
            bytes_lost: 0,
            due: BTreeMap::new(),
            ops: BTreeMap::new(),
            cores: Vec::new(),
            serial: 0,
        }
    }

    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn add_core(&mut self) -> usize {
        let (stirred, watcher) = (Vec::new(), None);
        let (scarcity, hunger) = ((usize::MAX, 0), (0, 0));
        self.cores.push(Core { scarcity, hunger, ticked: 0, rings: 0, bell: None, stirred, watcher });
        self.cores.len() - 1
    }

    /// Puts something on the calendar.
    pub(super) fn after(&mut self, us: u64, due: Due) {
        let key = (self.now + us, self.serial());
        self.due.insert(key, due);
    }

    /// Advances the clock to the next thing that is due and does it, and in a burst what follows; `false` if nothing is due.
    pub(super) fn step(&mut self) -> bool {
        let Some((key, due)) = self.due.pop_first() else { return false };
        self.happen(key, due);
        if self.dice.once_in(self.weather.burst_once_in) {
            let until = self.now + self.dice.below(self.weather.burst_us + 1);
            while let Some(next) = self.due.first_entry().filter(|next| next.key().0 <= until) {
                let (key, due) = next.remove_entry();
                self.happen(key, due);
            }
            self.now = until;
        }
        true
    }

    fn happen(&mut self, (at, _): (u64, u64), due: Due) {
        // After a stall, things are overdue: time does not go back.
        self.now = self.now.max(at);
        match due {
            Due::Start(op) => self.start(op),
            Due::Show(op) => self.show(op),
            Due::Cancel(op) => self.cancel(op),
            Due::Arrive(end) => self.arrive(end),
            Due::Reset(end) => self.reset_arrives(end),
        }
    }

    /// Descriptors of connections that are held: accepted and connected ones, and those being connected.
    pub(super) fn held(&self) -> usize {
        self.ends.iter().filter(|end| end.held).count()
    }

    /// From now on a core holds no more descriptors of connections than this; beyond it, it gets the error.
    pub(super) fn scarce(&mut self, core: usize, most: usize, errno: i32) {
        self.cores[core].scarcity = (most, errno);
    }

    /// From now on one operation on a stream of this core in so many gets the error.
    pub(super) fn starve(&mut self, core: usize, once_in: u64, errno: i32) {
        self.cores[core].hunger = (once_in, errno);
    }

    /// Descriptors that a core may still take, and the error beyond them.
    pub(super) fn descriptors_left(&self, core: usize) -> (usize, i32) {
        let (most, errno) = self.cores[core].scarcity;
        let held = self.ends.iter().filter(|end| end.held && end.core == core).count();
        (most.saturating_sub(held), errno)
    }

    /// The kinds of all operations that wait, for messages.
    pub(super) fn waiting(&self) -> Vec<String> {
        self.ops.values().filter(|op| !op.visible).map(|op| format!("{:?}", op.kind)).collect()
    }

    pub(super) fn ops(&self) -> usize {
        self.ops.len()
    }

    pub(super) fn begin(&mut self, kind: Kind) -> OpId {
        let id = self.serial();
        match &kind {
            Kind::Readable(end) | Kind::Recv(end, _) => self.enlist(*end, id, true),
            Kind::Send(end, _) => self.enlist(*end, id, false),
            Kind::Accept(door) => self.doors[*door].accept = Some(id),
            Kind::Rung(core) => self.cores[*core].bell = Some(id),
            Kind::Stirred(core) => self.cores[*core].watcher = Some(id),
            Kind::Connect(end, _) => self.ends[*end].connect = Some(id),
            Kind::Tick(_) | Kind::Sleep(_) => {}
        }
        let op = Op { kind, outcome: Outcome::default(), waker: None, visible: false, abandoned: false };
        self.ops.insert(id, op);
        let us = self.soon_or_late(self.weather.start_us);
        self.after(us, Due::Start(id));
        id
    }

    /// Some time up to this; now and then much more.
    fn soon_or_late(&mut self, soon_us: u64) -> u64 {
        let late = self.dice.once_in(self.weather.late_once_in);
        self.dice.below(if late { self.weather.late_us } else { soon_us } + 1)
    }

    fn enlist(&mut self, end: EndId, id: OpId, reads: bool) {
        let list = if reads { &self.ends[end].readers } else { &self.ends[end].writers };
        let rival = list.iter().any(|op| self.ops.get(op).is_some_and(|op| !op.abandoned && !op.visible));
        assert!(!rival, "two operations in one direction on stream {end}");
        let end = &mut self.ends[end];
        if reads { end.readers.push(id) } else { end.writers.push(id) }
    }

    pub(super) fn poll(&mut self, id: OpId, cx: &mut Context<'_>) -> Poll<Outcome> {
        let op = self.ops.get_mut(&id).expect("an operation that is waited for exists");
        if !op.visible {
            op.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let op = self.ops.remove(&id).expect("just seen");
        Poll::Ready(op.outcome)
    }

    /// The future of an operation was dropped before it was done.
    pub(super) fn abandon(&mut self, id: OpId) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        if op.visible {
            self.bytes_lost += op.outcome.bytes.len();
            self.forget(id);
            return;
        }
        op.abandoned = true;
        op.waker = None;
        let us = self.dice.below(self.weather.latency_us + 1);
        self.after(us, Due::Cancel(id));
    }

    fn cancel(&mut self, id: OpId) {
        // One that is decided goes its way and is dropped when it would be shown.
        if self.ops.get(&id).is_some_and(|op| op.outcome.result.is_none()) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: OpId) {
        let Some(op) = self.ops.remove(&id) else { return };
        match op.kind {
            Kind::Readable(end) | Kind::Recv(end, _) => self.ends[end].readers.retain(|other| *other != id),
            Kind::Send(end, _) => self.ends[end].writers.retain(|other| *other != id),
            Kind::Connect(end, _) => {
                self.ends[end].connect = None;
                self.close(end);
            }
            Kind::Accept(door) => {
                self.doors[door].accept = None;
                for end in op.outcome.ends {
                    self.close(end);
                }
            }
            Kind::Rung(core) => self.cores[core].bell = None,
            Kind::Stirred(core) => self.cores[core].watcher = None,
            Kind::Tick(_) | Kind::Sleep(_) => {}
        }
    }

    /// Fixes an operation's result; it is shown after a random delay.
    pub(super) fn decide(&mut self, id: OpId, result: Result<usize, i32>) {
        let us = self.soon_or_late(self.weather.show_us);
        let op = self.ops.get_mut(&id).expect("a decided operation exists");
        op.outcome.result = Some(result);
        match &op.kind {
            Kind::Readable(end) | Kind::Recv(end, _) => self.ends[*end].readers.retain(|other| *other != id),
            Kind::Send(end, _) => self.ends[*end].writers.retain(|other| *other != id),
            Kind::Connect(end, _) => self.ends[*end].connect = None,
            Kind::Accept(door) => self.doors[*door].accept = None,
            Kind::Rung(core) => self.cores[*core].bell = None,
            Kind::Stirred(core) => self.cores[*core].watcher = None,
            Kind::Tick(_) | Kind::Sleep(_) => {}
        }
        self.after(us, Due::Show(id));
    }

    fn show(&mut self, id: OpId) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        let (code, number) = match op.outcome.result {
            Some(Ok(n)) => (1, n as u64),
            Some(Err(errno)) => (2, errno as u64),
            None => unreachable!("only decided operations are shown"),
        };
        self.trace.note(code, [self.now, id, number]);
        op.visible = true;
        if op.abandoned {
            self.bytes_lost += op.outcome.bytes.len();
            self.forget(id);
        } else if let Some(waker) = op.waker.take() {
            waker.wake();
        }
    }

    /// Starts an operation, or lets it go on: decides it if it need not wait any longer.
    pub(super) fn start(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        if op.outcome.result.is_some() {
            return;
        }
        if let Kind::Readable(end) | Kind::Recv(end, _) | Kind::Send(end, _) = &op.kind {
            let (once_in, errno) = self.cores[self.ends[*end].core].hunger;
            if self.dice.once_in(once_in) {
                return self.decide(id, Err(errno));
            }
        }
        match &op.kind {
            Kind::Readable(end) => {
                if self.ends[*end].is_readable() {
                    self.decide(id, Ok(0));
                }
            }
            Kind::Recv(end, room) => self.start_recv(id, *end, *room),
            Kind::Send(end, _) => self.start_send(id, *end),
            Kind::Connect(end, to) => {
                let (end, to) = (*end, to.clone());
                self.start_connect(id, end, &to);
            }
            Kind::Accept(door) => self.start_accept(id, *door),
            Kind::Tick(core) => {
                let (core, ticks) = (*core, self.now / TICK_US);
                if ticks > self.cores[core].ticked {
                    self.cores[core].ticked = ticks;
                    self.decide(id, Ok(ticks as usize));
                } else {
                    self.after((ticks + 1) * TICK_US - self.now, Due::Start(id));
                }
            }
            Kind::Rung(core) => {
                let core = *core;
                if std::mem::take(&mut self.cores[core].rings) > 0 {
                    self.decide(id, Ok(0));
                }
            }
            Kind::Stirred(core) => {
                let keys = std::mem::take(&mut self.cores[*core].stirred);
                if !keys.is_empty() {
                    let n = keys.len();
                    if let Some(op) = self.ops.get_mut(&id) {
                        op.outcome.keys = keys;
                    }
                    self.decide(id, Ok(n));
                }
            }
            Kind::Sleep(until) => match until.checked_sub(self.now) {
                None | Some(0) => self.decide(id, Ok(0)),
                Some(us) => self.after(us, Due::Start(id)),
            },
        }
    }

    pub(super) fn ring(&mut self, core: usize) {
        self.cores[core].rings += 1;
        if let Some(id) = self.cores[core].bell {
            self.start(id);
        }
    }

    /// From now on the key of this end is told to its core once, when there is something to receive.
    pub(super) fn park(&mut self, end: EndId, key: u64) {
        assert!(
            self.ends[end].readers.is_empty() && self.ends[end].writers.is_empty(),
            "operations on a parked stream"
        );
        self.ends[end].parked = Some(key);
        self.look_at_parked(end);
    }

    pub(super) fn look_at_parked(&mut self, end: EndId) {
        let readable = self.ends[end].is_readable();
        let core = self.ends[end].core;
        if let Some(key) = self.ends[end].parked.take_if(|_| readable) {
            self.cores[core].stirred.push(key);
            if let Some(id) = self.cores[core].watcher {
                self.start(id);
            }
        }
    }

    fn start_recv(&mut self, id: OpId, end: EndId, room: usize) {
        let there = self.ends[end].inbox.len().min(room);
        if there > 0 {
            let n = if self.weather.short { self.dice.part_of(there) } else { there };
            let bytes: Vec<u8> = self.ends[end].inbox.drain(..n).collect();
            if let Some(op) = self.ops.get_mut(&id) {
                op.outcome.bytes = bytes;
            }
            self.decide(id, Ok(n));
            self.wake_writers(self.ends[end].peer);
        } else if let Some(result) = self.ends[end].end_of_input() {
            self.decide(id, result);
        }
    }

    fn start_send(&mut self, id: OpId, end: EndId) {
        let Some(Op { kind: Kind::Send(_, bytes), outcome, .. }) = self.ops.get(&id) else { return };
        let (sent, all) = (outcome.sent, bytes.len());
        if let Some(errno) = self.refuses_send(end, sent > 0) {
            return self.decide(id, Err(errno));
        }
        let before_reset = self.ends[end].reset_after_sent.unwrap_or(u64::MAX);
        let room = self.room_towards(self.ends[end].peer).min(before_reset.try_into().unwrap_or(usize::MAX));
        if room == 0 {
            return;
        }
        let mut n = room.min(all - sent);
        if self.weather.short {
            n = self.dice.part_of(n);
        }
        let Some(Op { kind: Kind::Send(_, bytes), outcome, .. }) = self.ops.get_mut(&id) else { return };
        let part = bytes[sent..sent + n].to_vec();
        outcome.sent += n;
        // Before the bytes go: their arrival may make room, which wakes this very operation.
        if sent + n == all {
            self.decide(id, Ok(all));
        } else {
            let us = 1 + self.dice.below(self.weather.show_us + 1);
            self.after(us, Due::Start(id));
        }
        self.transmit(end, part);
    }

    fn start_connect(&mut self, id: OpId, client: EndId, to: &Endpoint) {
        let fault = self.faults.get(to).cloned().unwrap_or_default();
        if fault.blackhole {
            return;
        }
        if !std::mem::replace(&mut self.ends[client].delayed, true) && fault.delay_us > 0 {
            return self.after(fault.delay_us, Due::Start(id));
        }
        let unix = matches!(to, Endpoint::Unix(_));
        let door = self.doors.iter().position(|door| door.open && !door.closing && door.endpoint == *to);
        let Some(door) = door.filter(|_| !fault.refuse) else {
            return self.decide(id, Err(libc::ECONNREFUSED));
        };
        if self.doors[door].queue.len() >= self.weather.backlog {
            // A full queue drops the handshake's last part, and the client tries again; a Unix connect fails at once.
            return match unix {
                true => self.decide(id, Err(libc::EAGAIN)),
                false => self.after(TICK_US, Due::Start(id)),
            };
        }
        let server = self.ends.len();
        let mut end = End::new(unix, client);
        end.reset_after_sent = fault.reset_after_sent;
        end.reset_after_received = fault.reset_after_received;
        end.connected = true;
        self.ends.push(end);
        // Of the shared address space (RFC 6598): each connection has one of its own.
        let [_, high, middle, low] = (server as u32).to_be_bytes();
        let address = SocketAddr::from(([100, 64 | (high & 63), middle, low], 1024 | u16::from(low)));
        self.ends[server].peer_address = (!unix).then_some(address);
        let end = &mut self.ends[client];
        end.peer = server;
        end.connected = true;
        self.decide(id, Ok(0));
        self.doors[door].queue.push_back(server);
        if let Some(accept) = self.doors[door].accept {
            self.start(accept);
        }
    }

    fn start_accept(&mut self, id: OpId, door: DoorId) {
        let queued = self.doors[door].queue.len();
        if queued == 0 {
            if self.doors[door].closing {
                self.decide(id, Err(libc::ENOTCONN));
            }
            return;
        }
        let wanted = self.dice.part_of(queued).min(limits::ACCEPT_BATCH);
        let core = self.doors[door].core;
        let (left, errno) = self.descriptors_left(core);
        let n = wanted.min(left);
        let ends: Vec<EndId> = self.doors[door].queue.drain(..n).collect();
        for end in &ends {
            (self.ends[*end].held, self.ends[*end].core) = (true, core);
        }
        if let Some(op) = self.ops.get_mut(&id) {
            op.outcome.ends = ends;
        }
        self.decide(id, if n < wanted { Err(errno) } else { Ok(n) });
    }

    pub(super) fn listen(&mut self, core: usize, endpoint: &Endpoint) -> DoorId {
        let taken = self.doors.iter().any(|door| door.open && door.endpoint == *endpoint);
        assert!(!taken, "two listeners on {endpoint}");
        let (endpoint, queue) = (endpoint.clone(), VecDeque::new());
        self.doors.push(Door { core, endpoint, queue, closing: false, open: true, accept: None });
        self.doors.len() - 1
    }

    pub(super) fn close_door(&mut self, door: DoorId) {
        self.doors[door].closing = true;
        if let Some(accept) = self.doors[door].accept {
            self.start(accept);
        }
    }

    /// The listener's descriptor is closed: what is still queued is reset.
    pub(super) fn drop_door(&mut self, door: DoorId) {
        self.doors[door].open = false;
        for end in std::mem::take(&mut self.doors[door].queue) {
            self.abort(end);
        }
    }
}
