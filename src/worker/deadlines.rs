//! Deadlines of busy connections: one slot each, two watches in it, walked once a tick.
//!
//! The hot path only stores into a slot; no timer, no clock call. When a watch's time has come the tick shuts down the
//! socket that the operation waits on: the operation ends by itself with everything it had received, and the session
//! finds [`Slot::fired`] set. Nothing is ever raced or dropped (RUNTIME notes in docs/ARCHITECTURE.md).

use super::net::{Handle, How, Net};
use crate::limits;
use crate::route::{BackendId, ClusterId};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What an operation waits on, and so what is shut down when it takes too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aim {
    /// Nothing.
    #[default]
    None,
    /// Bytes from the client: only its reading side ends, an answer can still be sent.
    ClientRead,
    /// Room to send to the client.
    ClientSend,
    /// Anything from or to the backend.
    Backend,
}

/// The two watches of a slot. Both directions of an exchange run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    /// Client to backend; also everything before an exchange begins.
    Up = 0,
    /// Backend to client.
    Down = 1,
}

#[derive(Debug, Default)]
struct Watch {
    at: Cell<u32>,
    aim: Cell<Aim>,
    fired: Cell<bool>,
}

const NEVER: u32 = u32::MAX;
const NO_BACKEND: i32 = -1;

/// One busy connection.
#[derive(Debug)]
pub struct Slot {
    client: Handle,
    backend: Cell<i32>,
    watches: [Watch; 2],
    /// Tick at which the exchange began to wait for its backend, or NEVER.
    waiting_since: Cell<u32>,
    client_gone: Cell<bool>,
    fin_is_gone: Cell<bool>,
    /// The pump waits for body bytes of the client now.
    reading: Cell<bool>,
    read_bytes: Cell<u64>,
    read_ticks: Cell<u32>,
    rate_min: Cell<u64>,
    slow: Cell<bool>,
    drained: Cell<bool>,
    /// The backend connection was shut down from here: its end says nothing about what the backend has sent.
    backend_ended: Cell<bool>,
    place: Cell<Place>,
}

/// Where an exchange stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its cluster, once it is routed; and its backend, once one is picked.
    pub cluster: Option<ClusterId>,
    /// See `cluster`.
    pub backend: Option<BackendId>,
    /// Epoch of the snapshot that routed it.
    pub epoch: u64,
    /// It has become a tunnel.
    pub tunnel: bool,
}

/// All slots of one core.
#[derive(Debug, Default)]
pub struct Slots {
    list: RefCell<Slab<Slot>>,
    now: Cell<u32>,
}

impl Slots {
    /// Ticks since the core began.
    pub fn now(&self) -> u32 {
        self.now.get()
    }

    /// Opens a slot for a connection that becomes busy.
    pub fn open(self: &Rc<Self>, client: Handle) -> SlotGuard {
        let key = self.list.borrow_mut().insert(Slot {
            client,
            backend: Cell::new(NO_BACKEND),
            watches: [
                Watch { at: Cell::new(NEVER), ..Watch::default() },
                Watch { at: Cell::new(NEVER), ..Watch::default() },
            ],
            waiting_since: Cell::new(NEVER),
            client_gone: Cell::new(false),
            fin_is_gone: Cell::new(false),
            reading: Cell::new(false),
            read_bytes: Cell::new(0),
            read_ticks: Cell::new(0),
            rate_min: Cell::new(0),
            slow: Cell::new(false),
            drained: Cell::new(false),
            backend_ended: Cell::new(false),
            place: Cell::default(),
        });
        SlotGuard { slots: self.clone(), key }
    }

    /// Busy connections.
    pub fn len(&self) -> usize {
        self.list.borrow().len()
    }

    /// The clock has reached `now`. To be followed by [`Slots::tick`].
    pub fn reach(&self, now: u32) {
        self.now.set(now);
    }

