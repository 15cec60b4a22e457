//! Turns of the event loop: how long each was, and how much may be done in one.
//!
//! A turn begins when the loop comes back from the kernel with what has completed, and ends when it goes there again. What
//! completes meanwhile is not seen and, on the ring, what was sent meanwhile is not yet sent: so a turn is kept short,
//! however many connections can go on at once. Each operation that ends costs something ([`spend`]), for what it lets the
//! kernel do later; when `limits::TURN_BUDGET` is used up, or `limits::TURN_US` have passed, tasks stand in line for one of
//! the next turns ([`next`]): those with little to do in one line, those with much in another, so that nobody has to wait
//! until a hundred large bodies have got on, and those whose head comes in pieces in a third.
//!
//! The runtime has no hook for this, but it polls its main future after the tasks of a turn if something has woken it. So
//! that future does nothing but end turns ([`watched`]), and the first operation that ends in a turn wakes it ([`begin`]).

use super::os::{clock_us, cpu_us};
use crate::event::{TURN_BOUNDS_US, TurnTimes};
use crate::limits;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// No operation has ended in this turn.
const FRESH: i32 = i32::MAX;
/// What is spent between two looks at the clock.
const PORTION: i32 = 8 * limits::TURN_OPERATION;

thread_local! {
    /// What is left of the portion that is being spent, or FRESH. By itself, since every operation looks at it.
    static LEFT: Cell<i32> = const { Cell::new(FRESH) };
    static TURNS: Turns = const { Turns::new() };
}

/// How much is behind an operation that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Light,
    Heavy,
    /// Little, but of something that came in pieces before: whoever came whole goes first.
    Slow,
}

impl Weight {
    /// By the bytes that it might have moved.
    pub(super) fn of(bytes: usize) -> Weight {
        if bytes < limits::TURN_HEAVY { Weight::Light } else { Weight::Heavy }
    }
}

type Line = VecDeque<(u64, Waker)>;

/// One core's turns.
struct Turns {
    /// Wakes the runtime's main future.
    main: RefCell<Option<Waker>>,
    /// What is left of the turn's budget beside the portion that is being spent.
    budget: Cell<i32>,
    /// Those that wait for a turn with room, by [`Weight`]: in order, with the numbers that they took.
    lines: [RefCell<Line>; 3],
    /// The last number taken, and the last of those that this turn is open for.
    latest: Cell<u64>,
    called: Cell<u64>,
    /// The heavy one that goes on however long the turn has lasted.
    first_heavy: Cell<u64>,
    /// Those that wait for the next turn, whatever room it has.
    chores: RefCell<Vec<Waker>>,
    turn: Cell<u64>,
    /// How many all these are.
    standing: Cell<usize>,
    meter: RefCell<Meter>,
}

/// Measures turns by the CPU time of the thread: waiting costs none, work in the kernel does, and what the machine gives
/// to others meanwhile is not this loop's doing. Asking for it is a system call, so that is done once per
/// `limits::TURN_RESOLUTION_US` at most: a turn shorter than that falls into the first bucket whatever it was, and one
/// that is longer can be shown too long by that.
struct Meter {
    /// When the turn began; 0 before the first one.
    began_us: u64,
    /// When the CPU time was last asked for, and what it was.
    read_at_us: u64,
    read_us: u64,
    times: TurnTimes,
}

impl Meter {
    const fn new() -> Meter {
        let times = TurnTimes { buckets: [0; TURN_BOUNDS_US.len() + 1], sum_us: 0, longest_us: 0 };
        Meter { began_us: 0, read_at_us: 0, read_us: 0, times }
    }

    /// A turn begins, and the one before it has ended. `cpu_us` is asked only where it matters.
    fn turn(&mut self, now_us: u64, cpu_us: impl FnOnce() -> u64) {
        if now_us.saturating_sub(self.read_at_us) < limits::TURN_RESOLUTION_US {
            self.times.buckets[0] += 1;
        } else {
            let cpu_us = cpu_us();
            if self.began_us > 0 {
                let passed = now_us.saturating_sub(self.began_us);
                let ran = cpu_us.saturating_sub(self.read_us);
                self.enter(ran.min(passed));
                // All that the thread did was done in turns.
                self.times.sum_us += ran;
            }
            (self.read_at_us, self.read_us) = (now_us, cpu_us);
        }
        self.began_us = now_us;
    }

    fn enter(&mut self, us: u64) {
        let bucket = TURN_BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(TURN_BOUNDS_US.len());
        self.times.buckets[bucket] += 1;
        self.times.longest_us = self.times.longest_us.max(us);
    }
}

