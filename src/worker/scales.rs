//! What each connection costs: measured only while somebody wants to know, by the CPU time of the calls of its task.
//!
//! While nobody does, a call pays for one look at a flag.

use super::net::{Handle, Net};
use super::{ConnInfo, Core};
use crate::event::{Hog, Hogs};
use crate::limits;
use crate::route::ClusterId;
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;

/// What has been weighed of a core's connections.
#[derive(Default)]
pub(super) struct Scales {
    /// Those who want to know.
    users: Cell<u32>,
    began: Cell<Spent>,
    /// By the handle of the client's stream. A number that is used anew while connections are weighed begins anew.
    pans: RefCell<FxHashMap<i32, Pan>>,
}

/// What a core has spent so far, microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) at_us: u64,
    /// Its thread had a CPU.
    pub(super) cpu_us: u64,
    /// Its thread waited for one.
    pub(super) waited_us: u64,
}

struct Pan {
    info: Rc<ConnInfo>,
    served: u32,
    cluster: Option<ClusterId>,
    calls: u64,
    cpu_us: u64,
    longest_us: u64,
}

impl Pan {
    fn cost(&self) -> u64 {
        self.cpu_us + self.calls * limits::WEIGH_CALL_US
    }
}

/// A connection that is weighed.
pub(super) struct Weighed<'a> {
    pub(super) handle: Handle,
    pub(super) info: &'a Rc<ConnInfo>,
    /// Requests served before this busy period.
    pub(super) served: u32,
}

impl Scales {
    /// Whether anybody wants to know.
    #[inline]
    pub(super) fn on(&self) -> bool {
        self.users.get() > 0
    }

    /// Connections and their costs so far.
    pub(super) fn costs(&self) -> Vec<(Handle, u64)> {
        self.pans.borrow().iter().map(|(handle, pan)| (Handle(*handle), pan.cost())).collect()
    }

    /// Where there are too many, the lighter ones are forgotten. Not all are heavier than their mean.
    fn make_room(&self) {
        let mut pans = self.pans.borrow_mut();
        if pans.len() < limits::WEIGHED_MAX {
            return;
        }
        let mean = pans.values().map(Pan::cost).sum::<u64>() / pans.len() as u64;
        pans.retain(|_, pan| pan.cost() > mean);
    }
}

impl<N: Net> Core<N> {
    /// What the core has spent until now.
    pub(super) fn spent(&self) -> Spent {
        let net = &self.net;
        Spent { at_us: net.now_us(), cpu_us: net.cpu_us(), waited_us: net.waited_us() }
    }

    /// Begins to weigh, or goes on. Each begin has its end.
    pub(super) fn begin_to_weigh(&self) {
        let users = self.scales.users.get();
        if users == 0 {
            self.scales.pans.borrow_mut().clear();
            self.scales.began.set(self.spent());
        }
        self.scales.users.set(users + 1);
    }

    /// One who wanted to know does so.
    pub(super) fn end_to_weigh(&self) {
        self.scales.users.set(self.scales.users.get().saturating_sub(1));
        if !self.scales.on() {
            self.scales.pans.take();
        }
    }

    /// Microseconds for which it has been weighed.
    pub(super) fn weighed_us(&self) -> u64 {
        self.net.now_us().saturating_sub(self.scales.began.get().at_us)
    }

    /// Makes a call of a connection's task and weighs it.
    #[cold]
    pub(super) fn weigh<T>(&self, who: &Weighed<'_>, call: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let before = self.net.cpu_us();
        let result = call();
        let cpu_us = self.net.cpu_us().saturating_sub(before);
        self.scales.make_room();
        let mut pans = self.scales.pans.borrow_mut();
        let fresh = || Pan { info: who.info.clone(), served: 0, cluster: None, calls: 0, cpu_us: 0, longest_us: 0 };
        let pan = pans.entry(who.handle.0).or_insert_with(fresh);
        if !Rc::ptr_eq(&pan.info, who.info) {
            *pan = fresh();
        }
        pan.served = who.served;
        pan.calls += 1;
        pan.cpu_us += cpu_us;
        pan.longest_us = pan.longest_us.max(cpu_us);
        // Its exchange is there only while it runs; once is enough, and so is a look now and then.
        if result.is_pending() && (pan.cluster.is_none() && pan.calls < 8 || pan.calls.is_multiple_of(256)) {
            pan.cluster = self.slots.cluster_of(who.handle).or(pan.cluster);
        }
        result
    }

    /// The connections that cost most since somebody began to weigh.
    pub(super) fn hogs(&self) -> Hogs {
        let pans = self.scales.pans.borrow();
        let mut heaviest: Vec<(&i32, &Pan)> = pans.iter().collect();
        heaviest.sort_by_key(|(handle, pan)| (std::cmp::Reverse(pan.cost()), **handle));
        let (began, now) = (self.scales.began.get(), self.spent());
        let named = heaviest.iter().take(limits::WEIGHED_SHOWN).map(|(handle, pan)| Hog {
            listener: pan.info.listener,
            peer: pan.info.peer,
            cluster: pan.cluster,
            served: pan.served,
            carried: self.net.carried(Handle(**handle)),
            cost_us: pan.cost(),
            longest_us: pan.longest_us,
        });
        Hogs {
            core: self.index,
            took_us: now.at_us.saturating_sub(began.at_us),
            cpu_us: now.cpu_us.saturating_sub(began.cpu_us),
            waited_us: now.waited_us.saturating_sub(began.waited_us),
            longest_turn_us: self.net.turns().longest_us,
            connections: heaviest.len(),
            cost_us: heaviest.iter().map(|(_, pan)| pan.cost()).sum(),
            named: named.collect(),
        }
    }
}
