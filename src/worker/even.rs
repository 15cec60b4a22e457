//! What a core gives to another one by order of control: newcomers, and connections between two of their requests.

use super::Core;
use super::net::{Handle, Net};
use crate::cores::{self, Order};
use crate::limits;
use std::cell::{Cell, RefCell};

/// What is to be given away, to which core, and since which tick.
#[derive(Clone, Copy, Debug)]
struct Due {
    to: usize,
    /// Thousandths.
    part: u32,
    since: u32,
}

impl Due {
    fn is_over(&self, now: u32) -> bool {
        now > self.since + limits::EVEN_LASTS_TICKS
    }
}

/// The orders that are in force.
#[derive(Default)]
pub(super) struct Evening {
    newcomers: Cell<Option<Due>>,
    /// Thousandths of the next newcomer that are to be given away.
    next: Cell<u32>,
    work: Cell<Option<Due>>,
    /// What costs how much is being weighed.
    weighs: Cell<bool>,
    /// Connections that are to move, once they are between two requests.
    chosen: RefCell<Vec<Handle>>,
    any_chosen: Cell<bool>,
}

impl<N: Net> Core<N> {
    /// Control has said what to give away.
    pub(super) fn even(&self, order: Order) {
        if self.is_draining() {
            return;
        }
        let (to, since) = (order.to, self.slots.now());
        self.evening.newcomers.set((order.newcomers > 0).then_some(Due { to, part: order.newcomers, since }));
        if order.work > 0 {
            self.evening.work.set(Some(Due { to, part: order.work, since }));
            if !self.evening.weighs.replace(true) {
                self.begin_to_weigh();
            }
        }
    }

    /// One tick: chooses who is to move, when enough is known of them, and forgets what is too old.
    pub(super) fn tick_evening(&self, now: u32) {
        let evening = &self.evening;
        if evening.newcomers.get().is_some_and(|due| due.is_over(now)) {
            evening.newcomers.set(None);
        }
        let Some(due) = evening.work.get() else { return };
        if evening.weighs.get() && self.weighed_us() >= limits::WEIGH_US_MIN {
            let (who, costs): (Vec<Handle>, Vec<u64>) = self.scales.costs().into_iter().unzip();
            let chosen: Vec<Handle> = cores::choose(&costs, due.part).into_iter().map(|one| who[one]).collect();
            evening.any_chosen.set(!chosen.is_empty());
            evening.chosen.replace(chosen);
            self.stop_weighing();
        }
        if due.is_over(now) {
            self.keep_all();
        }
    }

    /// Gives nothing away any more.
    pub(super) fn keep_all(&self) {
        self.stop_weighing();
        self.evening.newcomers.set(None);
        self.evening.work.set(None);
        self.evening.any_chosen.set(false);
        self.evening.chosen.take();
    }

    fn stop_weighing(&self) {
        if self.evening.weighs.take() {
            self.end_to_weigh();
        }
    }

    /// Where the next newcomer goes, if it goes away.
    pub(super) fn newcomer_goes_to(&self) -> Option<usize> {
        let due = self.evening.newcomers.get()?;
        let next = self.evening.next.get() + due.part;
        self.evening.next.set(next % 1000);
        (next >= 1000).then_some(due.to)
    }

    /// Newcomers stay until there is another order: the other core has no room.
    pub(super) fn keep_newcomers(&self) {
        self.evening.newcomers.set(None);
    }

    /// Where a connection goes that is between two requests, if it was chosen to move.
    #[inline]
    pub(super) fn leaves_for(&self, handle: Handle) -> Option<usize> {
        if self.evening.any_chosen.get() { self.was_chosen(handle) } else { None }
    }

    #[cold]
    fn was_chosen(&self, handle: Handle) -> Option<usize> {
        let mut chosen = self.evening.chosen.borrow_mut();
        let at = chosen.iter().position(|one| *one == handle)?;
        chosen.swap_remove(at);
        self.evening.any_chosen.set(!chosen.is_empty());
        self.evening.work.get().map(|due| due.to)
    }
}
