//! Requests that wait for their turn: one queue per cluster and core, first come, first served.
//!
//! A request waits because its cluster is paused, because every backend that could take it has as many exchanges as it may,
//! or because others wait already. Its task sleeps; it holds its connection, its own buffer and nothing else. The first of
//! the queue is called when something has changed (a snapshot, a permit); called, it looks for a backend as if it had just
//! come, by the snapshot of that moment. If it finds one it leaves and calls the next, if there are chances left: so all go
//! on after a pause, one behind the other, and one goes on for each exchange that ends. If it finds none it stays the first.
//!
//! One that may not take every backend, since it has tried some, may find nothing where others would: then it calls the one
//! behind it, and those who come later do not wait for it.
//!
//! Each tick wakes all of them to look at their deadlines and clients, and gives the first one more chance.

use super::clusters::{LocalBackend, add};
use super::deadlines::SlotGuard;
use crate::route::waits::{WaitCell, Waits};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

/// As many chances as there are waiting requests, however many that are.
const ALL: u32 = u32::MAX;

/// Why a request has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its cluster is paused.
    Paused,
    /// Others are before it.
    Behind,
    /// All backends that could take it have as many as they may.
    Full,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It is worth looking again.
    Called,
    /// More came than may wait, and this one was the oldest.
    Ousted,
    /// It took too long.
    TooLong,
    /// The client has gone, or the drain is over.
    Cut,
}

/// The waiting requests of one cluster on one core; kept over reloads.
pub(super) struct Queue<S> {
    line: RefCell<VecDeque<Rc<Waiter>>>,
    /// How many they are: what every request of the cluster asks.
    len: Cell<usize>,
    /// Of those, the ones that may not take every backend.
    choosy: Cell<usize>,
    /// How many may look for a backend, one after the other.
    chances: Cell<u32>,
    /// Backends of which they want a permit.
    wanted: RefCell<Vec<Rc<LocalBackend<S>>>>,
    listed: Cell<bool>,
    waits: Arc<Waits>,
    core: usize,
}

#[derive(Default)]
struct Waiter {
    waker: Cell<Option<Waker>>,
    called: Cell<bool>,
    ousted: Cell<bool>,
    choosy: Cell<bool>,
}

impl Waiter {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn call(&self) {
        self.called.set(true);
        self.wake();
    }
}

impl<S> Queue<S> {
    /// With nobody in it.
    pub fn new(waits: Arc<Waits>, core: usize) -> Queue<S> {
        Queue {
            line: RefCell::default(),
            len: Cell::new(0),
            choosy: Cell::new(0),
            chances: Cell::new(0),
            wanted: RefCell::default(),
            listed: Cell::new(false),
            waits,
            core,
        }
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.get() == 0
    }

    /// Whether a request may look for a backend: nobody is before it who could take any.
    pub fn is_turn_of(&self, ticket: Option<&Ticket<S>>) -> bool {
        let line = self.line.borrow();
        let before = match ticket.filter(|ticket| std::ptr::eq(&*ticket.queue, self)) {
            None => return self.choosy.get() == self.len.get(),
            Some(ticket) => line.iter().take_while(|waiter| !Rc::ptr_eq(waiter, &ticket.waiter)),
        };
        before.into_iter().all(|waiter| waiter.choosy.get())
    }

    /// What is counted of it.
    pub fn cell(&self) -> &WaitCell {
        self.waits.core(self.core)
    }

    /// So many permits are there: as many requests may look for a backend.
    pub fn offer(&self, permits: u32) {
        self.chances.set(self.chances.get().saturating_add(permits));
        self.call_first();
    }

    /// A backend may have a permit for those who wait. Remembered, so that it is told when nobody waits any more.
    pub fn want(&self, backend: &Rc<LocalBackend<S>>) {
        self.wanted.borrow_mut().push(backend.clone());
    }

    /// Nobody wants a permit any more.
    pub fn stop_wanting(&self) {
        // Taken out first: what is given away may lead back here.
        let wanted = self.wanted.take();
        wanted.iter().for_each(|backend| backend.stop_wanting());
    }

    fn call_first(&self) {
        if self.chances.get() > 0
            && let Some(first) = self.line.borrow().front()
        {
            first.call();
        }
    }

    /// One that was called has found nothing.
    fn in_vain(&self, waiter: &Rc<Waiter>) {
        let line = self.line.borrow();
        let behind = line.iter().skip_while(|one| !Rc::ptr_eq(one, waiter)).nth(1);
        match behind.filter(|_| waiter.choosy.get()) {
            Some(next) => next.call(),
            None => self.chances.set(0),
        }
    }

    fn set_choosy(&self, waiter: &Waiter, choosy: bool) {
        self.choosy.set(self.choosy.get() - usize::from(waiter.choosy.replace(choosy)) + usize::from(choosy));
    }

