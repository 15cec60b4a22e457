//! The end of the process: how long the workers get, and when it is over.

use super::{Action, Supervisor};
use crate::limits::DRAIN_GRACE_SECONDS;

/// A drain under way. Times are milliseconds.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) since_ms: u64,
    until_ms: u64,
    drained: Vec<bool>,
    cut: u64,
    stopped: bool,
}

impl Drain {
    /// When it is over at the latest; `None` once it is.
    pub(super) fn deadline(&self) -> Option<u64> {
        (!self.stopped).then_some(self.until_ms)
    }
}

impl Supervisor {
    /// Begins to end the process: no reload, mark or probe from here on. Returns the seconds the workers get
    /// (`ToWorker::Drain`); `None` if it has begun before.
    pub fn drain(&mut self, now: u64) -> Option<u32> {
        if self.drain.is_some() {
            return None;
        }
        let seconds = self.settings.drain_timeout;
        let until_ms = now + (u64::from(seconds) + DRAIN_GRACE_SECONDS) * 1000;
        let drained = vec![false; self.cores];
        self.drain = Some(Drain { since_ms: now, until_ms, drained, cut: 0, stopped: false });
        Some(seconds)
    }

    /// A core has ended its last connection, after cutting so many.
    pub fn drained(&mut self, core: usize, cut: u32, now: u64) -> Vec<Action> {
        let Some(drain) = &mut self.drain else { return Vec::new() };
        if let Some(drained) = drain.drained.get_mut(core)
            && !std::mem::replace(drained, true)
        {
            drain.cut += u64::from(cut);
        }
        self.drain_over(now)
    }

    pub(super) fn drain_over(&mut self, now: u64) -> Vec<Action> {
        let Some(drain) = &mut self.drain else { return Vec::new() };
        let missing = drain.drained.iter().filter(|d| !**d).count();
        if drain.stopped || (missing > 0 && now < drain.until_ms) {
            return Vec::new();
        }
        drain.stopped = true;
        vec![Action::Stop { cut: drain.cut, missing }]
    }
}
