//! Turns of the event loop: how long each was, and how much may be done in one.
//!
//! A turn begins when the loop comes back from the kernel with what has completed, and ends when it goes there again. What
//! completes meanwhile is not seen and, on the ring, what was sent meanwhile is not yet sent: so a turn is kept short,
//! however many connections can go on at once. Each operation that ends costs something ([`spend`]), for what it lets the
//! kernel do later; when `limits::TURN_BUDGET` is used up, or `limits::TURN_US` have passed, tasks wait for one of the next
//! turns, first come first served ([`next`]).
//!
//! The runtime has no hook for this, but it polls its main future after the tasks of a turn if something has woken it. The
//! first operation that ends in a turn does so ([`begin`]), and that poll ends the turn ([`watched`]).

use super::os::{clock_us, cpu_us};
use crate::event::{TURN_BOUNDS_US, TurnTimes};
use crate::limits;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};

/// No operation has ended in this turn.
const FRESH: i32 = i32::MAX;
/// What is spent between two looks at the clock.
const PORTION: i32 = 16 * limits::TURN_OPERATION;

thread_local! {
    /// What is left of the portion that is being spent, or FRESH. By itself, since every operation looks at it.
    static LEFT: Cell<i32> = const { Cell::new(FRESH) };
    static TURNS: Turns = const { Turns::new() };
}

/// One core's turns.
struct Turns {
    /// Wakes the runtime's main future.
    main: RefCell<Option<Waker>>,
    /// What is left of the turn's budget beside the portion that is being spent.
    budget: Cell<i32>,
    /// Those that wait for a turn, and the number of those that did and have got theirs.
    waiting: RefCell<VecDeque<Waker>>,
    called: Cell<u64>,
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
            waiting: RefCell::new(VecDeque::new()),
            called: Cell::new(0),
            meter: RefCell::new(Meter::new()),
        }
    }

    fn end(&self) {
        LEFT.set(FRESH);
        let mut waiting = self.waiting.borrow_mut();
        let next = waiting.len().min(limits::TURN_CALLED);
        self.called.set(self.called.get() + next as u64);
        waiting.drain(..next).for_each(Waker::wake);
    }
}

/// Runs the future that a runtime blocks on, so that turns have an end.
pub(super) async fn watched<F: Future>(main: F) -> F::Output {
    TURNS.with(|turns| turns.meter.replace(Meter::new()));
    let mut main = pin!(main);
    poll_fn(|cx| {
        TURNS.with(|turns| {
            turns.main.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            turns.end();
        });
        main.as_mut().poll(cx)
    })
    .await
}

/// Counts an operation that has ended, and the bytes it moved. `true`: the budget of this turn is used up, and whoever asked
/// should wait for the [`next`] one.
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

/// A portion has been spent: whether that was the last one of this turn.
#[cold]
fn is_over() -> bool {
    TURNS.with(|turns| {
        let budget = turns.budget.get();
        let over = budget <= 0 || clock_us().saturating_sub(turns.meter.borrow().began_us) >= limits::TURN_US;
        if over {
            turns.budget.set(0);
        } else {
            turns.budget.set(budget - PORTION);
            LEFT.set(LEFT.get() + PORTION);
        }
        over
    })
}

#[cold]
fn begin() -> i32 {
    TURNS.with(|turns| {
        turns.meter.borrow_mut().turn(clock_us(), cpu_us);
        if let Some(main) = &*turns.main.borrow() {
            main.wake_by_ref();
        }
        turns.budget.set(limits::TURN_BUDGET - PORTION);
    });
    PORTION
}

/// Waits for a later turn: the next, unless too many wait already.
#[cold]
pub(super) async fn next() {
    let mut number = None;
    poll_fn(|cx| {
        TURNS.with(|turns| {
            if let Some(number) = number {
                if number >= turns.called.get() {
                    return Poll::Pending;
                }
                spend(0);
                return Poll::Ready(());
            }
            // Somebody has to end this turn, even if nothing else comes to its end in it.
            spend(0);
            let mut waiting = turns.waiting.borrow_mut();
            number = Some(turns.called.get() + waiting.len() as u64);
            waiting.push_back(cx.waker().clone());
            Poll::Pending
        })
    })
    .await
}

/// How long the turns of this thread's core were so far.
pub(super) fn times() -> TurnTimes {
    TURNS.with(|turns| turns.meter.borrow().times)
}

#[cfg(test)]
mod tests {
    use super::*;

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
