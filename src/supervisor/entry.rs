//! What is known of one endpoint.

use super::hold_down::HoldDown;
use crate::limits::SLOW_START_STEPS;
use crate::route::health::Standing;
use crate::route::judge::Judge;

/// What is known of one endpoint, and where it stands in the table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) cluster: usize,
    pub(super) index: usize,
    pub(super) health: Health,
    pub(super) hold: HoldDown,
    pub(super) since_ms: u64,
    pub(super) why: String,
    /// What the latest probe found.
    pub(super) evidence: Option<String>,
    /// A fault that was not acted upon, since this was the last one up.
    pub(super) kept_up: Option<(u64, String)>,
    pub(super) judge: Judge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Up {
        /// Checks in a row that were bad.
        bad: u32,
        /// Its share is still growing.
        ramp: Option<Ramp>,
    },
    /// Left alone until then.
    Held { until_ms: u64 },
    /// Down until probes in a row are good.
    Proving {
        /// So many were, so far.
        good: u32,
    },
}

/// Slow start: so many of `limits::SLOW_START_STEPS` parts of its share, and when there is one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ramp {
    pub(super) step: u32,
    pub(super) next_ms: u64,
    pub(super) step_ms: u64,
}

impl Ramp {
    /// `None` if the cluster wants none.
    pub(super) fn begin(slow_start: u32, now: u64) -> Option<Ramp> {
        let step_ms = u64::from(slow_start) * 1000 / u64::from(SLOW_START_STEPS);
        (step_ms > 0).then_some(Ramp { step: 1, next_ms: now + step_ms, step_ms })
    }

    /// One or more steps on; `None` at the end.
    pub(super) fn next(self, now: u64) -> Option<Ramp> {
        let steps = 1 + now.saturating_sub(self.next_ms) / self.step_ms;
        let step = u64::from(self.step) + steps;
        let next_ms = self.next_ms + steps * self.step_ms;
        (step < u64::from(SLOW_START_STEPS)).then_some(Ramp { step: step as u32, next_ms, ..self })
    }
}

impl Health {
    pub(super) const WELL: Health = Health::Up { bad: 0, ramp: None };

    pub(super) fn due_ms(self) -> Option<u64> {
        match self {
            Health::Up { ramp: Some(ramp), .. } => Some(ramp.next_ms),
            Health::Held { until_ms } => Some(until_ms),
            Health::Up { ramp: None, .. } | Health::Proving { .. } => None,
        }
    }

    /// Probes in a row were of another kind: the row begins anew.
    pub(super) fn forget_probes(&mut self) {
        match self {
            Health::Up { bad: row, .. } | Health::Proving { good: row } => *row = 0,
            Health::Held { .. } => {}
        }
    }

    /// As workers would see it if operators said nothing.
    pub(super) fn observed(self) -> Standing {
        if self.is_up() { Standing::Up } else { Standing::Down }
    }

    pub(super) fn is_up(self) -> bool {
        matches!(self, Health::Up { .. })
    }
}

impl Entry {
    pub(super) fn fresh(now: u64) -> Entry {
        Entry {
            cluster: 0,
            index: 0,
            health: Health::WELL,
            hold: HoldDown::default(),
            since_ms: now,
            why: "it is new".to_owned(),
            evidence: None,
            kept_up: None,
            judge: Judge::default(),
        }
    }
}
