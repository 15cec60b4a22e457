//! What an operator says of a cluster's health: what counts as a failure, for how long a backend is held down, and how it
//! is probed. All resolved, no defaults left.

use super::table::OnTimeout;
use crate::limits;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Health of one cluster's backends. Times are seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPolicy {
    /// See [`OnTimeout`].
    pub on_timeout: OnTimeout,
    /// Failures in a row that mark a backend down; at least 1.
    pub failures: u32,
    /// Statuses that count as failures. A 503 with Retry-After never does.
    pub statuses: StatusSet,
    /// The share of failures that marks a backend down; `None`: only failures in a row do.
    pub rate: Option<FailureRate>,
    /// How long a mark keeps a backend down before it is probed; at least 1.
    pub hold_down: u32,
    /// What that doubles to, at most, when a backend fails again.
    pub hold_down_max: u32,
    /// Time in which a backend's share grows to its weight after a good probe; 0 is at once.
    pub slow_start: u32,
    /// Probes of backends that are up, too; `None`: only of those that have been held down.
    pub check: Option<Check>,
    /// How a backend is probed.
    pub probe: Arc<ProbeSpec>,
}

impl Default for HealthPolicy {
    fn default() -> HealthPolicy {
        HealthPolicy {
            on_timeout: OnTimeout::default(),
            failures: limits::FAILURES_TO_DOWN,
            statuses: StatusSet::default(),
            rate: None,
            hold_down: limits::HOLD_DOWN_SECONDS,
            hold_down_max: limits::HOLD_DOWN_MAX_SECONDS,
            slow_start: 0,
            check: None,
            probe: Arc::default(),
        }
    }
}

/// So many of a hundred requests failed, within the latest seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRate {
    /// 1 to 100.
    pub percent: u32,
    /// Requests that must have ended within the time for the share to mean anything; at least 1.
    pub requests: u32,
    /// Seconds, at least 1.
    pub within: u32,
}

/// Active checks of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Seconds between two probes, give or take a tenth; at least 1.
    pub interval: u32,
    /// Good probes in a row that bring a backend up; at least 1.
    pub rise: u32,
    /// Bad probes in a row that mark one down; at least 1.
    pub fall: u32,
}

impl Default for Check {
    fn default() -> Check {
        Check { interval: limits::CHECK_SECONDS, rise: limits::CHECK_RISE, fall: limits::CHECK_FALL }
    }
}

/// How a backend is probed. Two equal ones towards one endpoint are one probe, whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeSpec {
    /// Seconds it may take in all; at least 1.
    pub timeout: u32,
    /// What is asked; `None`: a connection is enough.
    pub request: Option<ProbeRequest>,
}

impl Default for ProbeSpec {
    fn default() -> ProbeSpec {
        ProbeSpec { timeout: limits::PROBE_SECONDS, request: None }
    }
}

/// A probe's request, and the answer that is good.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeRequest {
    /// A token.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Value of Host; `None` is the endpoint's address.
    pub host: Option<String>,
    /// More field lines.
    pub headers: BTreeMap<String, String>,
    /// Statuses that are good.
    pub statuses: StatusSet,
    /// Text that must stand in the first `limits::PROBE_BODY_BYTES_MAX` of the body.
    pub body: Option<String>,
}

impl ProbeRequest {
    /// GET of a path that must be answered with 2xx or 3xx.
    pub fn get(path: impl Into<String>) -> ProbeRequest {
        ProbeRequest {
            method: "GET".into(),
            path: path.into(),
            host: None,
            headers: BTreeMap::new(),
            statuses: [2, 3].into_iter().fold(StatusSet::default(), StatusSet::with_class),
            body: None,
        }
    }
}

/// A set of statuses from 100 to 599.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusSet([u64; 8]);

impl StatusSet {
    /// With one more; one that is no status is not taken.
    pub fn with(mut self, status: u16) -> StatusSet {
        if let Some((word, bit)) = place(status) {
            self.0[word] |= bit;
        }
        self
    }

    /// With all of a class, 1 to 5.
    pub fn with_class(self, class: u16) -> StatusSet {
        (class * 100..class * 100 + 100).fold(self, StatusSet::with)
    }

    /// Whether this one is in it.
    #[inline]
    pub fn contains(&self, status: u16) -> bool {
        place(status).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 8]
    }

    /// Whole classes, and what is there beside them.
    pub fn parts(&self) -> (Vec<u16>, Vec<u16>) {
        let whole = |class: &u16| (*class * 100..*class * 100 + 100).all(|s| self.contains(s));
        let classes: Vec<u16> = (1..=5).filter(whole).collect();
        let rest = (100..600).filter(|s| self.contains(*s) && !classes.contains(&(s / 100))).collect();
        (classes, rest)
    }
}

#[inline]
fn place(status: u16) -> Option<(usize, u64)> {
    let at = status.checked_sub(100).filter(|at| *at < 500)?;
    Some((usize::from(at / 64), 1 << (at % 64)))
}

impl fmt::Debug for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (classes, rest) = self.parts();
        f.debug_set().entries(classes.iter().map(|c| format!("{c}xx"))).entries(rest).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = StatusSet::default().with(503).with(100).with(599).with_class(4).with(99).with(600).with(u16::MAX);
        for status in 0..=u16::MAX {
            let want = matches!(status, 100 | 400..=499 | 503 | 599);
            assert_eq!(set.contains(status), want, "{status}");
        }
        assert_eq!(set.parts(), (vec![4], vec![100, 503, 599]));
        assert!(!set.is_empty() && StatusSet::default().is_empty());
        assert_eq!(format!("{set:?}"), r#"{"4xx", 100, 503, 599}"#);
    }
}
