//! How the exchanges of a cluster ended, counted by the cores.

use crate::limits::REASONS_MAX;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Ended exchanges as one core counts them. One writer (the core), read by control: relaxed loads and stores only.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Ends {
    /// By reason code (`exchange::Reason::index`).
    pub reasons: [AtomicU64; REASONS_MAX],
    /// By the class of the status that the client was sent: 1xx.. 5xx at index 1..5, index 0 where none was.
    pub classes: [AtomicU64; 6],
}

impl Ends {
    /// An exchange has ended with this reason, and this status (0 is none).
    pub fn add(&self, reason: usize, status: u16) {
        let class = usize::from(status / 100).min(5);
        for counter in [&self.reasons[reason], &self.classes[class]] {
            counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }
}

/// The ended exchanges of one cluster, one cell per core; made at first use, kept over reloads.
#[derive(Debug)]
pub struct ClusterEnds {
    cores: usize,
    cells: OnceLock<Box<[Ends]>>,
}

impl ClusterEnds {
    /// For this many cores; allocates nothing yet.
    pub fn new(cores: usize) -> ClusterEnds {
        ClusterEnds { cores, cells: OnceLock::new() }
    }

    /// One core's cell, made if this is the first use by any core.
    pub fn core(&self, core: usize) -> &Ends {
        &self.cells.get_or_init(|| (0..self.cores).map(|_| Ends::default()).collect())[core]
    }

    /// All cells, or none if no core has had an exchange of this cluster.
    pub fn all(&self) -> &[Ends] {
        self.cells.get().map_or(&[], |c| c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_counts_for_itself() {
        let ends = ClusterEnds::new(2);
        assert!(ends.all().is_empty());
        for status in [0, 99, 101, 204, 503, 599, 999] {
            ends.core(1).add(3, status);
        }
        let read = |cells: &[AtomicU64]| cells.iter().map(|c| c.load(Relaxed)).collect::<Vec<_>>();
        assert_eq!(read(&ends.all()[1].classes), [2, 1, 1, 0, 0, 3]);
        assert_eq!((read(&ends.all()[1].reasons)[3], read(&ends.all()[0].reasons).iter().sum::<u64>()), (7, 0));
    }
}