    /// Takes one out of the line, wherever it stands.
    fn remove(&self, waiter: &Rc<Waiter>) {
        let mut line = self.line.borrow_mut();
        if let Some(at) = line.iter().position(|one| Rc::ptr_eq(one, waiter)) {
            line.remove(at);
        }
        self.len.set(line.len());
        drop(line);
        self.set_choosy(waiter, false);
        self.cell().waiting.store(self.len.get() as u32, Relaxed);
        if self.is_empty() {
            self.chances.set(0);
            self.stop_wanting();
        }
    }
}

/// A place in a queue; dropping it leaves the queue.
pub(super) struct Ticket<S> {
    queue: Rc<Queue<S>>,
    waiter: Rc<Waiter>,
    /// The tick from which it has waited for too long.
    until: u32,
    served: Cell<bool>,
}

impl<S> Ticket<S> {
    /// Whether it is one for this queue.
    pub fn is_of(&self, queue: &Rc<Queue<S>>) -> bool {
        Rc::ptr_eq(&self.queue, queue)
    }

    /// The tick from which it has waited for too long.
    pub fn until(&self) -> u32 {
        self.until
    }

    /// It was called, and stays.
    pub fn stay(&self, why: Why, choosy: bool) {
        self.queue.set_choosy(&self.waiter, choosy);
        if why != Why::Behind {
            self.queue.in_vain(&self.waiter);
        }
    }

    /// It has found a backend and leaves.
    pub fn serve(self) {
        self.served.set(true);
    }

    /// Waits; to be polled with the slot of its connection.
    pub fn poll(&self, slot: &SlotGuard, cx: &mut Context<'_>) -> Poll<Waited> {
        let waited = if self.waiter.ousted.get() {
            Waited::Ousted
        } else if slot.client_gone() || slot.drained() {
            Waited::Cut
        } else if slot.now() >= self.until {
            add(&self.queue.cell().timed_out, 1);
            Waited::TooLong
        } else if self.waiter.called.take() {
            Waited::Called
        } else {
            self.waiter.waker.set(Some(cx.waker().clone()));
            return Poll::Pending;
        };
        Poll::Ready(waited)
    }
}

impl<S> Drop for Ticket<S> {
    fn drop(&mut self) {
        if self.waiter.ousted.get() {
            return;
        }
        let queue = &self.queue;
        if self.served.get() && queue.chances.get() != ALL {
            queue.chances.set(queue.chances.get().saturating_sub(1));
        }
        queue.remove(&self.waiter);
        queue.call_first();
    }
}

/// The queues of one core in which somebody waits.
pub(super) struct Queues<S>(RefCell<Vec<Rc<Queue<S>>>>);

impl<S> Default for Queues<S> {
    fn default() -> Self {
        Queues(RefCell::default())
    }
}

impl<S> Queues<S> {
    /// Takes a place at the end of a queue that has room for `most`; without room the first is sent away.
    pub fn join(&self, queue: &Rc<Queue<S>>, most: usize, until: u32, choosy: bool) -> Ticket<S> {
        let waiter = Rc::new(Waiter::default());
        queue.line.borrow_mut().push_back(waiter.clone());
        queue.len.set(queue.len.get() + 1);
        queue.set_choosy(&waiter, choosy);
        add(&queue.cell().waited, 1);
        queue.cell().waiting.store(queue.len.get() as u32, Relaxed);
        while queue.len.get() > most.max(1) {
            let Some(oldest) = queue.line.borrow().front().cloned() else { break };
            oldest.ousted.set(true);
            add(&queue.cell().overflowed, 1);
            queue.remove(&oldest);
            oldest.wake();
            queue.call_first();
        }
        if !queue.listed.replace(true) {
            self.0.borrow_mut().push(queue.clone());
        }
        Ticket { queue: queue.clone(), waiter, until, served: Cell::new(false) }
    }

    /// There is another snapshot: whoever is first looks again; with another table all do, since they may have to go
    /// elsewhere.
    pub fn changed(&self, table: bool) {
        for queue in self.0.borrow().iter() {
            queue.offer(ALL);
            if table {
                queue.line.borrow().iter().for_each(|waiter| waiter.call());
            }
        }
    }

