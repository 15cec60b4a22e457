//! Permits of an endpoint that may have only so many exchanges at once, over all cores: lent to the cores, never shared.
//!
//! A core borrows a few permits from [`Permits`], uses them for its exchanges, and keeps some in store, so that most
//! exchanges touch nothing that other cores do. One that finds none left says that it wants one ([`Lease::want`]). Whoever
//! gives a permit up while somebody wants one hands it over: it goes from core to core and is never free in between, so
//! that no newcomer takes it from whoever waits. Cores that want one get theirs in turn.
//!
//! The sum of what all cores hold is [`Permits::lent`]; new ones are lent only up to the limit. So whatever the cores do at
//! the same time, never more exchanges are under way than the limit says. After a reload the limit holds as each core takes
//! it over: what is over a lower limit is given up as exchanges end; exchanges that began without a limit count in.
//!
//! No lost wake-up: a core says that it wants one and then looks once more at what can be lent; a core that returns permits
//! looks afterwards who wants one (both sequentially consistent). What others keep in store they do not look at again by
//! themselves: whoever wants one rings them, and they answer with [`Lease::look`].

use super::health::Cells;
use crate::limits::PERMITS_SPARE_MAX;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};

/// What all cores know of one endpoint's permits; part of its [`Cells`], so kept over reloads.
#[derive(Debug, Default)]
pub struct Permits {
    /// Permits that cores hold, in use or in store, or that were handed over and not taken in yet.
    lent: AtomicU32,
    /// Cores that want one: a hint that spares looking at each of them.
    wanting: AtomicU32,
    seats: OnceLock<Box<[Seat]>>,
}

/// One core's part of them.
#[derive(Debug, Default)]
struct Seat {
    /// [`WANTS`], and the number of permits that others have handed over.
    mail: AtomicU32,
    /// It has a limit: all of its exchanges have permits.
    limited: AtomicBool,
}

/// In [`Seat::mail`]: the core wants a permit.
const WANTS: u32 = 1 << 31;

impl Permits {
    fn seats(&self, cores: usize) -> &[Seat] {
        self.seats.get_or_init(|| (0..cores).map(|_| Seat::default()).collect())
    }

    /// Hands a permit to the next core in turn behind `after` that wants one; which one that is. `own` is the core that
    /// asks: it gets nothing by mail, but is named in its turn.
    fn hand_over(&self, after: usize, own: usize) -> Option<usize> {
        let seats = self.seats.get()?;
        (1..=seats.len()).map(|step| (after + step) % seats.len()).find(|core| {
            let add = |mail: u32| (mail & WANTS != 0).then_some(if *core == own { mail } else { mail + 1 });
            // A look first: a write to each would take the line from its owner.
            seats[*core].mail.load(SeqCst) & WANTS != 0 && seats[*core].mail.fetch_update(SeqCst, SeqCst, add).is_ok()
        })
    }

    /// Whether any core wants one.
    fn anyone_wants(&self) -> bool {
        let seats = self.seats.get().map_or(&[][..], |seats| seats);
        seats.iter().any(|seat| seat.mail.load(SeqCst) & WANTS != 0)
    }

    /// Lends up to `most`, as far as the limit and those who have none leave any. Returns how many.
    fn lend(&self, most: u32, limit: u32, cells: &Cells) -> u32 {
        let mut lent = self.lent.load(SeqCst);
        loop {
            let count = limit.saturating_sub(lent).saturating_sub(self.without(cells)).min(most);
            if count == 0 {
                return 0;
            }
            match self.lent.compare_exchange_weak(lent, lent + count, SeqCst, SeqCst) {
                Ok(_) => return count,
                Err(now) => lent = now,
            }
        }
    }

    /// Exchanges of cores that have not taken over yet that there is a limit: they have no permits.
    fn without(&self, cells: &Cells) -> u32 {
        let seats = self.seats.get().map_or(&[][..], |seats| seats);
        let all = cells.all().iter().zip(seats).filter(|(_, seat)| !seat.limited.load(Acquire));
        all.fold(0, |sum, (cell, _)| sum.saturating_add(cell.in_flight.load(Relaxed)))
    }
}

