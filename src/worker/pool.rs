//! Idle connections to one backend, per core, last in first out: the hottest is used again first, the rest age and close.
//!
//! How long one may idle is the least of three: the cluster's setting, what the backend said (`Keep-Alive: timeout`), and
//! what it was seen to do. Reusing a connection that the backend is about to close is how proxies make 502s (FIELD: the
//! stale pooled connection), so all three are kept a second below the backend's own limit.

use super::net::{Net, Stream};
use crate::limits;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Ticks after which a limit that was learned by observation is forgotten.
const LEARNED_TICKS: u32 = 60;

struct Idle<S> {
    stream: S,
    since: u32,
    until: u32,
}

/// The idle connections of one core to one backend.
pub struct Pool<S> {
    /// Idle connections of this core to all backends together.
    all: Rc<Cell<usize>>,
    idle: RefCell<Vec<Idle<S>>>,
    /// Seconds after which the backend was seen to close an idle connection, and until which tick this is believed.
    learned: Cell<Option<(u32, u32)>>,
    /// The backend was seen to keep a connection after an answer. Some close at once and do not say so: to them nothing
    /// that cannot be sent again goes out on a used connection.
    keeps: Cell<bool>,
    /// The microsecond since which the one that was put here first has idled; 0 where that is not known or of no interest.
    first_since_us: Cell<u64>,
}

/// How long and how many connections may idle.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Seconds, by the cluster's setting.
    pub seconds: u32,
    /// Seconds that the backend said it keeps them.
    pub said: Option<u32>,
    /// Connections of this core to this backend.
    pub most: u32,
    /// Connections of this core to all backends.
    pub most_of_all: usize,
}

impl<S: Stream> Pool<S> {
    /// An empty pool; `all` is shared by the pools of a core.
    pub fn new(all: Rc<Cell<usize>>) -> Pool<S> {
        Pool {
            all,
            idle: RefCell::new(Vec::new()),
            learned: Cell::new(None),
            keeps: Cell::new(false),
            first_since_us: Cell::new(0),
        }
    }

    /// Takes the hottest connection that may still be used and was alive a moment ago: neither an end nor bytes wait on it.
    /// Bytes would be an answer to nothing, and the next client's answer would come from them.
    /// `once`: the request must not be sent a second time.
    pub fn check_out<N: Net<Stream = S>>(&self, net: &N, now: u32, once: bool) -> Option<S> {
        if once && !self.keeps.get() && !self.has_kept(net, now) {
            return None;
        }
        loop {
            let idle = {
                let mut all = self.idle.borrow_mut();
                if all.len() == 1 {
                    self.first_since_us.set(0);
                }
                all.pop()?
            };
            self.all.set(self.all.get() - 1);
            if now < idle.until && net.quiet(idle.stream.handle()) {
                return Some(idle.stream);
            }
            if now < idle.until {
                self.reused(false);
            }
            idle.stream.close();
            if once {
                return None;
            }
        }
    }

    /// Whether the backend has kept a connection for as long as it takes to believe that it does; where nothing but what
    /// cannot be sent again comes, nothing else would tell before the next tick.
    #[cold]
    fn has_kept<N: Net<Stream = S>>(&self, net: &N, now: u32) -> bool {
        let since_us = self.first_since_us.get();
        let long = since_us > 0 && net.now_us().saturating_sub(since_us) >= limits::POOL_KEPT_US;
        let kept = long
            && self.idle.borrow().first().is_some_and(|first| now < first.until && net.quiet(first.stream.handle()));
        self.keeps.set(kept);
        kept
    }

    /// A pooled connection has (or has not) brought an answer.
    pub fn reused(&self, well: bool) {
        self.keeps.set(well);
        if !well {
            // What was seen before counts no more.
            self.first_since_us.set(0);
        }
    }

    /// Puts a connection back that may be used again; closes it where it may not be kept.
    pub fn check_in<N: Net<Stream = S>>(&self, net: &N, stream: S, now: u32, keep: Keep) {
        // What was said is a promise, kept a second below; what was seen is a guess, and within one tick it is never obeyed.
        let said = keep.said.map(|seconds| seconds.saturating_sub(1));
        let learned = self.learned.get().filter(|(_, until)| now < *until).map(|(age, _)| age.saturating_sub(1).max(1));
        let seconds = [said, learned].into_iter().flatten().fold(keep.seconds, u32::min);
        let until = now.saturating_add(seconds);
        let mut idle = self.idle.borrow_mut();
        if until <= now || idle.len() >= keep.most as usize || self.all.get() >= keep.most_of_all {
            drop(idle);
            return stream.close();
        }
        if !self.keeps.get() && self.first_since_us.get() == 0 {
            self.first_since_us.set(net.now_us());
        }
        self.all.set(self.all.get() + 1);
        idle.push(Idle { stream, since: now, until });
    }

    /// Moves what has idled too long or was closed by the backend to `spent`, to be closed, and learns from the latter.
    pub fn tick<N: Net<Stream = S>>(&self, net: &N, now: u32, spent: &mut Vec<S>) {
        let mut idle = self.idle.borrow_mut();
        let mut closed_ages: Option<(u32, u32)> = None;
        let mut oldest_alive = 0;
        let before = idle.len();
        let taken = idle.extract_if(.., |entry| {
            let age = now.saturating_sub(entry.since);
            let alive = age == 0 || net.quiet(entry.stream.handle());
            let keep = alive && now < entry.until;
            if keep {
                oldest_alive = oldest_alive.max(age);
            } else if !alive {
                let (least, most) = closed_ages.unwrap_or((age, age));
                closed_ages = Some((least.min(age), most.max(age)));
            }
            !keep
        });
        spent.extend(taken.map(|entry| entry.stream));
        if idle.len() < before {
            self.all.set(self.all.get() - (before - idle.len()));
            // Whoever is the first now has idled from now on at least.
            let first = !idle.is_empty() && !self.keeps.get();
            self.first_since_us.set(if first { net.now_us() } else { 0 });
        }
        // An idle timeout closes at one age and spares nothing older; a restart closes connections of all ages.
        if let Some((least, most)) = closed_ages
            && most - least <= 1
            && oldest_alive <= most
        {
            self.learned.set(Some((least, now.saturating_add(LEARNED_TICKS))));
        }
    }

    /// Idle connections.
    pub fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Closes all.
    pub fn close_all(&self) {
        let mut idle = self.idle.borrow_mut();
        self.first_since_us.set(0);
        self.all.set(self.all.get() - idle.len());
        idle.drain(..).for_each(|entry| entry.stream.close());
    }
}
