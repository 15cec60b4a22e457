//! Requests that wait for their turn, and retries that were not afforded, as the cores count them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// What one core counts of one cluster. One writer (the core), read by control: relaxed loads and stores only.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WaitCell {
    /// Requests that wait now.
    pub waiting: AtomicU32,
    /// Requests that have had to wait, those that wait now included.
    pub waited: AtomicU64,
    /// Of those, answered with 503 because more came than may wait.
    pub overflowed: AtomicU64,
    /// Of those, answered with 503 because they had waited too long.
    pub timed_out: AtomicU64,
    /// Retries that the cluster did not afford.
    pub retries_refused: AtomicU64,
}

/// The cells of one cluster, one per core; made at first use, kept over reloads.
#[derive(Debug)]
pub struct Waits {
    cores: usize,
    cells: OnceLock<Box<[WaitCell]>>,
}

impl Waits {
    /// For this many cores; allocates nothing yet.
    pub fn new(cores: usize) -> Waits {
        Waits { cores, cells: OnceLock::new() }
    }

    /// For how many cores.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// One core's cell, made if this is the first use by any core.
    pub fn core(&self, core: usize) -> &WaitCell {
        &self.cells.get_or_init(|| (0..self.cores).map(|_| WaitCell::default()).collect())[core]
    }

    /// All cells, or none if no request has ever waited.
    pub fn all(&self) -> &[WaitCell] {
        self.cells.get().map_or(&[], |c| c)
    }
}