/// One core's hold on the permits of an endpoint. `cells` is always that endpoint's.
#[derive(Debug)]
pub struct Lease {
    core: usize,
    /// Exchanges that all cores may have; 0 is no limit.
    limit: Cell<u32>,
    /// Permits that this core holds.
    held: Cell<u32>,
    /// Of those, in use.
    used: Cell<u32>,
    /// This core has said that it wants one.
    wants: Cell<bool>,
    /// Whom it has handed one to last.
    last: Cell<usize>,
}

impl Lease {
    /// Without a limit.
    pub fn new(core: usize) -> Lease {
        let (limit, held, used) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Lease { core, limit, held, used, wants: Cell::new(false), last: Cell::new(core) }
    }

    /// Whether there is a limit.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.limit.get() != 0
    }

    /// Whether this core has said that it wants one.
    pub fn wants(&self) -> bool {
        self.wants.get()
    }

    /// Whether cores keep permits in store: then whoever wants one has to ring them.
    pub fn is_stored(&self, cells: &Cells) -> bool {
        self.store(cells) > 0
    }

    /// The limit is (no longer, or another) one. Exchanges of this core that are under way keep going.
    pub fn renew(&self, limit: u32, cells: &Cells, ring: &mut dyn FnMut(usize)) {
        let before = self.limit.replace(limit);
        if before == limit {
            return;
        }
        let seat = &cells.permits.seats(cells.cores())[self.core];
        if before == 0 {
            let under_way = cells.core(self.core).in_flight.load(Relaxed);
            cells.permits.lent.fetch_add(under_way, SeqCst);
            self.held.set(under_way);
            self.used.set(under_way);
            seat.limited.store(true, Release);
        } else if limit == 0 {
            self.stop_wanting(cells);
            seat.limited.store(false, Release);
            cells.permits.lent.fetch_sub(self.held.take(), SeqCst);
            self.used.set(0);
        } else {
            self.trim(cells);
            self.give(cells, ring);
        }
    }

    /// Takes a permit for an exchange; `false` if there is none, or if others were here first.
    #[inline]
    pub fn take(&self, cells: &Cells) -> bool {
        if self.used.get() < self.held.get() || self.borrow(cells) {
            self.used.set(self.used.get() + 1);
            return true;
        }
        false
    }

    /// Says that this core wants a permit, and takes one if there is one after all. It is handed one when its turn comes;
    /// until [`Lease::stop_wanting`].
    pub fn want(&self, cells: &Cells) -> bool {
        if !self.wants.replace(true) {
            cells.permits.seats(cells.cores())[self.core].mail.fetch_or(WANTS, SeqCst);
            cells.permits.wanting.fetch_add(1, SeqCst);
        }
        self.take(cells)
    }

    /// It wants none any more. What it has in store then is for [`Lease::give`].
    pub fn stop_wanting(&self, cells: &Cells) {
        if self.wants.replace(false) {
            // In one step, so that nothing is handed over behind it.
            let mail = cells.permits.seats(cells.cores())[self.core].mail.swap(0, SeqCst);
            cells.permits.wanting.fetch_sub(1, SeqCst);
            self.held.set(self.held.get() + (mail & !WANTS));
            self.trim(cells);
        }
    }

    /// An exchange has ended. Returns how many permits are there for own requests that wait.
    #[inline]
    pub fn end(&self, cells: &Cells, ring: &mut dyn FnMut(usize)) -> u32 {
        self.used.set(self.used.get() - 1);
        if cells.permits.wanting.load(Relaxed) == 0 && self.spare() <= 2 * self.store(cells) {
            return 0;
        }
        self.give(cells, ring)
    }

    /// Takes in what others have handed over, and gives those who want one what is in store. Returns how many permits are
    /// there for own requests that wait. To be called when the core is rung.
    pub fn look(&self, cells: &Cells, ring: &mut dyn FnMut(usize)) -> u32 {
        if !self.is_limited() {
            return 0;
        }
        let kept = self.spare();
        let own = if kept > 0 { self.give(cells, ring) } else { 0 };
        // What is handed over is for own requests: it is not handed on.
        own + self.take_in(cells)
    }

    /// Gives permits that are not in use to those who want one, in turn, and returns what need not be in store. Returns how
    /// many were this core's own turn. `ring` gets the cores that were given one.
    pub fn give(&self, cells: &Cells, ring: &mut dyn FnMut(usize)) -> u32 {
        let permits = &cells.permits;
        let mut own = 0;
        self.trim(cells);
        while self.spare() > own {
            match permits.hand_over(self.last.get(), self.core) {
                Some(core) => {
                    self.last.set(core);
                    if core == self.core {
                        own += 1;
                    } else {
                        self.held.set(self.held.get() - 1);
                        ring(core);
                    }
                }
                None => {
                    let back = (self.spare() - own).saturating_sub(self.store(cells));
                    self.held.set(self.held.get() - back);
                    permits.lent.fetch_sub(back, SeqCst);
                    // Whoever began to want one meanwhile may have looked before this was back.
                    if back == 0 || !permits.anyone_wants() {
                        break;
                    }
                    let again = permits.lend(1, self.limit.get(), cells);
                    self.held.set(self.held.get() + again);
                    if again == 0 {
                        break;
                    }
                }
            }
        }
        own
    }

    fn spare(&self) -> u32 {
        // Exchanges that began when there was no limit and end when there is one again.
        self.held.get().saturating_sub(self.used.get())
    }

    /// Permits that this core may keep in store: none where there are few for each core.
    fn store(&self, cells: &Cells) -> u32 {
        (self.limit.get() / (4 * cells.cores() as u32).max(1)).min(PERMITS_SPARE_MAX)
    }

    /// Gives up permits in store that are over a lowered limit.
    fn trim(&self, cells: &Cells) {
        let over = |lent: u32| (lent > self.limit.get()).then(|| lent - 1);
        while self.spare() > 0 && cells.permits.lent.fetch_update(SeqCst, SeqCst, over).is_ok() {
            self.held.set(self.held.get() - 1);
        }
    }

    fn take_in(&self, cells: &Cells) -> u32 {
        let mail = &cells.permits.seats(cells.cores())[self.core].mail;
        if mail.load(Relaxed) & !WANTS == 0 {
            return 0;
        }
        let before = self.spare();
        self.held.set(self.held.get() + (mail.fetch_and(WANTS, SeqCst) & !WANTS));
        self.trim(cells);
        self.spare().saturating_sub(before)
    }

    #[cold]
    fn borrow(&self, cells: &Cells) -> bool {
        self.take_in(cells);
        if self.spare() == 0 {
            let others_wait = cells.permits.wanting.load(SeqCst) > 0;
            if others_wait && !self.wants.get() {
                return false;
            }
            let batch = if others_wait { 1 } else { self.store(cells).max(1) };
            let count = cells.permits.lend(batch, self.limit.get(), cells);
            self.held.set(self.held.get() + count);
        }
        self.spare() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    /// Cores in one thread: rings are remembered.
    struct Bench {
        cells: Cells,
        leases: Vec<Lease>,
        rung: Vec<usize>,
    }

    impl Bench {
        fn new(cores: usize, limit: u32) -> Bench {
            let cells = Cells::new(cores);
            let leases: Vec<Lease> = (0..cores).map(Lease::new).collect();
            leases.iter().for_each(|lease| lease.renew(limit, &cells, &mut |_| {}));
            Bench { cells, leases, rung: Vec::new() }
        }
        fn take(&self, core: usize) -> bool {
            let taken = self.leases[core].take(&self.cells);
            self.began(core, taken)
        }
        fn want(&self, core: usize) -> bool {
            let taken = self.leases[core].want(&self.cells);
            self.began(core, taken)
        }
        fn began(&self, core: usize, taken: bool) -> bool {
            self.cells.core(core).in_flight.fetch_add(u32::from(taken), Relaxed);
            taken
        }
        fn end(&mut self, core: usize) -> u32 {
            self.cells.core(core).in_flight.fetch_sub(1, Relaxed);
            if !self.leases[core].is_limited() {
                return 0;
            }
            self.leases[core].end(&self.cells, &mut |core| self.rung.push(core))
        }
        fn look(&mut self, core: usize) -> u32 {
            self.leases[core].look(&self.cells, &mut |core| self.rung.push(core))
        }
        fn renew(&mut self, core: usize, limit: u32) {
            self.leases[core].renew(limit, &self.cells, &mut |core| self.rung.push(core));
        }
        fn lent(&self) -> u32 {
            self.cells.permits.lent.load(Relaxed)
        }
        fn in_flight(&self) -> u32 {
            self.cells.all().iter().map(|cell| cell.in_flight.load(Relaxed)).sum()
        }
    }

    #[test]
    fn one_permit_for_three_cores_goes_round_to_those_who_want_it() {
        let mut b = Bench::new(3, 1);
        assert!(b.take(0) && !b.take(0) && !b.take(1));
        assert!(!b.want(1) && !b.want(2) && !b.want(0));
        assert_eq!(b.end(0), 0);
        assert_eq!(b.rung, [1]);
        // Core 0 comes again, before core 1 has heard: the permit is not there for it.
        assert!(!b.take(0));
        assert_eq!(b.look(1), 1);
        assert!(b.take(1));
        assert_eq!((b.end(1), b.rung.pop()), (0, Some(2)));
        assert!(b.look(2) == 1 && b.take(2));
        assert_eq!((b.end(2), b.rung.pop()), (0, Some(0)));
        assert!(b.look(0) == 1 && b.take(0));
        b.leases.iter().for_each(|lease| lease.stop_wanting(&b.cells));
        assert_eq!((b.end(0), b.lent()), (0, 0));
    }

    #[test]
    fn a_core_alone_serves_itself() {
        let mut b = Bench::new(1, 2);
        assert!(b.take(0) && b.take(0) && !b.want(0));
        assert_eq!(b.end(0), 1);
        assert!(b.take(0));
        b.leases[0].stop_wanting(&b.cells);
        assert_eq!((b.end(0), b.end(0), b.lent()), (0, 0, 0));
    }

    #[test]
    fn a_newcomer_does_not_pass_those_who_wait_elsewhere() {
        let mut b = Bench::new(2, 2);
        assert!(b.take(0) && b.take(0) && !b.want(1));
        b.end(0);
        b.end(0);
        assert_eq!(b.rung, [1, 1]);
        assert!(!b.take(0));
        assert_eq!(b.look(1), 2);
    }

    #[test]
    fn what_is_in_store_is_given_when_rung() {
        let mut b = Bench::new(2, 160);
        assert!(b.take(0));
        assert_eq!(b.lent(), PERMITS_SPARE_MAX);
        let mut taken = 1;
        while b.take(1) {
            taken += 1;
        }
        // Core 0 holds 15 that it does not use.
        assert_eq!(taken, 160 - 15);
        assert!(b.leases[1].is_stored(&b.cells) && !b.want(1));
        assert_eq!(b.look(0), 0);
        assert_eq!(b.look(1), 15);
        assert!((0..15).all(|_| b.take(1)));
        assert!(!b.take(1) && b.in_flight() == 160);
    }

    #[test]
    fn a_lower_limit_is_reached_as_exchanges_end() {
        let mut b = Bench::new(2, 40);
        (0..20).for_each(|_| assert!(b.take(0) && b.take(1)));
        b.renew(0, 10);
        assert!(!b.take(0));
        (0..15).for_each(|_| assert_eq!((b.end(0), b.end(1)), (0, 0)));
        // Core 1 has not heard of it and keeps its store, which core 0 counts.
        assert!(!b.take(0) || b.in_flight() <= 40);
        b.renew(1, 10);
        (0..5).for_each(|_| assert_eq!((b.end(0), b.end(1)), (0, 0)));
        let taken = (0..40).filter(|i| b.take(i % 2)).count();
        assert!(taken <= 10 && b.lent() <= 10, "{taken} {}", b.lent());
    }

    #[test]
    fn permits_handed_over_before_the_limit_fell_are_given_up() {
        let mut b = Bench::new(2, 160);
        assert!(b.take(0));
        while b.take(1) {}
        b.renew(1, 2);
        assert!(!b.want(1));
        b.look(0);
        assert_eq!(b.look(1), 0, "core 0 still goes by 160");
        assert!(!b.take(1));
    }

    #[test]
    fn exchanges_that_began_without_a_limit_count() {
        let mut b = Bench::new(2, 0);
        for core in [0, 1, 1] {
            b.cells.core(core).in_flight.fetch_add(1, Relaxed);
        }
        b.renew(0, 3);
        assert!(!b.take(0), "core 1 has two that have no permit");
        b.renew(1, 3);
        assert!(b.lent() == 3 && !b.take(0) && !b.take(1));
        b.end(1);
        assert!(b.take(0) && !b.take(1));
        b.renew(0, 0);
        b.renew(1, 0);
        assert_eq!((b.lent(), b.in_flight()), (0, 3));
        // And a limit again, with all of them under way.
        b.renew(1, 1);
        assert!(!b.take(1));
        b.end(1);
        assert!(!b.take(1));
    }

    proptest! {
        /// Any order of events on any cores: never more under way than the limit, and nothing is lost.
        #[test]
        fn never_more_than_the_limit(
            cores in 1usize..5,
            limit in 1u32..70,
            steps in prop::collection::vec((0usize..5, 0u8..5), 1..400),
        ) {
            let mut b = Bench::new(cores, limit);
            for (core, what) in steps {
                let core = core % cores;
                match what {
                    0 => drop(b.take(core)),
                    1 => drop(b.want(core)),
                    2 if b.cells.core(core).in_flight.load(Relaxed) > 0 => drop(b.end(core)),
                    3 => {
                        b.leases[core].stop_wanting(&b.cells);
                        b.leases[core].give(&b.cells, &mut |core| b.rung.push(core));
                    }
                    _ => drop(b.look(core)),
                }
                prop_assert!(b.in_flight() <= limit && b.lent() <= limit);
                prop_assert!(b.in_flight() <= b.lent());
            }
            for core in 0..cores {
                while b.cells.core(core).in_flight.load(Relaxed) > 0 {
                    b.end(core);
                }
                b.leases[core].stop_wanting(&b.cells);
                b.leases[core].give(&b.cells, &mut |_| {});
            }
            // All of them can be had again, by any core, if the others give what they have in store.
            b.want(0);
            (0..cores).for_each(|core| { b.look(core); });
            b.look(0);
            let more = (0..limit).filter(|_| b.take(0)).count() as u32;
            prop_assert!(b.in_flight() == limit, "{more} more, {} in flight, {} lent", b.in_flight(), b.lent());
        }
    }

    /// Threads that take, hold and end as fast as they can, and ring each other: never more than the limit, everybody gets
    /// theirs, and nobody waits for ever.
    #[test]
    fn threads_never_exceed_it_and_nobody_starves() {
        const CORES: usize = 3;
        const ROUNDS: u64 = 3_000;
        for limit in [1, 2, 3, 40] {
            let cells = Arc::new(Cells::new(CORES));
            let now = Arc::new(AtomicU64::new(0));
            let bells: Arc<[AtomicBool]> = (0..CORES).map(|_| AtomicBool::new(false)).collect();
            let done = Arc::new(AtomicU32::new(0));
            std::thread::scope(|scope| {
                for core in 0..CORES {
                    let (cells, now, bells, done) = (cells.clone(), now.clone(), bells.clone(), done.clone());
                    scope.spawn(move || {
                        let lease = Lease::new(core);
                        let mut ring = |core: usize| bells[core].store(true, SeqCst);
                        lease.renew(limit, &cells, &mut ring);
                        let (mut rounds, mut mine) = (0, 0u64);
                        let begin = std::time::Instant::now();
                        while rounds < ROUNDS || done.load(SeqCst) < CORES as u32 {
                            assert!(begin.elapsed().as_secs() < 60, "core {core} waits for ever after {rounds} rounds");
                            if bells[core].swap(false, SeqCst) {
                                lease.look(&cells, &mut ring);
                            }
                            if rounds < ROUNDS {
                                if lease.take(&cells) || lease.want(&cells) {
                                    lease.stop_wanting(&cells);
                                    let others = now.fetch_add(1, SeqCst);
                                    assert!(others < u64::from(limit), "{} under way", others + 1);
                                    (mine, rounds) = (mine + 1, rounds + 1);
                                    if rounds == ROUNDS {
                                        done.fetch_add(1, SeqCst);
                                    }
                                } else if lease.is_stored(&cells) {
                                    (0..CORES).filter(|other| *other != core).for_each(&mut ring);
                                }
                            }
                            if mine > 0 && (rounds % 3 == 0 || mine > 2 || rounds == ROUNDS || lease.wants()) {
                                now.fetch_sub(1, SeqCst);
                                mine -= 1;
                                lease.end(&cells, &mut ring);
                            }
                            if mine == 0 {
                                std::thread::yield_now();
                            }
                        }
                        lease.stop_wanting(&cells);
                        while mine > 0 {
                            now.fetch_sub(1, SeqCst);
                            mine -= 1;
                            lease.end(&cells, &mut ring);
                        }
                        lease.give(&cells, &mut ring);
                    });
                }
            });
            let store = (limit / (4 * CORES as u32)).min(PERMITS_SPARE_MAX);
            assert!(cells.permits.lent.load(SeqCst) <= store * CORES as u32);
        }
    }
}