    /// One tick, after `passed` of them: fires what is due, asks about clients that may have gone, and counts slow bodies.
    /// Begins with slot `from` (0) and stops after `limits::TURN_FIRED` calls to the kernel: then it returns where to go on in a later turn.
    pub fn tick<N: Net>(&self, net: &N, passed: u32, from: usize) -> Option<usize> {
        let now = self.now.get();
        let list = self.list.borrow();
        let mut calls = 0;
        for key in from..list.capacity() {
            let Some(slot) = list.get(key) else { continue };
            if calls >= limits::TURN_FIRED {
                return Some(key);
            }
            calls += slot.rate(net, passed) + slot.look_for_client(net, now) + slot.expire(net, now);
        }
        None
    }

    /// Where the exchanges stand that are routed; every busy connection has one at most.
    pub fn places(&self, mut each: impl FnMut(Place)) {
        self.list.borrow().iter().map(|(_, slot)| slot.place.get()).filter(|p| p.cluster.is_some()).for_each(&mut each);
    }

    /// The cluster of the exchange that a client's connection has, if it is routed. Walks all busy connections: not for the
    /// path of a request.
    pub fn cluster_of(&self, client: Handle) -> Option<ClusterId> {
        let list = self.list.borrow();
        list.iter().find(|(_, slot)| slot.client == client).and_then(|(_, slot)| slot.place.get().cluster)
    }

    /// Cuts every busy connection: the end of a drain. Returns how many were not cut before.
    pub fn cut<N: Net>(&self, net: &N) -> u32 {
        let mut cut = 0;
        for (_, slot) in self.list.borrow().iter() {
            cut += u32::from(!slot.drained.replace(true));
            // The sending side is shut only where a send is stuck: a FIN would make a cut body look complete to a client
            // that reads until the end.
            let sending = |watch: &Watch| watch.at.get() != NEVER && watch.aim.get() == Aim::ClientSend;
            net.shutdown(slot.client, if slot.watches.iter().any(sending) { How::Both } else { How::Read });
            slot.end_backend(net);
        }
        cut
    }
}

/// Each of the three gives the number of its calls to the kernel.
impl Slot {
    fn expire<N: Net>(&self, net: &N, now: u32) -> usize {
        let mut calls = 0;
        for watch in &self.watches {
            if now < watch.at.get() {
                continue;
            }
            watch.at.set(NEVER);
            watch.fired.set(true);
            calls += 1;
            match watch.aim.get() {
                Aim::None => {}
                Aim::ClientRead => net.shutdown(self.client, How::Read),
                Aim::ClientSend => net.shutdown(self.client, How::Both),
                Aim::Backend => self.end_backend(net),
            }
        }
        calls
    }

    fn look_for_client<N: Net>(&self, net: &N, now: u32) -> usize {
        let old_enough = self.waiting_since.get().saturating_add(limits::CLIENT_GONE_AGE_TICKS) < now;
        if !old_enough || self.client_gone.get() {
            return 0;
        }
        if net.gone(self.client, self.fin_is_gone.get()) {
            self.client_gone.set(true);
            self.end_backend(net);
        }
        1
    }

    fn rate<N: Net>(&self, net: &N, passed: u32) -> usize {
        if !self.reading.get() || self.rate_min.get() == 0 {
            return 0;
        }
        self.read_ticks.set(self.read_ticks.get() + passed);
        let seconds = u64::from(self.read_ticks.get());
        if seconds > limits::CLIENT_RATE_GRACE_SECONDS && self.read_bytes.get() < self.rate_min.get() * seconds {
            self.slow.set(true);
            net.shutdown(self.client, How::Read);
            return 1;
        }
        0
    }

    fn end_backend<N: Net>(&self, net: &N) {
        if self.backend.get() != NO_BACKEND {
            self.backend_ended.set(true);
            net.shutdown(Handle(self.backend.get()), How::Both);
        }
    }
}

/// A busy connection's hold on its slot; dropping it frees the slot.
#[derive(Debug)]
pub struct SlotGuard {
    slots: Rc<Slots>,
    key: usize,
}

