//! What one core is given at its birth.

use super::Links;
pub use super::doorstep::Doorstep;
use super::net::driver::Choice;
use super::net::os::Bell;
use crate::access_log::Queue;
use crate::event::{CoreStats, FromWorker, ToWorker};
use crate::publish::Publisher;
use crossbeam_channel::{Receiver, Sender};
use std::rc::Rc;
use std::sync::Arc;

/// Everything that the thread of one core starts with. Listeners come through `inbox`, before the first connection.
pub struct Start {
    /// Index of this core, from 0; index of its [`crate::route::health::CoreCell`].
    pub core: usize,
    /// The CPU it is pinned to, if it is to be.
    pub cpu: Option<usize>,
    /// Number of cores.
    pub cores: usize,
    /// The driver that the ladder chose, the same for all cores.
    pub choice: Choice,
    /// Where the snapshots are found. The first is there before the thread starts.
    pub publisher: Arc<Publisher>,
    /// From control.
    pub inbox: Receiver<ToWorker>,
    /// The doorbells of all cores, by their numbers. Rung by control after a message or a publication, and by other cores
    /// that have or want permits for a backend.
    pub bells: Arc<[Bell]>,
    /// The doorsteps of all cores, by their numbers: where each takes over connections of the others.
    pub doorsteps: Arc<[Doorstep]>,
    /// To control. A full channel loses hints (`Report`: then set [`CoreStats::look_at_all`]); `Retired` and `Drained`
    /// are tried again at the next tick.
    pub outbox: Sender<FromWorker>,
    /// Rings control, from any thread; after anything was put into `outbox` or `look_at_all` was set.
    pub ring_control: Arc<dyn Fn() + Send + Sync>,
    /// What this core counts.
    pub stats: Arc<CoreStats>,
    /// Its end of the access log.
    pub log: Queue,
}

impl Start {
    /// What the runtime is made with, and what ties the core to the rest of the process.
    pub fn links(self) -> ((Choice, Option<usize>, Bell), Links) {
        let Start { core, cpu, choice, publisher, inbox, bells, doorsteps, outbox, ring_control, stats, log, .. } =
            self;
        let bell = bells[core].clone();
        let ring_core = Rc::new(move |core: usize| bells[core].ring());
        let links = Links { core, publisher, inbox, outbox, ring_control, ring_core, doorsteps, stats, log };
        ((choice, cpu, bell), links)
    }
}
