//! The executor of a simulation: one thread, tasks polled in random order, the clock moves only when none can run.

use super::Mem;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Tasks by their number, and those that were woken.
#[derive(Default)]
pub(super) struct Tasks {
    all: Vec<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    woken: Arc<Mutex<Vec<usize>>>,
}

/// The number of the main future.
const MAIN: usize = usize::MAX;

struct Alarm {
    task: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        wake(&self.woken, self.task);
    }
}

fn wake(woken: &Mutex<Vec<usize>>, task: usize) {
    let mut woken = woken.lock().unwrap_or_else(PoisonError::into_inner);
    if !woken.contains(&task) {
        woken.push(task);
    }
}

impl Tasks {
    pub(super) fn spawn(&mut self, task: Pin<Box<dyn Future<Output = ()>>>) {
        self.all.push(Some(task));
        wake(&self.woken, self.all.len() - 1);
    }

    pub(super) fn alive(&self) -> usize {
        self.all.iter().flatten().count()
    }

    pub(super) fn take_all(&mut self) -> Vec<Option<Pin<Box<dyn Future<Output = ()>>>>> {
        std::mem::take(&mut self.all)
    }

    fn waker(&self, task: usize) -> Waker {
        Waker::from(Arc::new(Alarm { task, woken: self.woken.clone() }))
    }
}

impl Mem {
    /// Runs until `main` is done. Tasks that are not done by then stay as they are; a next `run` goes on with them.
    ///
    /// # Panics
    /// If nothing can ever happen any more (a deadlock), or if `Weather::seconds_max` have passed; the message names what
    /// waits.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        wake(&self.0.tasks.borrow().woken, MAIN);
        loop {
            match self.pick() {
                Some(MAIN) => {
                    let waker = self.0.tasks.borrow().waker(MAIN);
                    if let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return result;
                    }
                }
                Some(task) => self.poll_task(task),
                None => self.pass_time(),
            }
        }
    }

    /// One of the tasks that can run.
    fn pick(&self) -> Option<usize> {
        let tasks = self.0.tasks.borrow();
        let mut woken = tasks.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if woken.is_empty() {
            return None;
        }
        let mut world = self.0.world.borrow_mut();
        let at = world.dice.below(woken.len() as u64) as usize;
        let task = woken.swap_remove(at);
        let now = world.now;
        world.trace.note(0, [now, task as u64, 0]);
        Some(task)
    }

    fn poll_task(&self, number: usize) {
        let (task, waker) = {
            let mut tasks = self.0.tasks.borrow_mut();
            (tasks.all.get_mut(number).and_then(Option::take), tasks.waker(number))
        };
        // A task that is done may be woken once more.
        let Some(mut task) = task else { return };
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.0.tasks.borrow_mut().all[number] = Some(task);
        }
    }

    fn pass_time(&self) {
        if let Some(watch) = &*self.0.watch.borrow() {
            watch();
        }
        let mut world = self.0.world.borrow_mut();
        let seconds = world.now / 1_000_000;
        let in_time = seconds < world.weather.seconds_max;
        assert!(in_time, "not done after {seconds} seconds; waiting: {:?}", world.waiting());
        let went = world.step();
        assert!(went, "deadlock after {seconds} seconds; waiting: {:?}", world.waiting());
    }
}