impl SlotGuard {
    fn with<T>(&self, f: impl FnOnce(&Slot) -> T) -> T {
        f(&self.slots.list.borrow()[self.key])
    }

    /// Ticks since the core began.
    pub fn now(&self) -> u32 {
        self.slots.now()
    }

    /// Arms a watch: from now on at most `seconds`, and less than one tick more.
    pub fn arm(&self, dir: Dir, aim: Aim, seconds: u32) {
        let at = self.slots.now().saturating_add(seconds).saturating_add(1);
        self.with(|slot| {
            slot.watches[dir as usize].at.set(at);
            slot.watches[dir as usize].aim.set(aim);
        });
    }

    /// Disarms a watch.
    pub fn disarm(&self, dir: Dir) {
        self.with(|slot| slot.watches[dir as usize].at.set(NEVER));
    }

    /// Whether a watch has fired since the last [`SlotGuard::begin`].
    pub fn fired(&self, dir: Dir) -> bool {
        self.with(|slot| slot.watches[dir as usize].fired.get())
    }

    /// Forgets the last exchange: nothing armed, nothing fired, no backend.
    pub fn begin(&self) {
        self.with(|slot| {
            for watch in &slot.watches {
                watch.at.set(NEVER);
                watch.fired.set(false);
            }
            slot.backend.set(NO_BACKEND);
            slot.backend_ended.set(false);
            slot.waiting_since.set(NEVER);
            slot.read_bytes.set(0);
            slot.read_ticks.set(0);
            slot.place.set(Place::default());
        });
    }

    /// Says where the exchange stands now.
    pub fn place(&self, place: Place) {
        self.with(|slot| slot.place.set(place));
    }

    /// The exchange has become a tunnel.
    pub fn tunnel(&self) {
        self.with(|slot| slot.place.set(Place { tunnel: true, ..slot.place.get() }));
    }

    /// Another attempt: what the last one armed or fired is forgotten, the client's part stays.
    pub fn retry(&self) {
        self.with(|slot| {
            for watch in &slot.watches {
                watch.at.set(NEVER);
                watch.fired.set(false);
            }
            slot.backend_ended.set(false);
        });
    }

    /// Whether the backend connection of this attempt was shut down by a watch, a client that has gone or a drain.
    pub fn backend_ended(&self) -> bool {
        self.with(|slot| slot.backend_ended.get())
    }

    /// Names the backend connection, or none before it is closed or pooled.
    pub fn backend(&self, handle: Option<Handle>) {
        self.with(|slot| slot.backend.set(handle.map_or(NO_BACKEND, |h| h.0)));
    }

    /// From here on the exchange waits for its backend: a client that goes away meanwhile is noticed.
    pub fn wait_for_backend(&self, fin_is_gone: bool) {
        let now = self.slots.now();
        self.with(|slot| {
            slot.waiting_since.set(now);
            slot.fin_is_gone.set(fin_is_gone);
        });
    }

    /// The wait is over.
    pub fn backend_answered(&self) {
        self.with(|slot| slot.waiting_since.set(NEVER));
    }

    /// The client has gone, as a send to it has found.
    pub fn lose_client(&self) {
        self.with(|slot| slot.client_gone.set(true));
    }

    /// Whether the client was found gone.
    pub fn client_gone(&self) -> bool {
        self.with(|slot| slot.client_gone.get())
    }

    /// Begins or ends waiting for body bytes of the client; `bytes` came. Time in between counts for the least rate.
    pub fn reading(&self, waiting: bool, bytes: usize, rate_min: u64) {
        self.with(|slot| {
            slot.reading.set(waiting);
            slot.rate_min.set(rate_min);
            slot.read_bytes.set(slot.read_bytes.get() + bytes as u64);
        });
    }

    /// Whether the body came slower than the least rate.
    pub fn slow(&self) -> bool {
        self.with(|slot| slot.slow.get())
    }

    /// Whether the drain's end cut this connection.
    pub fn drained(&self) -> bool {
        self.with(|slot| slot.drained.get())
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        self.slots.list.borrow_mut().remove(self.key);
    }
}