    /// A tick: all look at their deadlines and clients.
    pub fn tick(&self) {
        self.0.borrow_mut().retain(|queue| {
            queue.offer(ALL);
            queue.line.borrow().iter().for_each(|waiter| waiter.wake());
            queue.listed.set(!queue.is_empty());
            queue.listed.get()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::deadlines::Slots;
    use crate::worker::net::Handle;

    struct Bench {
        queue: Rc<Queue<()>>,
        queues: Queues<()>,
        slot: SlotGuard,
    }

    impl Bench {
        fn new() -> Bench {
            let queue = Rc::new(Queue::new(Arc::new(Waits::new(1)), 0));
            Bench { queue, queues: Queues::default(), slot: Rc::<Slots>::default().open(Handle(7)) }
        }
        fn join(&self, most: usize) -> Ticket<()> {
            self.queues.join(&self.queue, most, 10, false)
        }
        fn choosy(&self) -> Ticket<()> {
            self.queues.join(&self.queue, 100, 10, true)
        }
        fn poll(&self, ticket: &Ticket<()>) -> Option<Waited> {
            match ticket.poll(&self.slot, &mut Context::from_waker(Waker::noop())) {
                Poll::Ready(waited) => Some(waited),
                Poll::Pending => None,
            }
        }
        /// Which of them are called now.
        fn called(&self, tickets: &[&Ticket<()>]) -> Vec<bool> {
            tickets.iter().map(|ticket| self.poll(ticket) == Some(Waited::Called)).collect()
        }
    }

    #[test]
    fn one_permit_is_for_the_first_alone() {
        let b = Bench::new();
        let (first, second) = (b.join(9), b.join(9));
        assert_eq!(b.called(&[&first, &second]), [false, false]);
        b.queue.offer(1);
        assert_eq!(b.called(&[&first, &second]), [true, false]);
        assert!(b.queue.is_turn_of(Some(&first)) && !b.queue.is_turn_of(Some(&second)) && !b.queue.is_turn_of(None));
        first.serve();
        assert_eq!(b.called(&[&second]), [false]);
        assert!(b.queue.is_turn_of(Some(&second)));
        b.queue.offer(2);
        second.serve();
        assert!(b.queue.is_empty() && b.queue.is_turn_of(None));
        let third = b.join(9);
        assert_eq!(b.called(&[&third]), [false], "chances end with the queue");
    }

    #[test]
    fn after_a_change_each_calls_the_next() {
        let b = Bench::new();
        let [first, second, third] = [b.join(9), b.join(9), b.join(9)];
        b.queues.changed(false);
        assert_eq!(b.called(&[&first, &second, &third]), [true, false, false]);
        first.serve();
        assert_eq!(b.called(&[&second, &third]), [true, false]);
        // It finds nothing: it stays the first, and calls nobody.
        second.stay(Why::Full, false);
        assert_eq!(b.called(&[&second, &third]), [false, false]);
        b.queue.offer(1);
        assert_eq!(b.called(&[&second, &third]), [true, false]);
        drop(second);
        assert_eq!(b.called(&[&third]), [true], "the chance of one that goes away is the next one's");
    }

    #[test]
    fn another_table_is_for_all() {
        let b = Bench::new();
        let (first, second) = (b.join(9), b.join(9));
        b.queues.changed(true);
        assert_eq!(b.called(&[&first, &second]), [true, true]);
        second.stay(Why::Behind, false);
        first.serve();
        assert_eq!(b.called(&[&second]), [true]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let b = Bench::new();
        let (first, second, third) = (b.join(2), b.join(2), b.join(2));
        assert_eq!(b.poll(&first), Some(Waited::Ousted));
        assert_eq!((b.poll(&second), b.poll(&third)), (None, None));
        drop(first);
        assert!(b.queue.is_turn_of(Some(&second)));
        let cell = b.queue.cell();
        let counts = [&cell.waited, &cell.overflowed, &cell.timed_out].map(|count| count.load(Relaxed));
        assert_eq!((counts, cell.waiting.load(Relaxed)), ([3, 1, 0], 2));
        drop((second, third));
        assert_eq!(cell.waiting.load(Relaxed), 0);
    }

    #[test]
    fn the_chance_of_one_that_is_sent_away_is_the_next_ones() {
        let b = Bench::new();
        let (first, second) = (b.join(2), b.join(2));
        b.queue.offer(1);
        let third = b.join(2);
        assert_eq!(b.poll(&first), Some(Waited::Ousted));
        assert_eq!(b.called(&[&second, &third]), [true, false]);
    }

    #[test]
    fn a_choosy_one_holds_up_nobody() {
        let b = Bench::new();
        let (first, second) = (b.choosy(), b.join(9));
        assert!(b.queue.is_turn_of(Some(&second)) && !b.queue.is_turn_of(None));
        b.queue.offer(1);
        assert_eq!(b.called(&[&first, &second]), [true, false]);
        first.stay(Why::Full, true);
        assert_eq!(b.called(&[&first, &second]), [false, true]);
        second.serve();
        assert!(b.queue.is_turn_of(None), "a newcomer need not wait behind it");
        first.stay(Why::Full, false);
        assert!(!b.queue.is_turn_of(None));
    }

    #[test]
    fn time_and_the_end_of_the_client_end_a_wait() {
        let b = Bench::new();
        let short = b.queues.join(&b.queue, 9, 0, false);
        assert_eq!(b.poll(&short), Some(Waited::TooLong));
        let long = b.join(9);
        b.slot.lose_client();
        assert_eq!(b.poll(&long), Some(Waited::Cut));
    }

    #[test]
    fn ticks_forget_queues_without_anybody() {
        let b = Bench::new();
        let ticket = b.join(9);
        b.queues.tick();
        assert_eq!((b.queues.0.borrow().len(), b.called(&[&ticket])), (1, vec![true]));
        drop(ticket);
        b.queues.tick();
        assert_eq!(b.queues.0.borrow().len(), 0);
        let again = b.join(9);
        b.queues.changed(false);
        assert_eq!(b.called(&[&again]), [true]);
    }
}