impl Turns {
    const fn new() -> Turns {
        Turns {
            main: RefCell::new(None),
            budget: Cell::new(0),
            lines: [const { RefCell::new(VecDeque::new()) }; 3],
            latest: Cell::new(0),
            called: Cell::new(0),
            first_heavy: Cell::new(0),
            chores: RefCell::new(Vec::new()),
            turn: Cell::new(0),
            standing: Cell::new(0),
            meter: RefCell::new(Meter::new()),
        }
    }

    fn lasts_us(&self) -> u64 {
        clock_us().saturating_sub(self.meter.borrow().began_us)
    }

    fn wake_main(&self) {
        if let Some(main) = &*self.main.borrow() {
            main.wake_by_ref();
        }
    }

    /// Opens the next turn for all that stand in line, and wakes as many as can go on in it if they need little.
    fn end(&self) {
        LEFT.set(FRESH);
        self.turn.set(self.turn.get() + 1);
        if self.standing.get() > 0 {
            self.call();
        }
    }

    #[cold]
    fn call(&self) {
        self.standing.set(self.standing.get() - self.chores.borrow().len());
        self.chores.borrow_mut().drain(..).for_each(Waker::wake);
        self.called.set(self.latest.get());
        let [light, heavy, slow] = self.lines.each_ref().map(RefCell::borrow);
        self.first_heavy.set(heavy.front().map_or(0, |(number, _)| *number));
        let (light_first, slow_first) = (limits::TURN_LIGHT_FIRST, limits::TURN_SLOW_FIRST);
        let called = light
            .iter()
            .take(light_first)
            .chain(heavy.iter().take(1))
            .chain(slow.iter().take(slow_first))
            .chain(light.iter().skip(light_first).take(limits::TURN_CALLED - light_first))
            .chain(heavy.iter().skip(1).take(limits::TURN_HEAVY_LAST))
            .chain(slow.iter().skip(slow_first).take(limits::TURN_SLOW_LAST));
        called.for_each(|(_, waker)| waker.wake_by_ref());
    }
}

