//! The room of idle connections: those that wait for their next (or first) request and hold no buffer.
//!
//! An entry is 12 bytes; the connection itself waits in its own small task. Beyond some number they are in
//! [`super::parking`] instead.

use super::net::{Handle, How, Net};
use crate::limits;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[derive(Debug)]
struct Entry {
    client: Handle,
    since: u32,
    until: u32,
    ended: Cell<bool>,
}

/// All idle connections of one core.
#[derive(Debug, Default)]
pub struct IdleRoom {
    list: RefCell<Slab<Entry>>,
}

impl IdleRoom {
    /// Idle connections.
    pub fn len(&self) -> usize {
        self.list.borrow().len()
    }

    /// Enters; the connection is ended at tick `until` unless the guard is dropped before.
    pub fn enter(self: &Rc<Self>, client: Handle, now: u32, seconds: u32) -> IdleGuard {
        let until = now.saturating_add(seconds).saturating_add(1);
        let key = self.list.borrow_mut().insert(Entry { client, since: now, until, ended: Cell::new(false) });
        IdleGuard { room: self.clone(), key }
    }

    /// One tick: ends what has idled too long, or all. Its `readable` returns and its task closes it. Begins with entry
    /// `from` (0) and stops after `limits::TURN_FIRED` of them: then it returns where to go on in a later turn.
    pub fn tick<N: Net>(&self, net: &N, now: u32, all: bool, from: usize) -> Option<usize> {
        let list = self.list.borrow();
        let mut ended = 0;
        for key in from..list.capacity() {
            let Some(entry) = list.get(key) else { continue };
            if now < entry.until && !all || entry.ended.get() {
                continue;
            }
            if ended == limits::TURN_FIRED {
                return Some(key);
            }
            ended += 1;
            entry.ended.set(true);
            net.shutdown(entry.client, How::Both);
        }
        None
    }

    /// Ends the `n` that have idled longest, to make room for new connections.
    pub fn end_oldest<N: Net>(&self, net: &N, n: usize) {
        let list = self.list.borrow();
        let mut idle: Vec<&Entry> = list.iter().map(|(_, entry)| entry).filter(|entry| !entry.ended.get()).collect();
        if n < idle.len() {
            idle.select_nth_unstable_by_key(n, |entry| entry.since);
            idle.truncate(n);
        }
        for entry in idle {
            entry.ended.set(true);
            net.shutdown(entry.client, How::Both);
        }
    }
}

/// A connection's place in the room; dropping it leaves.
#[derive(Debug)]
pub struct IdleGuard {
    room: Rc<IdleRoom>,
    key: usize,
}

impl IdleGuard {
    /// Whether the connection was ended while it waited: what has come in all the same is not to be taken.
    pub fn ended(&self) -> bool {
        self.room.list.borrow()[self.key].ended.get()
    }
}

impl Drop for IdleGuard {
    fn drop(&mut self) {
        self.room.list.borrow_mut().remove(self.key);
    }
}
