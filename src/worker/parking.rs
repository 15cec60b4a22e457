//! Parked connections: idle ones beyond a number wait without a task, an operation or a buffer; what is left of each is one
//! entry here. The first byte, the end or an error takes it up again.

use super::accept::Counted;
use super::net::Net;
use super::session::Conn;
use super::{ConnInfo, Gate};
use crate::limits;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Owning all of the connection: dropped, it is closed and counted out.
struct Entry<N: Net, R> {
    stream: N::Parked,
    rest: R,
    info: Rc<ConnInfo>,
    counted: Counted<N>,
    served: u32,
    since: u32,
    until: u32,
    serial: u32,
}

/// The parked connections of one core.
pub(super) struct Parking<N: Net, G: Gate<N>> {
    entries: RefCell<Slab<Entry<N, G::Rest>>>,
    serial: Cell<u32>,
}

impl<N: Net, G: Gate<N>> Parking<N, G> {
    pub(super) fn new() -> Self {
        Parking { entries: RefCell::default(), serial: Cell::new(0) }
    }

    /// Parked connections.
    pub(super) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Parks a connection until it stirs, or until tick `now + seconds`; one that cannot be parked comes back.
    pub(super) fn park(
        &self,
        (net, gate): (&N, &G),
        (conn, counted): (Conn<G::Stream>, Counted<N>),
        (now, seconds): (u32, u32),
    ) -> Result<(), (Conn<G::Stream>, Counted<N>)> {
        let Conn { stream, info, served } = conn;
        let (stream, rest) = match gate.take_apart(stream) {
            Ok(parts) => parts,
            Err(stream) => return Err((Conn { stream, info, served }, counted)),
        };
        let mut entries = self.entries.borrow_mut();
        let place = entries.vacant_entry();
        let serial = self.serial.replace(self.serial.get().wrapping_add(1));
        match net.park(stream, key_of(place.key(), serial)) {
            Ok(stream) => {
                let until = now.saturating_add(seconds).saturating_add(1);
                place.insert(Entry { stream, rest, info, counted, served, since: now, until, serial });
                Ok(())
            }
            Err(stream) => {
                let stream = gate.put_together(stream, rest);
                Err((Conn { stream, info, served }, counted))
            }
        }
    }

    /// Takes up the connection with this key. `None` if the driver could not have it, and it is closed.
    pub(super) fn take_up(&self, net: &N, gate: &G, key: u64) -> Option<(Conn<G::Stream>, Counted<N>)> {
        let (place, serial) = (key as u32 as usize, (key >> 32) as u32);
        // Every key is told once and only while its stream is open; the serial number is the second lock on that door.
        if self.entries.borrow().get(place).is_none_or(|entry| entry.serial != serial) {
            return None;
        }
        let entry = self.remove(place);
        let stream = net.unpark(entry.stream).ok()?;
        let stream = gate.put_together(stream, entry.rest);
        Some((Conn { stream, info: entry.info, served: entry.served }, entry.counted))
    }

    fn remove(&self, place: usize) -> Entry<N, G::Rest> {
        self.entries.borrow_mut().remove(place)
    }

    /// One tick: closes those whose time is over, or all. Begins with place `from` (0) and stops after
    /// `limits::TURN_FIRED` of them, or a part of a long list: then it returns where to go on in a later turn.
    pub(super) fn tick(&self, now: u32, all: bool, from: usize) -> Option<usize> {
        let (closing, next) = {
            let entries = self.entries.borrow();
            let to = entries.capacity().min(from + limits::PARKED_TICK_BATCH);
            let mut due = (from..to).filter(|place| entries.get(*place).is_some_and(|entry| all || now >= entry.until));
            let closing: Vec<usize> = due.by_ref().take(limits::TURN_FIRED).collect();
            (closing, due.next().or((to < entries.capacity()).then_some(to)))
        };
        // What is dropped counts itself out, so the list is not borrowed then.
        closing.into_iter().for_each(|place| drop(self.remove(place)));
        next
    }

    /// Closes up to `n`, those that have been parked longest. Returns how many.
    pub(super) fn close_oldest(&self, n: usize) -> usize {
        let mut all: Vec<(u32, usize)> =
            self.entries.borrow().iter().map(|(place, entry)| (entry.since, place)).collect();
        if n < all.len() {
            all.select_nth_unstable(n);
            all.truncate(n);
        }
        all.iter().for_each(|(_, place)| drop(self.remove(*place)));
        all.len()
    }
}

fn key_of(place: usize, serial: u32) -> u64 {
    u64::from(serial) << 32 | place as u64 & u64::from(u32::MAX)
}
