//! The pipes of one core: made when one is asked for, bounded, and handed out again last in first out.

use super::net::Net;
use super::net::pipe::Pipe;
use std::cell::{Cell, RefCell};

/// Free pipes and the number of those handed out.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: RefCell<Vec<Pipe>>,
    in_use: Cell<usize>,
    /// None could be had: none is asked for until the next tick.
    refused: Cell<bool>,
    /// The least number that was free since the last trim.
    least_free: Cell<usize>,
}

impl Pipes {
    /// An empty pipe, if fewer than `most` are out and one can be had.
    pub(super) fn take<N: Net>(&self, net: &N, most: usize) -> Option<Pipe> {
        if self.in_use.get() >= most || self.refused.get() {
            return None;
        }
        let free = self.free.borrow_mut().pop();
        self.least_free.set(self.least_free.get().min(self.free.borrow().len()));
        let pipe = free.or_else(|| net.pipe().ok());
        self.refused.set(pipe.is_none());
        let pipe = pipe?;
        self.in_use.set(self.in_use.get() + 1);
        Some(pipe)
    }

    /// Pipes that are handed out now.
    pub(super) fn in_use(&self) -> usize {
        self.in_use.get()
    }

    /// Takes a pipe back. One that is not empty is closed: what stands in it would end up in a stranger's body.
    pub(super) fn put(&self, pipe: Pipe) {
        self.in_use.set(self.in_use.get() - 1);
        if pipe.is_empty() {
            self.free.borrow_mut().push(pipe);
        }
    }

    /// Closes half of the pipes that nobody needed since the last call; to be called once a tick.
    pub(super) fn trim(&self) {
        self.refused.set(false);
        let mut free = self.free.borrow_mut();
        let spare = self.least_free.get().min(free.len());
        free.drain(..spare.div_ceil(2));
        self.least_free.set(free.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::net::mem::Mem;

    fn pipe(pipes: &Pipes, most: usize) -> Option<Pipe> {
        // The net in memory refuses a pipe now and then.
        let mem = Mem::new(1);
        (0..100).find_map(|_| {
            pipes.refused.set(false);
            pipes.take(&mem, most)
        })
    }

    #[test]
    fn pipes_are_bounded_and_used_again_only_when_empty() {
        let pipes = Pipes::default();
        let (one, mut two) = (pipe(&pipes, 2).unwrap(), pipe(&pipes, 2).unwrap());
        assert!(pipe(&pipes, 2).is_none());
        pipes.put(one);
        two.memory().unwrap().push_back(1);
        pipes.put(two);
        assert_eq!((pipes.free.borrow().len(), pipes.in_use.get()), (1, 0));
    }

    #[test]
    fn idle_pipes_are_closed() {
        let pipes = Pipes::default();
        let out: Vec<_> = (0..5).filter_map(|_| pipe(&pipes, 9)).collect();
        out.into_iter().for_each(|pipe| pipes.put(pipe));
        pipes.trim();
        let left: Vec<usize> = std::iter::repeat_with(|| {
            pipes.trim();
            pipes.free.borrow().len()
        })
        .take(4)
        .collect();
        assert_eq!(left, [2, 1, 0, 0]);
    }
}
