//! The room of idle connections: those that wait for their next (or first) request and hold no buffer.
//!
//! An entry is 12 bytes; the connection itself waits in its own small task. Beyond some number they are in
//! [`super::parking`] instead.

use super::net::{Handle, How, Net};
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

    /// One tick: ends what has idled too long. Its `readable` returns and its task closes it.
    pub fn tick<N: Net>(&self, net: &N, now: u32) {
        for (_, entry) in self.list.borrow().iter() {
            if now >= entry.until {
                net.shutdown(entry.client, How::Both);
            }
        }
    }

    /// Ends all of them.
    pub fn end_all<N: Net>(&self, net: &N) {
        for (_, entry) in self.list.borrow().iter() {
            net.shutdown(entry.client, How::Both);
        }
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

impl Drop for IdleGuard {
    fn drop(&mut self) {
        self.room.list.borrow_mut().remove(self.key);
    }
}
