//! A descriptor that is kept so that operators and monitoring are heard when the process has none left: given up, it makes
//! room for one client.

use crate::worker::net::is_local;
use std::fs::File;
use std::io::{self, ErrorKind};

/// The descriptor, as long as it is not needed.
#[derive(Debug)]
pub(super) struct Spare(Option<File>);

impl Spare {
    pub(super) fn new() -> Spare {
        Spare(reserve())
    }

    /// Accepts, in place of the spare one if it must be.
    pub(super) fn accept<T>(&mut self, accept: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match accept() {
            Err(e) if e.kind() != ErrorKind::WouldBlock && is_local(&e) && self.0.take().is_some() => accept(),
            result => result,
        }
    }

    /// Takes one again as soon as there is one: to be called in each turn.
    pub(super) fn refill(&mut self) {
        if self.0.is_none() {
            self.0 = reserve();
        }
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