/// Runs a core's future as a task, in a runtime's main future that ends the turns.
pub(super) async fn watched<F: Future<Output: 'static> + 'static>(core: F) -> F::Output {
    TURNS.with(|turns| turns.meter.replace(Meter::new()));
    let ended = Rc::new(Cell::new(None));
    let output = ended.clone();
    drop(monoio::spawn(async move {
        output.set(Some(core.await));
        TURNS.with(Turns::wake_main);
    }));
    poll_fn(|cx| {
        TURNS.with(|turns| {
            turns.main.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            turns.end();
        });
        ended.take().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Counts an operation that has ended, and the bytes it copied. `true`: the budget of this turn is used up, and whatever
/// comes next should wait for the [`next`] one.
#[inline]
pub(super) fn spend(bytes: usize) -> bool {
    LEFT.with(|left| {
        let mut now = left.get();
        if now == FRESH {
            now = begin();
        }
        now -= limits::TURN_OPERATION + (bytes / limits::TURN_BYTES_PER_UNIT) as i32;
        left.set(now);
        now < 0 && is_over()
    })
}

/// Of the turn that is running.
#[inline]
pub(super) fn number() -> u64 {
    TURNS.with(|turns| turns.turn.get())
}

/// Something was done that may have taken long: the clock is looked at when the next operation ends.
pub(super) fn look() {
    LEFT.with(|left| {
        let now = left.get();
        if now != FRESH {
            TURNS.with(|turns| turns.budget.set(turns.budget.get() + now));
            left.set(0);
        }
    });
}

/// A portion has been spent, and perhaps more: whether that was the last one of this turn.
#[cold]
fn is_over() -> bool {
    TURNS.with(|turns| {
        let budget = turns.budget.get() + LEFT.replace(0);
        let over = budget <= 0 || turns.lasts_us() >= limits::TURN_US;
        if over {
            turns.budget.set(0);
        } else {
            turns.budget.set(budget - PORTION);
            LEFT.set(PORTION);
        }
        over
    })
}

#[cold]
fn begin() -> i32 {
    TURNS.with(|turns| {
        turns.meter.borrow_mut().turn(clock_us(), cpu_us);
        turns.wake_main();
        turns.budget.set(limits::TURN_BUDGET - PORTION);
    });
    PORTION
}

/// A place in a line of those that wait: its number, 0 before it is taken and after it is left.
struct Place {
    number: u64,
    weight: Weight,
}

impl Place {
    fn poll(&mut self, turns: &Turns, waker: &Waker) -> Poll<()> {
        if self.number == 0 {
            self.number = turns.latest.get() + 1;
            turns.latest.set(self.number);
            turns.lines[self.weight as usize].borrow_mut().push_back((self.number, waker.clone()));
            turns.standing.set(turns.standing.get() + 1);
            // Somebody has to end this turn, even if no operation ends in it.
            spend(0);
            return Poll::Pending;
        }
        if spend(0) || self.number > turns.called.get() || self.is_too_much(turns) {
            self.entry(turns, |line, at| line[at].1.clone_from(waker));
            return Poll::Pending;
        }
        self.leave(turns);
        Poll::Ready(())
    }

    /// What is heavy takes long whatever comes of it, so all but the first one go on only in a turn that is young.
    fn is_too_much(&self, turns: &Turns) -> bool {
        self.weight == Weight::Heavy
            && self.number != turns.first_heavy.get()
            && turns.lasts_us() > limits::TURN_HEAVY_US
    }

    fn entry(&self, turns: &Turns, change: impl FnOnce(&mut Line, usize)) {
        let mut line = turns.lines[self.weight as usize].borrow_mut();
        if let Ok(at) = line.binary_search_by_key(&self.number, |(number, _)| *number) {
            change(&mut line, at);
        }
    }

    fn leave(&mut self, turns: &Turns) {
        self.entry(turns, |line, at| drop(line.remove(at)));
        turns.standing.set(turns.standing.get() - 1);
        self.number = 0;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.number != 0 {
            // A thread that ends drops its lines before its tasks.
            let _ = TURNS.try_with(|turns| self.leave(turns));
        }
    }
}

/// Waits for a turn that has room, after those who came before to the same line.
#[cold]
pub(super) async fn next(weight: Weight) {
    let mut place = Place { number: 0, weight };
    poll_fn(|cx| TURNS.with(|turns| place.poll(turns, cx.waker()))).await
}

/// Waits for the next turn, whatever room it has: for what the core has to do, not for what its clients want.
pub(super) async fn chore() {
    let mut came = None;
    poll_fn(|cx| {
        TURNS.with(|turns| {
            let now = turns.turn.get();
            if *came.get_or_insert(now) != now {
                return Poll::Ready(());
            }
            turns.chores.borrow_mut().push(cx.waker().clone());
            turns.standing.set(turns.standing.get() + 1);
            spend(0);
            Poll::Pending
        })
    })
    .await
}

/// How long the turns of this thread's core were so far; to be asked once a tick.
pub(super) fn times() -> TurnTimes {
    TURNS.with(|turns| turns.meter.borrow().times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Wake};

    /// Wakes by writing its number into a list.
    struct Bell(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    /// Futures that wait for their turn, and who of them was called.
    #[derive(Default)]
    struct Crowd {
        waiting: Vec<Option<std::pin::Pin<Box<dyn Future<Output = ()>>>>>,
        called: Arc<Mutex<Vec<usize>>>,
    }

    impl Crowd {
        fn come(&mut self, future: impl Future<Output = ()> + 'static) {
            self.waiting.push(Some(Box::pin(future)));
            assert!(!self.polled(self.waiting.len() - 1));
        }

        /// Whether it goes on.
        fn polled(&mut self, who: usize) -> bool {
            let waker = Waker::from(Arc::new(Bell(who, self.called.clone())));
            let Some(future) = &mut self.waiting[who] else { return false };
            let on = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            if on {
                self.waiting[who] = None;
            }
            on
        }

        /// Ends the turn: those who are called in the next one, and those of them who go on.
        fn turn(&mut self) -> (Vec<usize>, Vec<usize>) {
            TURNS.with(Turns::end);
            let called = std::mem::take(&mut *self.called.lock().unwrap());
            (called.clone(), called.into_iter().filter(|who| self.polled(*who)).collect())
        }
    }

    #[test]
    fn who_waits_goes_on_in_order_as_far_as_there_is_room() {
        let mut crowd = Crowd::default();
        (0..400).for_each(|_| crowd.come(next(Weight::Light)));
        // One gives up.
        crowd.waiting[3] = None;
        let (called, first) = crowd.turn();
        assert_eq!(called.len(), limits::TURN_CALLED);
        assert!(first.len() > limits::TURN_CALLED * 2 / 3 && first[..4] == [0, 1, 2, 4], "{first:?}");
        // Who found no room is first in the next turn.
        let (_, second) = crowd.turn();
        assert_eq!(second.first(), Some(&(first.last().unwrap() + 1)));
        // Whoever comes now waits for the next turn, also if nobody is before him.
        while !crowd.turn().0.is_empty() {}
        crowd.come(next(Weight::Light));
        assert!(!crowd.polled(400));
        assert_eq!(crowd.turn(), (vec![400], vec![400]));
        assert_eq!(TURNS.with(|turns| turns.standing.get()), 0);
    }

    #[test]
    fn large_bodies_hold_up_nobody_and_get_on() {
        let mut crowd = Crowd::default();
        (0..20).for_each(|_| crowd.come(next(Weight::Heavy)));
        (20..23).for_each(|_| crowd.come(next(Weight::Light)));
        crowd.come(chore());
        let (called, _) = crowd.turn();
        assert_eq!(called, [23, 20, 21, 22, 0, 1, 2, 3, 4, 5, 6]);
        // A quarter of a megabyte each: after a few there is no room for another, but the next turn begins with one.
        crowd.turn();
        let mut on = 0;
        TURNS.with(Turns::end);
        let called = std::mem::take(&mut *crowd.called.lock().unwrap());
        for who in called {
            if crowd.polled(who) {
                spend(256 * 1024);
                on += 1;
            }
        }
        assert!((1..=5).contains(&on), "{on}");
    }

    #[test]
    fn who_always_has_more_and_spends_whole_turns_holds_up_nobody() {
        let mut crowd = Crowd::default();
        crowd.come(next(Weight::Heavy));
        (1..=20).for_each(|_| crowd.come(next(Weight::Light)));
        for _ in 0..20 {
            let (_, on) = crowd.turn();
            if on.contains(&0) {
                while !spend(256 * 1024) {}
                crowd.waiting[0] = Some(Box::pin(next(Weight::Heavy)));
                assert!(!crowd.polled(0));
            }
        }
        assert!(crowd.waiting[1..].iter().all(Option::is_none));
    }

    #[test]
    fn heads_that_trickle_hold_up_nobody_and_get_on() {
        let mut crowd = Crowd::default();
        (0..2000).for_each(|_| crowd.come(next(Weight::Slow)));
        crowd.come(next(Weight::Light));
        let (called, on) = crowd.turn();
        assert_eq!(called[0], 2000);
        assert!(on.len() > 50 && on.len() <= 100, "{}", on.len());
        let (_, on) = crowd.turn();
        assert!(on[0] > 50 && on.len() > 50, "{on:?}");
    }

    #[test]
    fn in_a_turn_that_has_lasted_only_the_first_heavy_one_goes_on() {
        let mut crowd = Crowd::default();
        (0..5).for_each(|_| crowd.come(next(Weight::Heavy)));
        crowd.come(next(Weight::Light));
        TURNS.with(Turns::end);
        assert!(crowd.polled(0));
        std::thread::sleep(std::time::Duration::from_micros(limits::TURN_HEAVY_US + 1));
        assert!(crowd.polled(5));
        assert!((1..5).all(|who| !crowd.polled(who)));
        // They are the first ones of the next turn.
        crowd.called.lock().unwrap().clear();
        assert!(crowd.turn().1.starts_with(&[1]));
    }

    #[test]
    fn a_chore_waits_for_one_turn_and_no_room() {
        let mut crowd = Crowd::default();
        crowd.come(chore());
        assert!(!crowd.polled(0));
        TURNS.with(Turns::end);
        while !spend(1 << 20) {}
        assert!(crowd.polled(0));
    }

    #[test]
    fn what_took_long_ends_the_turn_with_the_next_operation() {
        TURNS.with(Turns::end);
        assert!(!spend(0));
        std::thread::sleep(std::time::Duration::from_micros(limits::TURN_US));
        assert!(!spend(0), "the clock is looked at once a portion");
        look();
        assert!(spend(0));
    }

    fn times(turns: &[(u64, u64)]) -> TurnTimes {
        let mut meter = Meter::new();
        turns.iter().for_each(|(now_us, cpu_us)| meter.turn(*now_us, || *cpu_us));
        meter.times
    }

    #[test]
    fn a_turn_is_as_long_as_the_thread_ran() {
        // It waited for a second and ran for 7 ms.
        let one = times(&[(1_000_000, 500), (2_000_000, 7_500)]);
        assert_eq!((one.longest_us, one.sum_us, one.buckets.iter().sum::<u64>()), (7_000, 7_000, 1));
        assert_eq!(one.buckets[TURN_BOUNDS_US.iter().position(|us| *us == 10_000).unwrap()], 1);
        // It ran all the time.
        assert_eq!(times(&[(1_000_000, 0), (1_006_000, 6_000), (1_012_000, 12_000)]).longest_us, 6_000);
    }

    #[test]
    fn short_turns_are_not_measured_and_make_no_later_one_long() {
        let short = limits::TURN_RESOLUTION_US / 10;
        let mut turns: Vec<(u64, u64)> = (0..1000).map(|i| (1_000_000 + i * short, i * short)).collect();
        let busy = times(&turns);
        assert_eq!((busy.buckets[0], busy.longest_us), (999, short));
        let last = turns[999];
        // A wait of a second during which the thread did next to nothing.
        turns.push((last.0 + 1_000_000, last.1 + 10));
        let idle = times(&turns);
        assert_eq!(idle.buckets[0], 1000);
        assert!(idle.longest_us <= limits::TURN_RESOLUTION_US, "{}", idle.longest_us);
    }
}
