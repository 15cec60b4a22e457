//! The choice of a backend: one algorithm, one file. State is per core and cluster.

use super::health::State;
use super::table::Cluster;

/// The backends an exchange has tried and will not try again (unless none else is left).
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    _todo: (),
}

impl Tried {
    /// Adds `cluster.backends[index]`.
    pub fn add(&mut self, _index: usize) {
        todo!()
    }
    /// Whether it was tried.
    pub fn has(&self, _index: usize) -> bool {
        todo!()
    }
}

/// One core's balancing state for one cluster.
#[derive(Debug)]
pub struct Balancer {
    _todo: (),
}

impl Balancer {
    /// `core` staggers where round robin begins; `seed` feeds the random algorithms.
    pub fn new(_cluster: &Cluster, _core: usize, _seed: u64) -> Balancer {
        todo!()
    }

    /// Picks an index into `cluster.backends`: up and not tried; `None` if there is none. `states` is the whole
    /// snapshot's. Allocates nothing.
    pub fn pick(&mut self, _cluster: &Cluster, _states: &[State], _tried: &Tried) -> Option<usize> {
        todo!()
    }
}
